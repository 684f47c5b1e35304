"""Prints Python blocks of a Markdown page: those with these numbers, from 1, or those that contain one of these texts.

    code_blocks.py PAGE (NUMBER | TEXT)…
"""

import pathlib
import re
import sys

page, *wanted = sys.argv[1:]
blocks = re.findall(r"^```python\n(.*?)^```$", pathlib.Path(page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
found = [
    block
    for number, block in enumerate(blocks, 1)
    if any(int(word) == number if word.isdigit() else word in block for word in wanted)
]
if not found:
    sys.exit(f"{page} has no such block: {wanted}")
print("\n\n".join(found), end="")
