#!/bin/sh
# Each public header compiles alone and twice, as C11 and C17 and, where there is a C++ compiler, as
# C++11 and C++20, without a warning.
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
cc=${CC:-cc}
cxx=${CXX:-c++}
command -v "$cxx" > /dev/null || { echo "headers: no C++ compiler; C only" && cxx=; }
failed=0
n=0
for header in "$here"/include/tutti/*.h; do
    name=tutti/${header##*/}
    source=$(printf '#include <%s>\n#include <%s>\nint tutti_header_test;' "$name" "$name")
    for standard in c11 c17 ${cxx:+c++11 c++20}; do
        case $standard in
            c++*) compiler=$cxx language=c++ ;;
            *) compiler=$cc language=c ;;
        esac
        n=$((n + 1))
        echo "$source" | "$compiler" -x "$language" -std="$standard" -Wall -Wextra -Wpedantic -Werror \
            -I"$here/include" -fsyntax-only - || { echo "headers: $name fails as $standard"; failed=1; }
    done
done
echo "headers: $n compilations, failed $failed"
exit "$failed"
