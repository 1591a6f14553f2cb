#!/bin/sh
# run.sh CMAKE BUILD: install a build, move the installed tree, and build and run users' programs
# against it: by find_package and by pkg-config, shared and static.
set -eu
cmake=$1
build=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
check() # what, program: it must link no tutti that is not ours, and run
{
    n=$((n + 1))
    said=$("$2") || { echo "install: $1: failed" && exit 1; }
    [ "$said" = ok ] || { echo "install: $1: said \"$said\"" && exit 1; }
}
needs_tutti() { readelf -d "$1" | grep -q 'NEEDED.*libtutti\.so\.0'; }

"$cmake" --install "$build" --prefix "$work/first" > "$work/log" || { cat "$work/log" && exit 1; }
mv "$work/first" "$work/moved" # nothing may remember where it was installed
libdir=$(dirname "$(find "$work/moved" -name 'libtutti.so.0')")

if ! { "$cmake" -S "$here" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/moved" \
    -DCMAKE_C_COMPILER="$cc" && "$cmake" --build "$work/consumer"; } > "$work/log" 2>&1; then
    cat "$work/log"
    exit 1
fi
check "find_package, tutti::tutti" "$work/consumer/consumer_shared"
check "find_package, tutti::static" "$work/consumer/consumer_static"
needs_tutti "$work/consumer/consumer_shared" || { echo "install: tutti::tutti is static" && exit 1; }
! needs_tutti "$work/consumer/consumer_static" || { echo "install: tutti::static is not" && exit 1; }

if command -v pkg-config > /dev/null; then
    PKG_CONFIG_PATH=$libdir/pkgconfig
    export PKG_CONFIG_PATH
    # shellcheck disable=SC2046 # the words of pkg-config are words
    "$cc" "$here/consumer.c" -o "$work/by_pc" $(pkg-config --cflags --libs tutti) \
        -Wl,-rpath,"$libdir"
    check "pkg-config, shared" "$work/by_pc"
    # shellcheck disable=SC2046
    "$cc" "$here/consumer.c" -o "$work/by_pc_static" $(pkg-config --cflags tutti) \
        -Wl,-Bstatic $(pkg-config --static --libs tutti) -Wl,-Bdynamic
    check "pkg-config, static" "$work/by_pc_static"
    ! needs_tutti "$work/by_pc_static" || { echo "install: pkg-config static is not" && exit 1; }
else
    echo "install: no pkg-config: tried CMake only"
fi

if [ -x "$work/moved/bin/tutti" ]; then
    "$work/moved/bin/tutti" --version > "$work/log" 2>&1 || { cat "$work/log" && exit 1; }
    n=$((n + 1))
fi
echo "install: $n programs built against the moved tree and run"
