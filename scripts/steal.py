#!/usr/bin/env python3
"""Run a command on a machine that takes its cores away, as a busy hypervisor does.

    scripts/steal.py [--busy US] [--free US] command ...

On every core a real-time process computes for a random time of BUSY on average, then lets go for FREE on
average. What races only now and then elsewhere races often here. Needs root, or CAP_SYS_NICE.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import time


def steal(cpu, busy, free):
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    rng = random.Random(cpu)
    parent = os.getppid()
    while os.getppid() == parent:  # nobody steals for a command that was killed
        end = time.monotonic() + busy * 2 * rng.random()
        while time.monotonic() < end:
            pass
        time.sleep(free * 2 * rng.random())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=float, default=1500, metavar="US")
    parser.add_argument("--free", type=float, default=2500, metavar="US")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if not args.command:
        parser.error("no command")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except PermissionError:
        sys.exit("steal.py: real-time priority is not allowed here: run it as root")
    thieves = []
    for cpu in os.sched_getaffinity(0):
        pid = os.fork()
        if pid == 0:
            steal(cpu, args.busy / 1e6, args.free / 1e6)
            os._exit(0)
        thieves.append(pid)
    try:
        code = subprocess.call(args.command)
    finally:
        for pid in thieves:
            os.kill(pid, signal.SIGKILL)
    sys.exit(code)


if __name__ == "__main__":
    main()
