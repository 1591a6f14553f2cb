#!/usr/bin/env bash
# scripts/fuzz.sh BUILD [SECONDS]: run every libFuzzer program of a build, each for SECONDS (60).
# New inputs go to BUILD/corpus/<name>; copy the ones worth keeping to tests/fuzz/corpus/<name>.
set -euo pipefail
build=$1
seconds=${2:-60}
failed=0
for program in "$build"/tests/fuzz_*; do
    [ -x "$program" ] || { echo "fuzz: no programs in $build/tests" >&2 && exit 1; }
    name=${program##*/fuzz_}
    mkdir -p "$build/corpus/$name"
    echo "fuzz: $name for $seconds s"
    if ! "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$build/crash-$name-" -print_final_stats=1 \
        "$build/corpus/$name" "tests/fuzz/corpus/$name" > "$build/fuzz-$name.log" 2>&1; then
        tail -n 30 "$build/fuzz-$name.log"
        failed=$((failed + 1))
    fi
    grep -h 'stat::number_of_executed_units' "$build/fuzz-$name.log" || true
done
echo "fuzz: $failed failed"
[ "$failed" = 0 ]
