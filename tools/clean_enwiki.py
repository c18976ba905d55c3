#!/usr/bin/env python3
"""Plain text from an excerpt of the English Wikipedia dump: prose paragraphs of whole articles, nothing else, the same bytes
on every machine. Standard library only.

usage: clean_enwiki.py DUMP.xml.bz2 OUT.txt [CAP]

CAP: keep whole paragraphs of an article until it has this many characters (0, the default: all of it)."""
import bz2
import html
import re
import sys
import xml.etree.ElementTree as ET

NAMESPACE = "{http://www.mediawiki.org/xml/export-0.10/}"
DROPPED_TAGS = ("math", "gallery", "table", "timeline", "code", "source", "syntaxhighlight", "pre", "imagemap", "div")
DROPPED_LINK = re.compile(r"\[\[\s*(?:File|Image|Category|[a-z]{2,3}(?:-[a-z]+)?)\s*:", re.I)


def without_nested(text, opening, closing):
    """The text outside every (nested) opening ... closing."""
    kept, depth, i = [], 0, 0
    while i < len(text):
        if text.startswith(opening, i):
            depth += 1
            i += len(opening)
        elif depth and text.startswith(closing, i):
            depth -= 1
            i += len(closing)
        else:
            if not depth:
                kept.append(text[i])
            i += 1
    return "".join(kept)


def without_files(text):
    """Drops [[File:...]], categories and language links, whose captions may hold links themselves."""
    kept, i = [], 0
    while match := DROPPED_LINK.search(text, i):
        kept.append(text[i : match.start()])
        depth, i = 0, match.start()
        while i < len(text):
            if text.startswith("[[", i):
                depth += 1
                i += 2
            elif text.startswith("]]", i):
                depth -= 1
                i += 2
                if depth == 0:
                    break
            else:
                i += 1
    kept.append(text[i:])
    return "".join(kept)


def without_markup(text):
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"<ref[^>/]*/>", "", text)
    text = re.sub(r"<ref[^>]*>.*?</ref>", "", text, flags=re.S)
    for tag in DROPPED_TAGS:
        text = re.sub(rf"<{tag}[^>]*>.*?</{tag}>", "", text, flags=re.S | re.I)
    text = without_nested(text, "{{", "}}")
    text = without_nested(text, "{|", "|}")
    text = without_files(text)
    text = re.sub(r"\[\[(?:[^\]|]*\|)?([^\]|]*)\]\]", r"\1", text)
    text = re.sub(r"\[(?:https?|ftp)://\S+\s*([^\]]*)\]", r"\1", text)
    text = re.sub(r"<[^>]{1,200}>", "", text)
    text = html.unescape(html.unescape(text)).replace("\xa0", " ")
    return re.sub(r"'{2,}", "", text)


def paragraphs(text):
    """Prose only: no lists, tables or headings, nothing short, whole sentences."""
    for line in without_markup(text).split("\n"):
        line = re.sub(r"\(\s*[;,]?\s*\)", "", line)
        line = re.sub(r"[ \t]+", " ", line).strip()
        if len(line) >= 120 and line[0] not in "*#:;|!{}=_" and line[-1] in '.!?")':
            yield line


def capped(lines, cap):
    kept, length = [], 0
    for line in lines:
        kept.append(line)
        length += len(line)
        if cap and length >= cap:
            break
    return kept


def main(dump, out, cap=0):
    root = ET.fromstring(bz2.open(dump).read())
    articles = 0
    with open(out, "w", encoding="utf-8", newline="\n") as target:
        for page in root.iter(NAMESPACE + "page"):
            if page.find(NAMESPACE + "redirect") is not None or page.findtext(NAMESPACE + "ns") != "0":
                continue
            lines = list(paragraphs(page.find(NAMESPACE + "revision").findtext(NAMESPACE + "text") or ""))
            if len(lines) < 3:
                continue
            title = page.findtext(NAMESPACE + "title")
            target.write(f" = {title} = \n\n" + "\n\n".join(capped(lines, int(cap))) + "\n\n\n")
            articles += 1
    print(articles, "articles")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
