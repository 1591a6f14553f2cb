#!/usr/bin/env python3
"""Cost model of the collectives across hosts (docs/design/hierarchical.md), and what it says.

    model.py check TABLE ...   tables of bench/hosts_bench.c: how far predictions are from what was measured
    model.py paper             2 to 512 hosts of 8 GPUs with a 400G card each, and two hosts beside published figures

A network is what an exchange takes: two ranks put m bytes and a signal to each other at once. On paper that is a + m / b,
with a latency `a` (seconds) and a bandwidth `b` (bytes a second and rail); `o` is what each further message costs its
sender. `check` takes it from the column "exchange" (lines between the sizes), where caches and system calls make it no
straight line, and predicts the other columns from it and from the speeds at which one core adds and copies."""
import re
import sys
from dataclasses import dataclass

SMALL = 16 << 10    # src/coll/hier_reduce.c: whole vectors up to here
WHOLE = 1 << 20     # and, of a rail's part on two hosts, up to here
DIRECT_HOSTS = 8    # src/coll/hier_step.c: everybody to everybody up to here


@dataclass
class Network:
    a: float
    b: float
    o: float = 0.0

    def exchange(self, m):
        return self.a + m / self.b


@dataclass
class Measured:
    """Lines between points (bytes, seconds), the last one going on."""
    points: list
    o: float = 0.0

    @property
    def a(self):
        return self.points[0][1]

    def exchange(self, m):
        for (m0, t0), (m1, t1) in zip(self.points, self.points[1:]):
            if m <= m1:
                break
        return t0 + (t1 - t0) * (m - m0) / (m1 - m0)


@dataclass
class Host:
    """Steps within a host of `ranks`: a fixed cost and bytes a second and rank."""
    ranks: int = 1
    a: float = 0.0
    b: float = float("inf")
    adds: tuple = (float("inf"), float("inf"))  # bytes a second: in the cache of a core, from memory
    copies: tuple = (float("inf"), float("inf"))
    cache: float = float("inf")
    piece: float = float("inf")  # bytes for each rank, from which on a large all_reduce goes in pieces
    most_pieces: int = 1

    def add(self, m, of=0):  # m bytes of a vector of so many
        return m / self.adds[of > self.cache]

    def copy(self, m, of=0):
        return m / self.copies[of > self.cache]

    def part(self, m):  # reduce_scatter or all_gather of a vector of m bytes
        return 0.0 if self.ranks == 1 else self.a + m * (self.ranks - 1) / self.ranks / self.b

    def whole(self, m):  # all_reduce of a small vector: in two steps, for the hosts are between them
        return 0.0 if self.ranks == 1 else 2 * self.a + m * (self.ranks - 1) / self.b


def rounds(hosts):
    return (hosts - 1).bit_length()


def all_reduce(net, host, hosts, m):
    part = m / host.ranks
    if m <= SMALL:
        if hosts <= DIRECT_HOSTS:
            wire = net.exchange((hosts - 1) * m) + (hosts - 2) * net.o
        else:
            wire = (rounds(hosts) - 1) * net.a + net.exchange((hosts - 1) * m)
        return host.whole(m) + wire + host.add((hosts - 1) * m)
    n = int(max(1, min(host.most_pieces, part / host.piece)))
    return in_pieces(n, host.part(m / n), along_rail(net, host, hosts, part / n, m))


def along_rail(net, host, hosts, part, of):
    if hosts == 2 and part <= WHOLE:
        return net.exchange(part) + host.add(part)
    share = part * (hosts - 1) / hosts  # of its bytes each rank sends so many, and so many results
    return 2 * (hosts - 2) * net.o + net.a + net.exchange(2 * share) + host.add(share, of)


def in_pieces(n, within, between):
    """Steps within a host follow one another, as those between hosts do; each piece has within, between, within."""
    here = there = 0.0
    ends = []
    for _ in range(n):
        here += within
        there = max(here, there) + between
        ends.append(there)
    for end in ends:
        here = max(here, end) + within
    return here


def reduce_scatter(net, host, hosts, m):  # of the own vector one part is added to: that is what has to stay in the cache
    return net.exchange(m * (hosts - 1) / hosts) + host.add(m * (hosts - 1) / hosts, m / hosts)


def all_gather(net, host, hosts, m):  # and the own block to its place
    return net.exchange(m * (hosts - 1) / hosts) + host.copy(m / hosts, m)


PREDICT = {  # by column of hosts_bench, for ranks that are each on a host of their own
    "all_reduce": all_reduce,
    "red_scatter": reduce_scatter,
    "all_gather": all_gather,
    "barrier": lambda net, host, n, m: rounds(n) * net.a,
}
# A core of the machine of the tables, f32 (bench/notes/kernels.md).
CORE = Host(adds=(15e9, 5e9), copies=(25e9, 9e9), cache=2 << 20)


def read_table(path):
    rows, columns, ranks = [], [], 0
    with open(path) as f:
        for line in f:
            words = line.split("all_reduce ")[0].split() if re.match(r" +\d", line) else []
            if line.lstrip().startswith("bytes"):
                columns = line.split()[1:-1]
            elif re.match(r"\d+ ranks", line):
                ranks = int(line.split()[0])
            elif words:
                rows.append((int(words[0]), {c: float(w) * 1e-6 for c, w in zip(columns, words[1:]) if w != "-"}))
    return ranks, rows


def check(paths):
    worst = 1.0
    for path in paths:
        ranks, rows = read_table(path)
        net = Measured([(m, got["exchange"]) for m, got in rows])
        quickest = min(got["barrier"] for m, got in rows)  # it has no size
        print(f"{path}: {ranks} ranks; measured us (: predicted)")
        print(f"{'bytes':>9}" + "".join(f" {c:>20}" for c in PREDICT))
        for m, got in rows:
            cells = []
            for column, predict in PREDICT.items():
                if column not in got:  # too few bytes to have parts
                    cells.append("-")
                    continue
                ratio = (quickest if column == "barrier" else got[column]) / predict(net, CORE, ranks, m)
                worst = max(worst, ratio, 1 / ratio)
                cells.append(f" {got[column] * 1e6:>12.1f} ({ratio:.2f})")
            print(f"{m:>9}" + "".join(f"{c:>21}" for c in cells))
    print(f"the farthest prediction is off by a factor of {worst:.2f}")
    return 0


# 400G: 50 GB/s on the wire, 46 reached; a put and its signal between GPUs through a proxy 7 us; NVLink within a host.
PAPER_NET = Network(a=7e-6, b=46e9, o=0.3e-6)
PAPER_HOST = Host(ranks=8, a=4e-6, b=340e9, piece=1 << 20, most_pieces=8)
PUBLISHED = {  # us, 2 x 8 H100: MSCCL++'s documentation (and its CI: 8 KiB, from 24 MiB on), NCCL's from there, too
    4 << 10: ("16.4 - 19", "35"), 8 << 10: ("15.1 - 16.6", ""), 64 << 10: ("18.2", ""), 128 << 10: ("20", "50"),
    256 << 10: ("21.7", "127"), 512 << 10: ("26", ""), 1 << 20: ("34.5", "89"), 24 << 20: ("212", ""),
    48 << 20: ("260", ""),
}


def paper():
    print("2 hosts x 8 GPUs, microseconds")
    print(f"{'bytes':>10} {'model':>9} {'MSCCL++':>13} {'NCCL':>6}")
    for m, (mscclpp, nccl) in PUBLISHED.items():
        print(f"{m:>10} {all_reduce(PAPER_NET, PAPER_HOST, 2, m) * 1e6:>9.1f} {mscclpp:>13} {nccl:>6}")
    sizes = (8 << 10, 128 << 10, 1 << 20, 16 << 20, 256 << 20)
    print("\nhosts x 8 GPUs, one 400G card each, microseconds (and GB/s of bus bandwidth for the largest)")
    print(f"{'hosts':>6}" + "".join(f"{m:>12}" for m in sizes))
    for hosts in (2, 4, 8, 16, 32, 64, 128, 256, 512):
        times = [all_reduce(PAPER_NET, PAPER_HOST, hosts, m) for m in sizes]
        n = 8 * hosts
        bus = 2 * (n - 1) / n * sizes[-1] / times[-1] / 1e9
        print(f"{hosts:>6}" + "".join(f"{t * 1e6:>12.1f}" for t in times) + f"  ({bus:.0f})")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"] and len(sys.argv) > 2:
        sys.exit(check(sys.argv[2:]))
    if sys.argv[1:] == ["paper"]:
        sys.exit(paper())
    sys.exit(__doc__)
