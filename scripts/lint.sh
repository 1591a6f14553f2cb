#!/usr/bin/env bash
# lint.sh BUILD: all linters over the tree; BUILD is a configured build folder (compile commands).
# lint.sh --fix: let clang-format rewrite the C files instead.
# Runs everything, then fails if anything did. Made by tools that are missing: a line that says so.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# Another version formats a little differently, so the version is part of the style.
format=clang-format-14
command -v $format > /dev/null || format=clang-format
if ! $format --version 2> /dev/null | grep -q 'version 14\.'; then
    format=
fi
mapfile -t all < <(find include src tools compat tests bench examples -name corpus -prune -o \
    -name '*.[ch]' -print -o -name '*.inc' -print -o -name '*.cu' -print 2> /dev/null | sort)

if [ "${1:-}" = --fix ]; then
    [ -n "$format" ] || { echo "lint: --fix needs clang-format 14" >&2 && exit 1; }
    $format -i "${all[@]}"
    exit
fi
build=${1:-build/dev}
failed=()
skipped=()

step() # name, command ...: quiet unless it fails
{
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "lint: $name: clean"
    else
        echo "$output"
        echo "lint: $name: FAILED"
        failed+=("$name")
    fi
}

if [ -n "$format" ]; then
    step clang-format $format --dry-run -Werror "${all[@]}"
else
    skipped+=("clang-format (version 14 not found)")
fi

if command -v cppcheck > /dev/null; then
    step cppcheck cppcheck -q -j "$(nproc)" --std=c11 --language=c --error-exitcode=1 --inline-suppr \
        --enable=warning,performance,portability --suppress=missingIncludeSystem \
        --suppressions-list=scripts/cppcheck.txt \
        -D_GNU_SOURCE -D__linux__ -D__x86_64__ -D__GNUC__=12 -Iinclude -Isrc \
        -i tools/gloo src tools # which is C++, for a library that has no other interface
else
    skipped+=("cppcheck (not found)")
fi

# Each file once, however many programs it is part of: in a second pass over the same file clang-tidy 14
# takes every va_list for uninitialised.
once() # compile_commands.json
{
    mkdir -p "$build/tidy" && python3 -c 'import json, sys
commands = {c["file"]: c for c in reversed(json.load(open(sys.argv[1])))}
json.dump(list(commands.values()), open(sys.argv[2], "w"))' "$1" "$build/tidy/compile_commands.json"
}
tidy_one() { clang-tidy -p "$build/tidy" --quiet --extra-arg=-Wno-unknown-warning-option "$1" 2> /dev/null; }
export -f tidy_one
export build
tidy_all()
{
    once "$build/compile_commands.json" || return 1
    find src tools -name '*.c' ! -name '*_neon.c' ! -path '*/mpi/*' -print0 |
        xargs -0 -P "$(nproc)" -I{} bash -c 'tidy_one {}'
}
if ! command -v clang-tidy > /dev/null; then
    skipped+=("clang-tidy (not found)")
elif [ ! -f "$build/compile_commands.json" ]; then
    skipped+=("clang-tidy ($build is not configured)")
else
    step clang-tidy tidy_all
fi

if command -v shellcheck > /dev/null; then
    step shellcheck shellcheck scripts/*.sh tests/install/*.sh .ci/run
else
    skipped+=("shellcheck (not found)")
fi
for check in layers docs style; do
    step "$check" python3 "scripts/check_$check.py"
done
step "generated docs" python3 scripts/gen_docs.py --check

for what in "${skipped[@]}"; do
    echo "lint: skipped $what"
done
echo "lint: ${#failed[@]} failed, ${#skipped[@]} skipped"
[ ${#failed[@]} = 0 ]
