#!/usr/bin/env python3
"""Write abi/symbols.txt and abi/tutti.map: one exported name for each TUTTI_API function.

--check writes nothing and fails if the files are not what would be written.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NODE = "TUTTI_0.1"


def api_names(text):
    """Names of the functions that a header declares with TUTTI_API."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.M)
    return re.findall(r"\bTUTTI_API\b[^;(]*?\b(tutti_\w+)\s*\(", text)


def main():
    names = set()
    for header in sorted((ROOT / "include/tutti").glob("*.h")):
        names.update(api_names(header.read_text()))
    ordered = sorted(names)
    wanted = {
        "abi/symbols.txt": "".join(f"{name}\n" for name in ordered),
        "abi/tutti.map": "/* Every name that libtutti.so exports; written by `make symbols`. */\n"
        + f"{NODE} {{\n    global:\n"
        + "".join(f"        {name};\n" for name in ordered)
        + "    local:\n        *;\n};\n",
    }
    bad = 0
    for path, text in wanted.items():
        file = ROOT / path
        if file.exists() and file.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            print(f"{path} does not match the TUTTI_API functions of include/tutti: run `make symbols`")
            bad = 1
        else:
            file.write_text(text)
            print(f"wrote {path}: {len(ordered)} names")
    return bad


if __name__ == "__main__":
    sys.exit(main())
