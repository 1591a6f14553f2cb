#!/bin/sh
# Each public header compiles alone and twice, and every _INIT macro in it sets up its struct, as C and,
# where there is a C++ compiler, as C++ of the years that it knows; clang too, if it is there. Without a
# warning in all cases.
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
cc=${CC:-cc}
cxx=${CXX:-c++}
command -v "$cxx" > /dev/null || { echo "headers: no C++ compiler; C only" && cxx=; }
failed=0
n=0
n_macros=0

# compile LANGUAGE COMPILER STANDARD HEADER
compile() {
    echo "$source" | "$2" -x "$1" -std="$3" -Wall -Wextra -Wpedantic -Werror -I"$here/include" \
        -fsyntax-only - || { echo "headers: $4 fails as $3 with $2"; failed=1; }
    n=$((n + 1))
}

# each LANGUAGE HEADER STANDARD...
each() {
    language=$1 header=$2
    shift 2
    [ "$language" = c ] && compilers="$cc clang" || compilers="$cxx clang++"
    for standard; do
        for compiler in $compilers; do
            echo | "$compiler" -x "$language" -std="$standard" -fsyntax-only - 2> /dev/null || continue
            compile "$language" "$compiler" "$standard" "$header"
        done
    done
}

for path in "$here"/include/tutti/*.h; do
    name=tutti/${path##*/}
    source=$(printf '#include <%s>\n#include <%s>\nint tutti_header_test;\n' "$name" "$name")
    # "#define TUTTI_X_INIT TUTTI_INIT_(tutti_x)": a variable of each, in a function
    inits=$(sed -n 's/^#define \(TUTTI_[A-Z_]*_INIT\) TUTTI_INIT_(\(tutti_[a-z_]*\))$/    { \2 x = \1; n += x.size; }/p' "$path")
    [ -n "$inits" ] && n_macros=$((n_macros + $(echo "$inits" | wc -l)))
    source=$(printf '%s\nuint64_t tutti_init_test(void);\nuint64_t tutti_init_test(void)\n{\n' "$source"
        printf '    uint64_t n = 0;\n%s\n    return n;\n}\n' "$inits")
    each c "$name" c99 c11 c17
    [ -n "$cxx" ] && each c++ "$name" c++11 c++17 c++20
done
[ "$n_macros" -eq "$(cat "$here"/include/tutti/*.h | grep -c 'define TUTTI_[A-Z_]*_INIT ')" ] ||
    { echo "headers: some _INIT macros were not found"; failed=1; }
[ "$n" -gt 0 ] || { echo "headers: no compiler that works"; failed=1; }
echo "headers: $n compilations, $n_macros macros, failed $failed"
exit "$failed"
