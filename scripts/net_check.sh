#!/usr/bin/env bash
# net_check.sh [BUILD [OUT]]: the network between two hosts that are network namespaces of this machine,
# joined by a virtual cable, beside a raw socket, Open MPI over TCP and gloo. Tables go to OUT (default:
# net_check). For root; BUILD (default: build/release) is configured with -DTUTTI_BENCH=ON, and
# -DTUTTI_GLOO=ON for gloo. Figures want a quiet machine: each file says what else was running.
#   ROUNDS=5         runs of each comparison, whose medians count
#   PARTS=...        of: socket hosts mpi gloo bad
#   CONGESTION=bbr   instead of cubic, if the namespaces may choose
set -uo pipefail
cd "$(dirname "$0")/.." || exit
build=$(realpath "${1:-build/release}")
out=${2:-net_check}
rounds=${ROUNDS:-5}
parts=${PARTS:-socket hosts mpi gloo bad}
a=tutti-a-$$ b=tutti-b-$$
mkdir -p "$out" && out=$(realpath "$out")
agent=$(mktemp)
relay=

clean_up()
{
    [ -n "$relay" ] && kill "$relay" 2> /dev/null
    ip netns del "$a" 2> /dev/null
    ip netns del "$b" 2> /dev/null
    rm -f "$agent"
}
trap clean_up EXIT
trap 'exit 143' TERM INT

say() { echo "net_check: $*" >&2; }
wants() { [[ " $parts " == *" $1 "* ]]; }

# A cable, or two TAPs with a relay between them: relay DELAY_US LOSS_PERCENT MBIT
make_hosts()
{
    local n
    [ -n "$relay" ] && kill "$relay" && wait "$relay" 2> /dev/null
    relay=
    for n in "$a" "$b"; do
        ip netns del "$n" 2> /dev/null
        ip netns add "$n" && ip -n "$n" link set lo up || return
        ip netns exec "$n" sysctl -qw "net.ipv4.tcp_congestion_control=${CONGESTION:-cubic}" 2> /dev/null
    done
    if [ $# -gt 0 ]; then
        "$build/bench/net_relay" "$a" "$b" host0 "$@" &
        relay=$!
        sleep 0.5
    else
        ip link add host0 netns "$a" type veth peer name host0 netns "$b" || return
    fi
    ip -n "$a" addr add 10.77.0.1/24 dev host0 && ip -n "$a" link set host0 up || return
    ip -n "$b" addr add 10.77.0.2/24 dev host0 && ip -n "$b" link set host0 up || return
    sleep 1
}

head_of() # what the figures in a file are of
{
    echo "# $(date -u +%FT%TZ) $(git rev-parse --short HEAD 2> /dev/null) $(nproc) cores, load$(uptime | sed 's/.*load average:/ /')"
    echo "# $(ip netns exec "$a" sysctl -n net.ipv4.tcp_congestion_control) between two namespaces on $(uname -sr)"
}

pin() # rank, ranks: a core for each, if there are as many
{
    if [ "$2" -le "$(nproc)" ] && [ -z "${UNPINNED:-}" ]; then echo "taskset -c $1"; fi
}

# A program as ranks on the two hosts: ranks RANKS_PER_HOST COMMAND ...
ranks()
{
    local per=$1 n=$((2 * $1)) port=$((20000 + RANDOM % 10000)) r ns status=0 pids=()
    shift
    for ((r = n - 1; r >= 0; r--)); do
        ns=$a
        [ $((r / per)) = 1 ] && ns=$b
        # shellcheck disable=SC2046
        TUTTI_RANK=$r TUTTI_N_RANKS=$n TUTTI_BOOT_ADDR=10.77.0.1:$port TUTTI_SECRET=net_check \
            TUTTI_HOST=host$((r / per)) GLOO_SOCKET_IFNAME=host0 \
            ip netns exec "$ns" $(pin "$r" "$n") "$@" &
        pids+=($!)
    done
    for r in "${pids[@]}"; do wait "$r" || status=1; done
    return $status
}

# The same by mpirun: its agent, which would be ssh, enters the other namespace.
mpi_ranks()
{
    local per=$1 n=$((2 * $1)) yield=()
    shift
    printf '#!/bin/sh\nshift\nexec ip netns exec %s sh -c "$*"\n' "$b" > "$agent"
    chmod 700 "$agent"
    [ "$n" -gt "$(nproc)" ] && yield=(--mca mpi_yield_when_idle 1)
    # shellcheck disable=SC2016
    ip netns exec "$a" mpirun --allow-run-as-root --mca plm_rsh_agent "$agent" --mca btl tcp,self \
        --mca pml ob1 --mca btl_tcp_if_include host0 --mca oob_tcp_if_include host0 --bind-to none \
        --oversubscribe "${yield[@]}" --host "10.77.0.1:$per,10.77.0.2:$per" -n "$n" \
        -x TUTTI_BOOT_ADDR=10.77.0.1:$((20000 + RANDOM % 10000)) -x TUTTI_SECRET=net_check \
        sh -c 'export TUTTI_HOST=host$((OMPI_COMM_WORLD_RANK / $0)); pin=
               [ "$1" -le "$(nproc)" ] && pin="taskset -c $OMPI_COMM_WORLD_RANK"
               shift; exec $pin "$@"' "$per" "$n" "$@"
}

# all_reduce beside PEER, in the same processes: compare PEER RANKS_PER_HOST LAUNCHER
compare()
{
    local peer=$1 per=$2 launcher=$3 file=$out/net_all_reduce_2x$2_$1 i
    rm -f "$file".*.csv
    for ((i = 1; i <= rounds; i++)); do
        "$launcher" "$per" "$build/tutti" bench all_reduce -d f32 -b 64 -e 16M -f 4 --ordinary --csv \
            --against "$peer" > "$file.$i.csv" || say "$peer, 2 x $per ranks: round $i failed"
    done
    { head_of; python3 bench/net_table.py "$file".*.csv; } | tee "$file.txt"
    rm -f "$file".*.csv
}

[ "$(id -u)" = 0 ] || { say "only root can make network namespaces" && exit 77; }
make_hosts || { say "no namespaces, or no virtual cable, on this machine" && exit 77; }

if wants socket; then
    { head_of; ip netns exec "$a" "$build/bench/net_bench" "$rounds" "$b" 10.77.0.1; } | tee "$out/net_put.txt"
fi
if wants hosts; then
    for per in 1 2; do
        { head_of; ranks $per "$build/bench/hosts_bench"; } | tee "$out/net_hosts_2x$per.txt"
    done
fi
if wants mpi && [ -e "$build/tutti_bench_mpi.so" ]; then
    for per in 1 2; do compare mpi $per mpi_ranks; done
fi
if wants gloo && [ -e "$build/tutti_bench_gloo.so" ]; then
    # gloo's ranks have a thread for the network, which must not share a core with what waits for it.
    for per in 1 2; do UNPINNED=1 compare gloo $per ranks; done
fi
if wants bad; then
    for link in "1000 0 0" "0 0 100" "0 1 0"; do
        # shellcheck disable=SC2086
        make_hosts $link || break
        {
            head_of
            echo "# delay_us loss_percent mbit: $link"
            calls=50 # in a batch
            [[ $link == *" 0 "* ]] || calls=4 # of more nearly each has lost a packet
            ranks 1 "$build/bench/hosts_bench" 0 262144 $calls
        } | tee "$out/net_hosts_2x1_bad_${link// /_}.txt"
    done
fi
