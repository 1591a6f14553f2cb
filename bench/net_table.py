#!/usr/bin/env python3
"""net_table.py FILE.csv ...: rounds of `tutti bench --csv --against PEER` as one table: medians of the rounds'
medians, and how many times faster, the median of the rounds' own ratios."""
import csv
import statistics
import sys


def main(paths):
    rows = {}  # (collective, bytes) -> variant -> [p50 of each round]
    order = []
    for path in paths:
        with open(path, newline="") as f:
            lines = [line for line in f if "," in line and not line.startswith("#")]
        for row in csv.DictReader(lines):
            key = (row["collective"], int(row["bytes"]))
            rows.setdefault(key, {}).setdefault(row["variant"], []).append(float(row["p50_us"]))
            if row["variant"] not in order:
                order.append(row["variant"])
            if int(row["wrong"]):
                print(f"{path}: {row['wrong']} wrong elements", file=sys.stderr)
                return 1
    if len(order) != 2:
        print(f"net_table: two variants are compared, not {order}", file=sys.stderr)
        return 1
    own, peer = order
    print(f"{'':>12} {'bytes':>9} {'tutti us':>10} {peer + ' us':>18} {'times faster':>13}  (least, most)")
    for (collective, n_bytes), by in sorted(rows.items()):
        ratios = [p / o for o, p in zip(by[own], by[peer])]
        print(f"{collective:>12} {n_bytes:>9} {statistics.median(by[own]):>10.2f} "
              f"{statistics.median(by[peer]):>18.2f} {statistics.median(ratios):>13.2f}  "
              f"({min(ratios):.2f}, {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
