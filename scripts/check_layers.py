#!/usr/bin/env python3
"""Hold the rooms to their order: each may include only itself and those before it.

cpu, cuda and net never include one another. tools, examples, compat and python see the installed
headers (and their own files) only. Run in the repository, or --root DIR.
"""
import argparse
import pathlib
import re
import sys

ROOMS = ["base", "boot", "topo", "cpu", "cuda", "net", "coll", "moe", "api"]
ENGINES = {"cpu", "cuda", "net"}
CLIENTS = ["tools", "examples", "compat", "python"]
SUFFIXES = {".c", ".h", ".inc", ".cu", ".cuh", ".cc", ".cpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<(tutti/[^>]+)>)')


def includes(path):
    """(line number, included name) of every #include that is ours."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) or match.group(2)


def resolve(root, path, name):
    """The file that an include means: beside the includer, in src/ or in include/."""
    for folder in (path.parent, root / "src", root / "include"):
        if (folder / name).exists():
            return (folder / name).resolve()
    return None


def room_of(root, path):
    """The room of a file under src/, else None."""
    try:
        parts = path.relative_to(root / "src").parts
    except ValueError:
        return None
    return parts[0] if len(parts) > 1 else ""


def room_problem(room, target_room):
    if target_room not in ROOMS:
        return f"src/{target_room} is not a room (scripts/check_layers.py lists them)"
    if room in ENGINES and target_room in ENGINES and room != target_room:
        return f"{room} may not include {target_room}: engines do not know one another"
    if ROOMS.index(target_room) > ROOMS.index(room):
        return f"{room} may not include {target_room}: it comes later ({' < '.join(ROOMS)})"
    return None


def problem(root, path, name):
    """Why this include is wrong, or None."""
    target = resolve(root, path, name)
    inside_src = room_of(root, path)
    if target is None:
        return f'"{name}" is not found' if inside_src is not None else None
    target_room = room_of(root, target)
    public = (root / "include") in target.parents
    if inside_src is not None:
        if inside_src not in ROOMS:
            return f"src/{inside_src} is not a room (scripts/check_layers.py lists them)"
        if public:
            return None
        if target_room is None:
            return f'"{name}" is outside src and include'
        return room_problem(inside_src, target_room)
    client = path.relative_to(root).parts[0]
    own = (root / client) in target.parents
    if client in CLIENTS and not public and not own:
        return f'{client} may include only <tutti/...> and its own files, not "{name}"'
    if client == "include" and not public:
        return f'a public header may include only public headers, not "{name}"'
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root.resolve()
    n_files = n_bad = 0
    for top in ["include", "src"] + CLIENTS:
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            n_files += 1
            for number, name in includes(path):
                why = problem(root, path, name)
                if why:
                    n_bad += 1
                    print(f"{path.relative_to(root)}:{number}: {why}")
    print(f"layers: {n_files} files, {n_bad} wrong includes")
    return 1 if n_bad or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
