#!/usr/bin/env python3
"""Write docs/errors.md from TUTTI_RESULT_MAP of tutti.h, and docs/env.md from src/base/env_table.inc.

    scripts/gen_docs.py            write both
    scripts/gen_docs.py --check    fail if a file is not what it would write

The advice below is the one thing that is not in those sources; a result without advice is an error.
"""
import argparse
import pathlib
import re
import sys

ADVICE = {
    "OK": "Nothing.",
    "IN_PROGRESS": "Kept for calls that do not block. No function returns it yet.",
    "E_ARG": "Correct the call or the variable. The text names the argument and its value.",
    "E_UNSUPPORTED": "Run `tutti info`: it says what is missing and what to do about it.",
    "E_MEMORY": "Smaller `scratch_bytes`, fewer ranks, or a larger limit of the control group.",
    "E_SYSTEM": "The text holds the system call's reason. See the troubleshooting part of the guide.",
    "E_AUTH": "Give all ranks rank 0's id, or the same `TUTTI_SECRET`.",
    "E_VERSION": "Use one version of tutti in all ranks, and the header that belongs to it.",
    "E_TIMEOUT": "Look at the ranks that are named. If they are only slow, raise `timeout_ms`.",
    "E_PEER": "Destroy the communicator. Create another among the ranks that are left.",
    "E_MISMATCH": "Both calls are in the text. Make the same calls in the same order on all ranks.",
    "E_ABORTED": "Some rank called `tutti_comm_abort()`. Destroy the communicator.",
    "E_INTERNAL": "Please report it with the text and the output of `tutti info`.",
}

SURVIVES = {
    "call": "the communicator",
    "comm": "the process and its other communicators",
}

TYPES = {
    "TEXT": "as it is",
    "NUMBER": "decimal digits",
    "BYTES": "`4096`, `64K`, `4M`, `1G`",
    "TIME": "`250ms`, `30s`, `2m`; without a unit, milliseconds",
    "CHOICE": "one of the words in brackets",
}

GENERATED = "<!-- Written by scripts/gen_docs.py from {}: change that, run it again. -->\n"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def results(header):
    body = re.search(r"#define TUTTI_RESULT_MAP\(X\)((?:[^\n]*\\\n)+[^\n]*)", header).group(1)
    return re.findall(r'X\((\w+),\s*(-?\d+),\s*(\w+),\s*"([^"]*)"\)', body)


def errors_md(header):
    rows = [(f"`TUTTI_{name}`", value, text, SURVIVES[survives], ADVICE[name])
            for name, value, survives, text in results(header)]
    return (GENERATED.format("TUTTI_RESULT_MAP of tutti.h") + """# Results and errors

Every function that can fail returns one of these. `tutti_result_name()` and `tutti_result_text()` give
name and meaning; `tutti_last_error()` gives the line that was written where the failure was first seen.

*Good afterwards* says what is unharmed. "The communicator" means that nothing happened on this rank and
the communicator can still be used. Otherwise the communicator has failed for good on all ranks:
`tutti_comm_status()` says why, every further call that needs the others returns the same code, and what is left is
`tutti_comm_destroy()`. While a communicator is being created, any failure means that there is none.

""" + table(("Result", "Value", "Meaning", "Good afterwards", "What to do"), rows) + """
The guide lists frequent texts and their causes: [guide.md](guide.md#troubleshooting).
""")


def env_md(inc):
    found = re.findall(r'^TT_ENV\((\w+),\s*(\w+),\s*"([^"]*)",\s*"([^"]*)"\)', inc, flags=re.M)
    rows = [(f"`{name}`", kind.lower(), f"`{default}`" if default else "not set", text)
            for name, kind, default, text in found]
    kinds = [(kind.lower(), text) for kind, text in TYPES.items()]
    return (GENERATED.format("src/base/env_table.inc") + """# Environment variables

They are read when a communicator is created, never during a call. A field of `tutti_comm_config` that is
not zero wins over its variable; an empty variable counts as not set. A `TUTTI_` variable that does not
exist is warned of once, with the nearest name. `tutti env` prints the values in force and their source.

""" + table(("Variable", "Type", "Default", "Meaning"), rows) + """
""" + table(("Type", "How it is written"), kinds) + """
What `tutti_comm_create_from_env()` reads of launchers is in [guide.md](guide.md#under-a-launcher).
""")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    parser.add_argument("--root", type=pathlib.Path, help="of the repository",
                        default=pathlib.Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    root = args.root.resolve()
    pages = {
        "docs/errors.md": errors_md((root / "include/tutti/tutti.h").read_text()),
        "docs/env.md": env_md((root / "src/base/env_table.inc").read_text()),
    }
    n_stale = 0
    for name, text in pages.items():
        path = root / name
        if path.exists() and path.read_text() == text:
            continue
        if args.check:
            n_stale += 1
            print(f"{name} is out of date: run scripts/gen_docs.py")
        else:
            path.write_text(text)
            print(f"wrote {name}")
    return 1 if n_stale else 0


if __name__ == "__main__":
    sys.exit(main())
