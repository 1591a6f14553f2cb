#!/bin/sh
# check_symbols.sh LIBTUTTI.SO: what the shared library shows of itself.
#   1. It exports the TUTTI_API functions of the headers, as listed in abi/, and nothing else.
#   2. It needs libc and nothing else (the loader counts as libc: it serves thread-local storage).
#   3. Stripped, it is smaller than 1 MB without the GPU kernels, and than 10 MB with them.
#   4. Its SONAME is libtutti.so.<major>, and its stack is not executable.
set -u
library=$1
here=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
fail() { echo "symbols: $*"; failed=1; }

python3 "$here/scripts/gen_symbols.py" --check || failed=1

LC_ALL=C nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    LC_ALL=C sort > "$scratch/exported"
LC_ALL=C sort "$here/abi/symbols.txt" > "$scratch/listed"
if ! diff "$scratch/listed" "$scratch/exported" > "$scratch/diff"; then
    fail "exported names differ from abi/symbols.txt (< listed only, > exported only):"
    grep '^[<>]' "$scratch/diff"
fi
nm -D --defined-only "$library" | awk '$2 != "A" && $3 !~ /@@TUTTI_[0-9.]+$/' > "$scratch/bare"
[ ! -s "$scratch/bare" ] || { fail "names without a version node:" && cat "$scratch/bare"; }

readelf -dW "$library" > "$scratch/dynamic"
sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$scratch/dynamic" |
    grep -v -e '^libc\.so\.' -e '^ld-linux' > "$scratch/needed" &&
    { fail "needs more than libc:" && cat "$scratch/needed"; }
grep -q 'SONAME.*\[libtutti\.so\.[0-9]*\]' "$scratch/dynamic" || fail "no SONAME libtutti.so.N"
readelf -lW "$library" | grep -q 'GNU_STACK.*RWE' && fail "its stack is executable"

strip -o "$scratch/stripped.so" "$library" || failed=1
bytes=$(wc -c < "$scratch/stripped.so")
kernels=$(cat "$(dirname "$library")"/cuda/*.fatbin 2> /dev/null | wc -c)
[ $((bytes - kernels)) -lt 1000000 ] ||
    fail "$bytes bytes stripped, $kernels of them kernels; the gate for the rest is 1000000"
[ "$bytes" -lt 10000000 ] || fail "$bytes bytes stripped; the gate is 10000000"

echo "symbols: $(wc -l < "$scratch/exported") exported, $bytes bytes stripped, $kernels of kernels, failed $failed"
exit "$failed"
