#!/usr/bin/env bash
# gpu_check.sh [options]: everything that needs real GPUs, on this machine. Exit status 0: all green.
#   --build DIR    use this built tree (with tests) instead of building build/release and build/dev
#   --out DIR      where logs, tables and plots go; default build/gpu_check
#   --parts LIST   of build,tests,torch,sanitizer,tune,bench,peers; default: all of them
#   --gpus N       use N GPUs at most
#   --archs LIST   compute capabilities to build for; default 90
#   --only WORD    tests whose name contains it
#   --limit S      seconds for one program (default 120; a benchmark gets twice as much)
#   --quick        fewer sizes and samples
# Every step is bounded in time, and its seconds are printed. NVLink multicast is left off.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

build='' out=build/gpu_check parts=build,tests,torch,sanitizer,tune,bench,peers
gpus='' archs=90 only='' limit=120 quick=''
# What the sanitizer runs: every kernel, in few calls, because ranks on one GPU take turns of milliseconds.
sanitizer_tests='device_calls'

usage()
{
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit "$1"
}

while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    -h | --help) usage 0 ;;
    --build | --out | --parts | --gpus | --archs | --only | --limit)
        [ $# -gt 1 ] || usage 2
        declare "${1#--}=$2"
        shift
        ;;
    *) usage 2 ;;
    esac
    shift
done

export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
export TORCH_SYMM_MEM_DISABLE_MULTICAST=${TORCH_SYMM_MEM_DISABLE_MULTICAST:-1}
unset TUTTI_CUDA_LIBRARY # real ones only
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2

begun=$(date +%s%N)
: > "$out/verdicts" # good, skipped or bad: a line for each step, also of those that run at the same time

note() { echo "$1" >> "$out/verdicts"; }
count() { grep -c "^$1\$" "$out/verdicts"; }

wants() { [[ ,$parts, == *,$1,* ]]; }
seconds_since()
{
    local ms=$((($(date +%s%N) - $1) / 1000000))
    printf '%d.%03d' $((ms / 1000)) $((ms % 1000))
}

# step NAME SECONDS COMMAND...: run it with its output in $out/NAME.log, and say how it went.
step()
{
    local name=$1 limit_s=$2 start status said
    shift 2
    mkdir -p "$(dirname "$out/$name")"
    start=$(date +%s%N)
    timeout --kill-after=5 "$limit_s" "$@" > "$out/$name.log" 2>&1
    status=$?
    if [ $status -eq 0 ] && grep -q '^\[  PASSED  \] 0 test' "$out/$name.log"; then
        status=77 # nothing that could be run here
    fi
    case $status in
    0) said=ok && note good ;;
    77) said=skipped && note skipped ;;
    124 | 137) said="TIMEOUT after $limit_s s" && note bad ;;
    *) said="FAILED ($status)" && note bad ;;
    esac
    printf '%-52s %8s s  %s\n' "$name" "$(seconds_since "$start")" "$said"
    if [ $status -ne 0 ] && [ $status -ne 77 ]; then
        tail -n 12 "$out/$name.log" | sed 's/^/    /'
        return 1
    fi
}

first_gpus() # "0,1" for 2, of those that may be used
{
    local visible=${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 63)}
    cut -d, "-f1-$1" <<< "$visible"
}

# ------------------------------------------------------------------------------ what there is ---
n_gpus=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU ')
[ "$n_gpus" -gt 0 ] || n_gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2> /dev/null | wc -l)
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    n_gpus=$(tr ',' '\n' <<< "$CUDA_VISIBLE_DEVICES" | grep -c .)
fi
if [ -n "$gpus" ] && [ "$gpus" -lt "$n_gpus" ]; then
    n_gpus=$gpus
fi
if [ "$n_gpus" -eq 0 ] && ! [ "$parts" = build ]; then
    echo "gpu_check: there is no NVIDIA GPU here" >&2
    exit 2
fi
echo "gpu_check: $n_gpus GPUs; logs in $out"
nvidia-smi --query-gpu=index,name,driver_version,memory.used,clocks.sm --format=csv \
    > "$out/gpus.txt" 2>&1 || true

# ------------------------------------------------------------------------------ build -----------
dev=${build:-build/dev}
release=${build:-build/release}
if [ -z "$build" ] && wants build; then
    for preset in release dev; do
        step "build_$preset" 900 bash -c "cmake --preset $preset -DTUTTI_CUDA=ON \
            -DTUTTI_CUDA_ARCHS='${archs//,/;}' $(command -v ninja > /dev/null && echo -GNinja) &&
            cmake --build build/$preset --parallel $(nproc)" || exit 1
    done
fi
[ -x "$release/tutti" ] || {
    [ "$n_gpus" -eq 0 ] || echo "gpu_check: there is no $release/tutti: build it first" >&2
    exit 2
}

# ------------------------------------------------------------------------------ tests -----------
test_programs() # whose name matches $1
{
    find "$dev/tests" -maxdepth 1 -type f -perm -u+x -name 'cuda_*' 2> /dev/null | sort |
        grep -E "/cuda_[^/]*($1)[^/]*$"
}

# As many at a time as there are groups of N GPUs; whoever is free takes the next.
on_groups() # N FUNCTION PROGRAMS...: FUNCTION N GPUS PROGRAM for each
{
    local n=$1 run=$2 g
    shift 2
    printf '%s\n' "$@" > "$out/queue"
    for ((g = 0; g < n_gpus / n; g++)); do
        on_group "$n" "$run" "$(first_gpus "$n_gpus" | cut -d, "-f$((g * n + 1))-$(((g + 1) * n))")" &
    done
    wait
    rm -f "$out/queue" "$out/queue.lock"
}

on_group() # N FUNCTION GPUS
{
    local program
    while program=$(take_next) && [ -n "$program" ]; do
        "$2" "$1" "$3" "$program"
    done
}

take_next() # the first line of the queue, which it loses
{
    (
        flock 9
        head -n 1 "$out/queue"
        sed -i 1d "$out/queue"
    ) 9> "$out/queue.lock"
}

# Ranks as threads share a context, and so run at the same time.
test_on_one_gpu()
{
    step "tests/1_gpu_threads/${3##*/cuda_}" "$limit" env T_GPU_RANKS=threads \
        CUDA_VISIBLE_DEVICES="$2" "$3"
}

test_on_gpus()
{
    step "tests/${1}_gpus/${3##*/cuda_}" "$limit" env T_RANKS="$1" T_GPU_LARGE="$large" \
        CUDA_VISIBLE_DEVICES="$2" "$3"
}

# One GPU a rank, as if on several hosts that UCX joins.
test_on_hosts()
{
    step "tests/${1}_gpus_on_hosts/${3##*/ucx_}" "$limit" env T_NET=ucx T_RANKS=$(($1 - 1)),"$1" \
        CUDA_VISIBLE_DEVICES="$2" "$3"
}

# The same of programs that are about one host else: half of the GPUs on each of two.
test_between_hosts()
{
    local hosts
    hosts=$(printf '0%.0s' $(seq $(($1 / 2))))$(printf '1%.0s' $(seq $(($1 / 2))))
    step "tests/${1}_gpus_on_hosts/${3##*/cuda_}" "$limit" env T_NET=ucx T_HOSTS="$hosts" T_RANKS="$1" \
        CUDA_VISIBLE_DEVICES="$2" "$3"
}

# How fast such hosts are together. Not while tests run.
time_between_hosts() # NAME N PROXIES OPTIONS...
{
    local name=$1 n=$2 proxies=$3
    shift 3
    # shellcheck disable=SC2016
    step "$name" $((2 * limit)) env CUDA_VISIBLE_DEVICES="$(first_gpus "$n")" TUTTI_NET_PROXIES="$proxies" \
        "$release/tutti" run -n "$n" -- sh -c \
        'TUTTI_HOST=host$((TUTTI_RANK * 2 / TUTTI_N_RANKS)) exec "$0" bench "$@"' \
        "$release/tutti" all_reduce all_gather reduce_scatter all_to_all --gpus "$n" \
        -b 1K -e 4M -f 8 --replays 8 "$@"
}

bench_between_hosts() # N: the tables are hosts_N.txt
{
    local log="tests/${1}_gpus_on_hosts/bench"
    time_between_hosts "${log}_graph" "$1" 1 --graph
    time_between_hosts "${log}_eager" "$1" 1
    time_between_hosts "${log}_4_proxies" "$1" 4 --graph
    sed -n 's/^\[0\] //p' "$out/$log"_{graph,eager,4_proxies}.log > "$out/hosts_$1.txt"
}

if wants tests; then
    start=$(date +%s%N)
    found=$(test_programs "$only")
    networked=$(find "$dev/tests" -maxdepth 1 -type f -perm -u+x -name 'ucx_gpus_*' | sort)
    hosts=$(grep -E "$only" <<< "$networked")
    between=$([ -z "$hosts" ] || grep -E '/cuda_(graphs|device_counts|device_groups)$' <<< "$found")
    [ -n "$found" ] || { echo "gpu_check: no $dev/tests/cuda_*" && note bad; }
    # the longest first; word splitting is meant
    found=$(grep device_sizes <<< "$found"; grep -v device_sizes <<< "$found")
    # shellcheck disable=SC2086
    {
        on_groups 1 test_on_one_gpu $found
        large=1 # hundreds of MiB, once: most of the time goes into checking them
        for n in 2 4 8; do
            [ "$n" -le "$n_gpus" ] || continue
            on_groups "$n" test_on_gpus $found
            large=0
        done
        for n in 2 4; do
            [ "$n" -le "$n_gpus" ] || continue
            on_groups "$n" test_on_hosts $hosts
            on_groups "$n" test_between_hosts $between
        done
    }
    for n in 2 4 8; do
        [ "$n" -le "$n_gpus" ] && [ -n "$networked" ] && [[ hosts_bench =~ $only ]] &&
            bench_between_hosts "$n"
    done
    echo "tests took $(seconds_since "$start") s"
fi

# PyTorch's memory in windows.
if wants torch; then
    if [ -e "$release/libtutti.so" ] && python3 -c 'import torch; torch.cuda.init()' 2> /dev/null; then
        step torch $((2 * limit)) python3 scripts/gpu_torch.py --ranks $((n_gpus < 2 ? 2 : n_gpus)) \
            --library "$(cd "$release" && pwd)/libtutti.so" --limit $((2 * limit - 5))
    else
        echo "gpu_check: no libtutti.so, or no PyTorch with CUDA; scripts/gpu_torch.py left out"
        note skipped
    fi
fi

# ------------------------------------------------------------------------------ sanitizer -------
if wants sanitizer; then
    start=$(date +%s%N)
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
    [ -n "$sanitizer" ] || {
        echo "gpu_check: no compute-sanitizer; nothing is run under it"
        note skipped
    }
    for tool in memcheck racecheck; do
        [ -n "$sanitizer" ] || break
        for program in $(test_programs "${only:-$sanitizer_tests}"); do
            # Processes: within one the tool lets kernels run one after another, and ours wait for
            # each other. What it calls API errors are questions which image holds a kernel.
            step "sanitizer/$tool/${program##*/cuda_}" "$limit" env T_GPU_RANKS=processes \
                T_RANKS=2 \
                "$sanitizer" --tool "$tool" --report-api-errors no --error-exitcode 99 \
                --target-processes all "$program"
        done
    done
    echo "sanitizer took $(seconds_since "$start") s"
fi

# ------------------------------------------------------------------------------ tune ------------
# A short table of launches is measured, and calls with it are right.
if wants tune && [ "$n_gpus" -gt 1 ]; then
    step tune $((2 * limit)) "$release/tutti" tune --gpus "$n_gpus" --quick -c all_reduce -e 64K --time 1 \
        -o "$out/tune.txt" &&
        step tune_followed "$limit" env TUTTI_TUNE_FILE="$out/tune.txt" "$release/tutti" bench \
            all_reduce --gpus "$n_gpus" --graph -b 1K -e 64K -f 8 --replays 8
fi

# ------------------------------------------------------------------------------ benchmarks ------
bench() # NAME OPTIONS...: table in NAME.log, all figures in NAME.json, a plot in NAME.svg
{
    local name=$1
    shift
    step "bench/$name" $((2 * limit)) "$release/tutti" bench "$@" --gpus "$n_gpus" \
        --json "$out/bench/$name.json" --plot "$out/bench/$name.svg"
    local status=$?
    sed 's/^/    /' "$out/bench/$name.log"
    return $status
}

if wants bench && [ "$n_gpus" -gt 0 ]; then
    start=$(date +%s%N)
    most=1G middle=256M fewer='' # word splitting is meant
    [ -z "$quick" ] || most=64M middle=64M fewer='--replays 8 -f 4'
    # shellcheck disable=SC2086
    {
        bench all_reduce_in_place all_reduce --graph --in-place --against nccl -b 1K -e $most $fewer
        bench all_reduce all_reduce --graph --against nccl -b 1K -e $middle $fewer
        bench common all_gather reduce_scatter all_to_all --graph --against nccl -b 8K -e 128M -f 4 $fewer
        # NCCL 2.28 does not come back from a broadcast of 2 MiB in its windows.
        bench broadcast_nccl broadcast --graph --against nccl -b 8K -e 512K -f 4 $fewer
        bench broadcast broadcast --graph -b 8K -e 128M -f 4 $fewer
        bench others reduce gather scatter reduce_scatterv all_gatherv all_gatherv_rows all_to_allv \
            sendrecv --graph --against nccl -b 8K -e 8M -f 32 $fewer
        bench barrier barrier --graph $fewer
        bench eager all_reduce all_gather --against nccl -b 1K -e 1M -f 16 $fewer
    }
    echo "benchmarks took $(seconds_since "$start") s"
fi

if wants peers && [ "$n_gpus" -gt 1 ]; then
    if python3 -c 'import torch, torch.distributed._symmetric_memory' 2> /dev/null; then
        step peers "$((2 * limit))" python3 scripts/gpu_peers.py --gpus "$n_gpus" \
            --json "$out/peers.json" && sed 's/^/    /' "$out/peers.log"
    else
        echo "gpu_check: no PyTorch with symmetric memory; peers left out"
    fi
fi

echo "gpu_check: $(count good) good, $(count skipped) skipped, $(count bad) bad, in $(seconds_since "$begun") s"
[ "$(count bad)" -eq 0 ]
