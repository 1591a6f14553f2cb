#!/usr/bin/env python3
"""Every TUTTI_API function of a public header has a comment directly above it.

"Directly above" means: the comment begins the block of lines without a blank one that holds the
declaration; a group of declarations, or a type and the function that uses it, may share one.
Run in the repository, or --root DIR.
"""
import argparse
import pathlib
import re
import sys


def blocks(text):
    """(first line number, text) of each run of lines; blank lines inside a comment do not split."""
    start, lines, in_comment = None, [], False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() and not in_comment:
            if lines:
                yield start, "\n".join(lines)
            start, lines = None, []
            continue
        if start is None:
            start = number
        lines.append(line)
        rest = re.sub(r"/\*.*?\*/", "", line)
        in_comment = "/*" in rest or (in_comment and "*/" not in rest)
    if lines:
        yield start, "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root.resolve()
    n_functions = n_bad = 0
    for header in sorted((root / "include/tutti").glob("*.h")):
        for line, block in blocks(header.read_text()):
            code = re.sub(r"/\*.*?\*/", "", block, flags=re.S)
            code = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", "", code, flags=re.M)
            names = re.findall(r"\bTUTTI_API\b[^;(]*?\b(\w+)\s*\(", code)
            n_functions += len(names)
            if names and not re.match(r"/\*\*?\s+\S|/\*\*?\n", block.lstrip()):
                n_bad += len(names)
                print(f"{header.relative_to(root)}:{line}: no comment above {', '.join(names)}")
    print(f"docs: {n_functions} functions, {n_bad} without a comment")
    return 1 if n_bad or n_functions == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
