#!/usr/bin/env python3
"""What no formatter sees: banned functions, sizes of files and functions, unique file names, notes
left for later. A file may be excused from a size gate in EXCUSED below, with its reason.
Run in the repository, or --root DIR.
"""
import argparse
import pathlib
import re
import sys

# name -> what to use instead
BANNED = {
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "strcpy": "snprintf or memcpy",
    "stpcpy": "snprintf or memcpy", "strcat": "snprintf", "strncpy": "snprintf or memcpy",
    "strtok": "strcspn, or strtok_r", "gets": "fgets", "atoi": "strtol", "atol": "strtol",
    "atoll": "strtoll", "atof": "strtod", "alloca": "an array or malloc",
    "system": "fork and exec", "tmpnam": "mkstemp", "rand": "a generator of your own",
}
# In the library itself: it must never end or disturb its host.
BANNED_IN_SRC = {"exit": "return a result", "abort": "return a result",
                 "assert": "return a result", "signal": "leave signals alone",
                 "sigaction": "leave signals alone", "printf": "TT_LOG", "perror": "TT_FAIL_SYS",
                 "getenv": "the table in base/env_table.inc"}
GETENV_HOME = "src/base/env.c"
NOTES = ["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]
MAX_LINES = {".c": 800, ".h": 800, ".cu": 300, ".inc": 300}
MAX_FUNCTION_LINES = 80
EXCUSED = {}  # "path": "reason"

CODE = {".c", ".h", ".inc", ".cu", ".cuh"}
TEXT = CODE | {".py", ".sh", ".cmake", ".md", ".txt", ".in", ".json", ".yml", ".map", ".toml", ""}
TOPS = ["include", "src", "tools", "compat", "python", "tests", "bench", "examples", "scripts",
        "docs", "cmake", "abi", ".ci", "CMakeLists.txt", "CMakePresets.json", "Makefile",
        "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def strip(text):
    """C text with comments and literals blanked; line structure kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def long_functions(code):
    """(line, length) of functions past the gate: `{` alone at column 0 to `}` at column 0."""
    start = None
    for number, line in enumerate(code.splitlines(), 1):
        if line.rstrip() == "{":
            start = number
        elif line.startswith("}") and start is not None:
            if number - start - 1 > MAX_FUNCTION_LINES:
                yield start, number - start - 1
            start = None


def check_code(where, text):
    """Yields (line, problem) of one C file; `where` is its path in the repository."""
    code = strip(text)
    banned = dict(BANNED)
    if where.startswith("src/"):
        banned.update(BANNED_IN_SRC)
    if where == GETENV_HOME:
        del banned["getenv"]
    for number, line in enumerate(code.splitlines(), 1):
        for match in re.finditer(r"(?<![\w.>])(\w+)\s*\(", line):
            if match.group(1) in banned:
                yield number, f"{match.group(1)}() is banned: use {banned[match.group(1)]}"
    if where in EXCUSED:
        return
    suffix = pathlib.Path(where).suffix
    n_lines = text.count("\n")
    if n_lines > MAX_LINES.get(suffix, n_lines):
        yield n_lines, f"{n_lines} lines; the gate for {suffix} is {MAX_LINES[suffix]}"
    for number, length in long_functions(code):
        yield number, f"function of {length} lines; the gate is {MAX_FUNCTION_LINES}"


def files_of(root):
    for top in TOPS:
        path = root / top
        if path.is_file():
            yield path
        for inner in sorted(path.rglob("*")) if path.is_dir() else []:
            if inner.is_file() and "__pycache__" not in inner.parts and "corpus" not in inner.parts:
                yield inner


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root.resolve()
    problems, homes, n_files = [], {}, 0
    for path in files_of(root):
        where = path.relative_to(root).as_posix()
        if path.suffix not in TEXT:
            continue
        n_files += 1
        text = path.read_text(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            for note in NOTES:
                if re.search(rf"\b{note}\b", line):
                    problems.append(f"{where}:{number}: {note}: finish it, or open an issue")
        if path.suffix not in CODE:
            continue
        problems += [f"{where}:{number}: {why}" for number, why in check_code(where, text)]
        # Log lines and debuggers show the base name alone. (Public headers are always <tutti/...>.)
        if not where.startswith(("tests/install/", "include/")):
            if path.name in homes:
                problems.append(f"{where}:1: the name is taken by {homes[path.name]}")
            homes.setdefault(path.name, where)
    for problem in problems:
        print(problem)
    print(f"style: {n_files} files, {len(problems)} problems")
    return 1 if problems or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
