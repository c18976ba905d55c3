#!/usr/bin/env python3
"""Writes tests/engine/golden_templates.json: what Jinja itself makes of templates, set up as HuggingFace does for chat templates.

    pip install jinja2
    tools/golden_templates.py tests/engine/golden_templates.json

A case (golden_template_cases.py) is a template, its variables, and either the text it gives or the fact that it fails.
"""
import json
import sys

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from golden_template_cases import CHAT, DATA, EXPRESSIONS, FAMILIES, STATEMENTS, TOOLS


class Generation(Extension):  # as in transformers: its content is a call block
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(lineno)

    def _support(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def run(template, variables):
    case = {"template": template, "variables": variables}
    try:
        case["expected"] = environment().from_string(template).render(**variables)
    except Exception as e:  # whatever Jinja or Python raises: the template fails
        case["error"] = type(e).__name__ + ": " + str(e).split("\n")[0]
    return case


def main():
    no_system = dict(CHAT, messages=CHAT["messages"][1:], add_generation_prompt=False)
    doubled = dict(CHAT, messages=CHAT["messages"][1:2] * 2)
    thinking = dict(CHAT, messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nhm</think>\n\nA"},
                                    {"role": "tool", "content": "r"}, {"role": "user", "content": "<tool>x</tool>"},
                                    {"role": "assistant", "content": [{"type": "text", "text": "p"}]}])
    sets = {"chat": CHAT, "no_system": no_system, "doubled": doubled, "tools": TOOLS, "thinking": thinking, "data": DATA}
    cases = [("families", t, s) for t in FAMILIES for s in ("chat", "no_system", "doubled", "tools", "thinking")]
    cases += [("expressions", "{{ " + e + " }}", "data") for e in EXPRESSIONS]
    cases += [("statements", t, "data") for t in STATEMENTS]
    out = []
    for group, template, name in cases:
        case = run(template, sets[name])
        case["variables"] = name
        case["group"] = group
        out.append(case)
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        f.write('{"variables": ' + json.dumps(sets) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(c) for c in out) + "\n]}\n")
    print(len(out), "cases,", sum("error" in c for c in out), "of them errors")
    for c in out:
        if "error" in c and c["group"] == "expressions":
            print("fails:", c["template"], c["error"])


if __name__ == "__main__":
    main()
