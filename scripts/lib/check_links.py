"""Checks that local links in Markdown files resolve: check_links.py FILE...

A link to a file must name an existing file; a link to a heading must name a heading of that file. Links to other hosts and
code are not checked. Needs only the standard library.
"""

import os
import re
import sys
import urllib.parse

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
OTHER = re.compile(r"[a-z][a-z0-9+.-]*:")


def without_code(text):
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path):
    """The anchors of a file's headings, as GitHub makes them."""
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"^(```|~~~).*?^\1", "", file.read(), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count, name = 0, anchor
        while name in found:
            count += 1
            name = f"{anchor}-{count}"
        found.add(name)
    return found


def broken(path):
    with open(path, encoding="utf-8") as file:
        text = without_code(file.read())
    for target in LINK.findall(text):
        if OTHER.match(target):
            continue
        name, _, anchor = urllib.parse.unquote(target).partition("#")
        file = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
        if not os.path.exists(file):
            yield f"{path}: {target}: there is no {file}"
        elif anchor and file.endswith(".md") and anchor not in anchors(file):
            yield f"{path}: {target}: {file} has no heading #{anchor}"


def main(paths):
    problems = [problem for path in paths for problem in broken(path)]
    print("\n".join(problems) if problems else f"{len(paths)} files: all local links resolve")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
