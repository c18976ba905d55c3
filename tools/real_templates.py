#!/usr/bin/env python3
"""Fetches chat templates that real models come with, and writes what Jinja itself makes of them, set up as transformers does, for the
test RealTemplates of test_engine to compare with Quire. They are other people's, so they are fetched and not committed: those that
llama.cpp collects, out of the source package of llama-cpp-python on PyPI (models/templates, and the older ones in
tests/test-chat-template.cpp, Llama 2's among them).

    pip install jinja2
    tools/real_templates.py [DIRECTORY]      default ~/.cache/quire/templates, where the test looks (or QUIRE_TEMPLATES says where)

A directory that has NAME.jinja files of your own gets cases for those too.
"""
import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from golden_templates import environment

PACKAGE, SHA256 = "llama-cpp-python==0.3.36", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"

USER, MORE = {"role": "user", "content": "Hi <b>&'\"\n"}, {"role": "user", "content": "日本 é 😀?"}
SYSTEM, ANSWER = {"role": "system", "content": " Be brief. "}, {"role": "assistant", "content": "  Hello!"}
TOOL = {"type": "function", "function": {"name": "get_time", "description": "Time in a \"zone\"", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string", "description": "é", "enum": ["utc", "é"]}, "n": {"type": "integer"}},
    "required": ["zone"]}}}


def call(arguments):
    return {"role": "assistant", "content": "", "tool_calls": [
        {"id": "abcdef123", "type": "function", "function": {"name": "get_time", "arguments": arguments}}]}


RESULT = {"role": "tool", "name": "get_time", "tool_call_id": "abcdef123", "content": "12:00"}
BASE = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "tools": None, "documents": None}
CONVERSATIONS = {
    "chat": {"messages": [SYSTEM, USER, ANSWER, MORE]},
    "no_system": {"messages": [USER, ANSWER, MORE]},
    "ends_with_answer": {"messages": [SYSTEM, USER, ANSWER], "add_generation_prompt": False},
    "one_question": {"messages": [USER]},
    "two_users": {"messages": [USER, MORE]},
    "tools_offered": {"messages": [SYSTEM, USER], "tools": [TOOL]},
    "tool_called": {"messages": [SYSTEM, USER, call({"zone": "é", "n": 1}), RESULT], "tools": [TOOL]},
    "tool_answered": {"messages": [USER, call({"zone": "é", "n": 1}), RESULT, ANSWER, MORE], "tools": [TOOL, TOOL]},
    "tool_called_text": {"messages": [USER, call('{"zone": "é"}'), RESULT], "tools": [TOOL], "add_generation_prompt": False},
    "thought": {"messages": [USER, {"role": "assistant", "content": "<think>\nhm</think>\n\nA"}, MORE]},
    "reasoned": {"messages": [USER, dict(ANSWER, reasoning_content="hm", thinking="hm"), MORE], "enable_thinking": True},
    "no_thinking": {"messages": [USER], "enable_thinking": False},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}, {"type": "text", "text": " two"}]}]},
}


def fetch(directory):
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", temporary,
                        PACKAGE], check=True)
        archive = next(Path(temporary).iterdir())
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            sys.exit(f"{archive.name} is not the file this was written for")
        with tarfile.open(archive) as tar:
            for member in tar:
                path = member.name.partition("/vendor/llama.cpp/")[2]
                if path.startswith("models/templates/") and path.endswith(".jinja"):
                    (directory / Path(path).name).write_bytes(tar.extractfile(member).read())
                elif path == "tests/test-chat-template.cpp":
                    older(tar.extractfile(member).read().decode(), directory)


def older(source, directory):
    """Those that the test has as string literals of C++, each with a name before it."""
    entry = re.compile(r'/\* \.name= \*/ ("(?:[^"\\]|\\.)*"),\s*/\* \.template_str= \*/ (R"\((.*?)\)"|(?:"(?:[^"\\]|\\.)*"\s*)+),', re.S)
    for name, text, raw in entry.findall(source):
        if not raw:
            raw = "".join(ast.literal_eval(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"', text))
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", ast.literal_eval(name)).strip("-")
        (directory / f"older-{name}.jinja").write_text(raw, encoding="utf-8")


def main():
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quire" / "templates"
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    directory.mkdir(parents=True, exist_ok=True)
    if not any(directory.glob("*.jinja")):
        fetch(directory)
    env = environment()
    # The test puts today's date there, in Quire's words.
    env.globals["strftime_now"] = lambda form: f"\x01{form}\x02"
    sets = {name: {**BASE, **conversation} for name, conversation in CONVERSATIONS.items()}
    cases = []
    for path in sorted(directory.glob("*.jinja")):
        for name, variables in sets.items():
            case = {"template": path.name, "variables": name}
            try:
                case["expected"] = env.from_string(path.read_text(encoding="utf-8")).render(**variables)
            except Exception as e:  # whatever Jinja or Python raises: the template fails
                case["error"] = type(e).__name__ + ": " + str(e).split("\n")[0]
            cases.append(case)
    (directory / "golden.json").write_text(json.dumps({"variables": sets, "cases": cases}, indent=1), encoding="utf-8")
    print(len({c["template"] for c in cases}), "templates,", len(cases), "cases,", sum("error" in c for c in cases), "of them errors")


if __name__ == "__main__":
    main()
