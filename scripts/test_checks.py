#!/usr/bin/env python3
"""A check that cannot fail proves nothing: plant one violation of each rule in a small tree and see
that its check finds it, and that the tree without it passes.
"""
import pathlib
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parent

CLEAN = {
    "include/tutti/tutti.h": "/** Says hello. */\nTUTTI_API int tutti_hello(void);\n",
    "src/base/base.h": "int tt_base(void);\n",
    "src/cpu/cpu.h": '#include "base/base.h"\n#include <tutti/tutti.h>\n',
    "src/net/net.h": '#include "base/base.h"\n',
    "src/coll/coll.c": '#include "cpu/cpu.h"\n#include "net/net.h"\n#include <stdio.h>\n'
                       "int tt_coll(void)\n{\n    return 0; /* \"system(\" here is a word */\n}\n",
    "tools/tool.h": "int tool(void);\n",
    "tools/tool.c": '#include <tutti/tutti.h>\n#include "tool.h"\n',
}

# check, what is planted, file, its contents, words that the complaint must hold
PLANTED = [
    ("layers", "a room includes a later one", "src/base/bad.c", '#include "cpu/cpu.h"\n',
     "base may not include cpu"),
    ("layers", "an engine includes another", "src/net/bad.c", '#include "cpu/cpu.h"\n',
     "net may not include cpu"),
    ("layers", "the order holds for relative paths", "src/base/bad.c",
     '#  include "../coll/late.h"\n', "base may not include coll"),
    ("layers", "a tool looks inside", "tools/bad.c", '#include "../src/base/base.h"\n',
     "tools may include only"),
    ("layers", "an example looks inside", "examples/bad.c", '#include "base/base.h"\n',
     "examples may include only"),
    ("layers", "a public header looks inside", "include/tutti/bad.h", '#include "base/base.h"\n',
     "public header"),
    ("layers", "a room that nobody knows", "src/attic/bad.c", '#include "base/base.h"\n',
     "not a room"),
    ("docs", "a function without a comment", "include/tutti/bad.h",
     "/** Fine. */\nTUTTI_API int a(void);\n\nTUTTI_API int b(void);\n", "no comment above b"),
    ("docs", "a comment apart from its function", "include/tutti/bad.h",
     "/** Far away. */\n\nTUTTI_API const char *b(\n    int x);\n", "no comment above b"),
    ("style", "sprintf", "src/base/bad.c", "void f(char *s)\n{\n    sprintf(s, \"x\");\n}\n",
     "sprintf() is banned"),
    ("style", "system", "tools/bad.c", "void f(void)\n{\n    system (\"ls\");\n}\n",
     "system() is banned"),
    ("style", "abort in the library", "src/base/bad.c", "void f(void)\n{\n    abort();\n}\n",
     "abort() is banned"),
    ("style", "getenv outside its home", "src/base/bad.c",
     "void f(void)\n{\n    getenv(\"X\");\n}\n", "getenv() is banned"),
    ("style", "a long file", "src/base/bad.c", "int x;\n" * 801, "801 lines"),
    ("style", "a long table", "src/base/bad.inc", "X(1)\n" * 301, "301 lines"),
    ("style", "a long function", "src/base/bad.c",
     "void f(void)\n{\n" + "    g();\n" * 81 + "}\n", "function of 81 lines"),
    ("style", "a second file of the same name", "tools/coll.c", "int x;\n", "the name is taken"),
    ("style", "a note for later", "src/base/bad.c", "/* TO" "DO: all of it */\n", "finish it"),
]


def run(check, tree):
    """Exit status and output of a check on a tree {path: text}."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in tree.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, SCRIPTS / f"check_{check}.py", "--root", folder],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def generated_docs_go_stale():
    """A page that was just written is in date; one with a word changed is not."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name in ("include/tutti/tutti.h", "src/base/env_table.inc"):
            (root / name).parent.mkdir(parents=True)
            (root / name).write_text((SCRIPTS.parent / name).read_text())
        (root / "docs").mkdir()

        def gen(*words):
            return subprocess.run([sys.executable, SCRIPTS / "gen_docs.py", "--root", folder, *words],
                                  capture_output=True, text=True, check=False)

        gen()
        fresh = gen("--check")
        page = root / "docs/env.md"
        page.write_text(page.read_text().replace("Variable", "Name"))
        stale = gen("--check")
        return (fresh.returncode == 0 and stale.returncode == 1 and "env.md" in stale.stdout,
                "generated docs that are out of date are found", fresh.stdout + stale.stdout)


def main():
    n_bad = 0

    def expect(good, what, output):
        nonlocal n_bad
        if not good:
            n_bad += 1
            print(f"FAILED: {what}\n    " + output.replace("\n", "\n    "))

    clean = dict(CLEAN, **{"src/coll/late.h": "int tt_late;\n"})
    for check in ("layers", "docs", "style"):
        status, output = run(check, clean)
        expect(status == 0, f"{check} passes a clean tree", output)
    for check, what, file, text, words in PLANTED:
        status, output = run(check, {**clean, file: text})
        expect(status == 1 and words in output and file in output, f"{check} finds {what}", output)
    expect(*generated_docs_go_stale())
    print(f"checks: {len(PLANTED) + 1} planted violations, {n_bad} failed")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
