#!/usr/bin/env bash
# Make this machine ready, installing what is missing where that is allowed:
#     scripts/setup.sh bench    to build the library and the program: cmake >= 3.24, a C compiler
#     scripts/setup.sh test     also to test them: python3, cmocka, pkg-config
#     scripts/setup.sh ci       also the second compiler, linters and the cross compiler
# Knows Debian 12 and Ubuntu 24.04 (apt-get). Where it may not install, it says what to run and fails.
set -euo pipefail

level=${1:-bench}
case $level in
    bench | test | ci) ;;
    *) echo "usage: scripts/setup.sh bench|test|ci" >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/.."
need=()  # packages without which the level cannot work
want=()  # packages that make it better

have() { command -v "$1" > /dev/null 2>&1; }
# A header that the compiler finds by itself.
have_header() { have cc && echo "#include <$1>" | cc -E -x c - > /dev/null 2>&1; }
cmake_is_new_enough()
{
    have cmake && [ "$(printf '3.24\n%s\n' "$(cmake --version | sed -n '1s/[^0-9]*//p')" |
        sort -V | head -n 1)" = 3.24 ]
}

cmake_is_new_enough || need+=(cmake)
have cc && have_header stdio.h || need+=(gcc libc6-dev)
have make || have ninja || need+=(make)
have_header hwloc.h || want+=(libhwloc-dev)
have_header ucp/api/ucp.h || want+=(libucx-dev) # ranks on several hosts
if [ "$level" != bench ]; then
    have python3 || need+=(python3)
    have pkg-config || need+=(pkg-config)
    # cmocka.h does not compile alone, so ask for the file
    [ -e /usr/include/cmocka.h ] || [ -e /usr/local/include/cmocka.h ] || need+=(libcmocka-dev)
    have ninja || want+=(ninja-build)
    have c++ || want+=(g++) # the public headers are also tried as C++
fi
if [ "$level" = ci ]; then
    have clang || need+=(clang)
    compgen -G "/usr/lib/clang/*/lib/*/libclang_rt.asan*" > /dev/null ||
        compgen -G "/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.asan*" > /dev/null ||
        need+=(libclang-rt-dev)
    have clang-format-14 || need+=(clang-format-14)
    have clang-tidy || need+=(clang-tidy)
    have cppcheck || need+=(cppcheck)
    have shellcheck || want+=(shellcheck)
    have valgrind || want+=(valgrind)
    have aarch64-linux-gnu-gcc || [ "$(uname -m)" = aarch64 ] ||
        want+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
fi
# A machine that can already do the work is left alone.
[ ${#need[@]} -gt 0 ] || { [ "$level" = ci ] && [ ${#want[@]} -gt 0 ]; } || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo -n)
fi
command_to_run="apt-get update && ${as_root[*]:+sudo }apt-get install -y --no-install-recommends \
${need[*]} ${want[*]}"
command_to_run=${as_root[*]:+sudo }$command_to_run

may_install()
{
    have apt-get && { [ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null; }
}
log=$(mktemp "${TMPDIR:-/tmp}/tutti-setup.XXXXXX")
install_packages()
{
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends "$@" >> "$log" 2>&1
}

if ! may_install; then
    rm -f "$log"
    [ ${#need[@]} -gt 0 ] || exit 0 # what is left would only be nice to have
    if ! have apt-get; then
        echo "setup: missing: ${need[*]} (Debian's names); this system has no apt-get, so please" >&2
        echo "    install them its own way (cmake must be 3.24 or newer)" >&2
        exit 1
    fi
    echo "setup: missing: ${need[*]}; this user may not install packages. Please run:" >&2
    echo "    $command_to_run" >&2
    exit 1
fi

echo "setup: installing ${need[*]} ${want[*]}"
"${as_root[@]}" apt-get update >> "$log" 2>&1 || echo "setup: apt-get update failed, trying without"
if [ ${#need[@]} -gt 0 ] && ! install_packages "${need[@]}"; then
    echo "setup: could not install ${need[*]}; the last lines of $log:" >&2
    tail -n 5 "$log" | sed 's/^/    /' >&2
    echo "setup: when that is mended, run:" >&2
    echo "    $command_to_run" >&2
    exit 1
fi
for package in "${want[@]}"; do # one by one: each is worth having alone
    install_packages "$package" || echo "setup: could not install $package; going on without it"
done
if ! cmake_is_new_enough; then
    echo "setup: this system's cmake is older than 3.24; get a newer one, for instance with:" >&2
    echo "    python3 -m pip install --user 'cmake>=3.24'" >&2
    exit 1
fi
rm -f "$log"
echo "setup: ready"
