#!/usr/bin/env python3
"""Hold the GPU kernels of a build to their budget of registers and stack.

check_kernels.py BUILD: reads what ptxas said of every kernel (BUILD/cuda/*.log) and compares it with
src/cuda/kernels/budget.txt. --list prints what is used instead. Exit 77: nothing to check.
"""
import argparse
import fnmatch
import pathlib
import re
import sys

BUDGET = pathlib.Path("src/cuda/kernels/budget.txt")
KERNEL = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def usage(log):
    """(arch, kernel, registers, bytes of stack and spills) of every kernel in a log."""
    kernel = arch = stack = None
    for line in log.read_text().splitlines():
        if match := KERNEL.search(line):
            kernel, arch = match.groups()
        elif match := STACK.search(line):
            stack = sum(map(int, match.groups()))
        elif match := REGISTERS.search(line):
            yield arch, kernel, int(match.group(1)), stack


def read_budget():
    """Rows of (pattern, registers, stack, arch); the first that matches a kernel counts."""
    rows = []
    for number, line in enumerate(BUDGET.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) not in (3, 4):
            sys.exit(f"{BUDGET}:{number}: not 'pattern registers stack [arch]'")
        rows.append((words[0], int(words[1]), int(words[2]), (words[3:] or ["*"])[0]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    logs = sorted(args.build.glob("cuda/*.log"))
    if not logs:
        print("no GPU kernels in this build")
        sys.exit(77)
    budget = read_budget()
    n_kernels = n_bad = 0
    for log in logs:
        for arch, kernel, registers, stack in usage(log):
            n_kernels += 1
            if args.list:
                print(f"{arch} {kernel} {registers} {stack}")
                continue
            row = next((r for r in budget
                        if fnmatch.fnmatch(kernel, r[0]) and fnmatch.fnmatch(arch, r[3])), None)
            if row is None or registers > row[1] or stack > row[2]:
                n_bad += 1
                allowed = f"{row[1]} and {row[2]}" if row else "nothing: add it"
                print(f"{kernel} ({arch}): {registers} registers, {stack} bytes of stack; "
                      f"{BUDGET} allows {allowed}")
    if not args.list:
        print(f"{n_kernels} kernels, {n_bad} over their budget")
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main()
