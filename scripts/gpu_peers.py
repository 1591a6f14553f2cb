#!/usr/bin/env python3
"""All-reduce of PyTorch's symmetric memory, measured as `tutti bench all_reduce --gpus N --graph` does:
20 calls in a CUDA graph on every rank, 3 launches to warm up, then 20 that all ranks begin together;
the time between two events divided by 20, of the slowest rank; the median of the launches. Results are
checked. Needs PyTorch with torch.distributed._symmetric_memory; multicast is left off.

    python3 scripts/gpu_peers.py --gpus 4 [-b 1024] [-e 67108864] [-f 2] [--json FILE]
"""
import argparse
import json
import os
import socket
import warnings

N_CALLS, N_WARM_UP, N_REPLAYS = 20, 3, 20


def time_graph(torch, dist, host_group, call):
    """Microseconds of a call, for each replay: the slowest rank's."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(N_CALLS):
            call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for replay in range(N_WARM_UP + N_REPLAYS):
        torch.cuda.synchronize()
        dist.barrier(group=host_group)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if replay >= N_WARM_UP:
            times.append(begin.elapsed_time(end) * 1000 / N_CALLS)
    slowest = torch.tensor(times)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX, group=host_group)
    return sorted(slowest.tolist())


def is_right(torch, dist, host_group, buffer, call):
    """One call on small integers, whose sums are exact, every element compared."""
    n, rank = dist.get_world_size(), dist.get_rank()
    index = torch.arange(buffer.numel(), device="cuda")
    modulus = 256 // n
    buffer.copy_((index * 7 + rank * 13) % modulus)
    torch.cuda.synchronize()
    dist.barrier(group=host_group)
    result = call()
    torch.cuda.synchronize()
    want = sum((index * 7 + r * 13) % modulus for r in range(n)).to(buffer.dtype)
    wrong = (result != want).sum().cpu()
    dist.all_reduce(wrong, group=host_group)
    return int(wrong) == 0


def measure(torch, dist, symm_mem, host_group, n_bytes):
    """One row: {variant: {...}}."""
    group = dist.group.WORLD.group_name
    n = n_bytes // 2
    buffer = symm_mem.empty(n, dtype=torch.bfloat16, device="cuda")
    symm_mem.rendezvous(buffer, group=group)
    ops = torch.ops.symm_mem
    variants = {"torch_two_shot": lambda: ops.two_shot_all_reduce_(buffer, "sum", group)}
    if n_bytes <= 1 << 20:
        variants["torch_one_shot"] = lambda: ops.one_shot_all_reduce(buffer, "sum", group)
    row = {}
    for name, call in variants.items():
        good = is_right(torch, dist, host_group, buffer, call)
        buffer.zero_()
        times = time_graph(torch, dist, host_group, call)
        row[name] = {"samples": len(times), "min_us": times[0], "p50_us": times[len(times) // 2],
                     "p99_us": times[(len(times) - 1) * 99 // 100], "wrong": 0 if good else 1}
    return row


def rank_main(rank, options, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank),
                      WORLD_SIZE=str(options.gpus), LOCAL_RANK=str(rank))
    import torch
    import torch.distributed as dist
    import torch.distributed._symmetric_memory as symm_mem

    warnings.simplefilter("ignore", FutureWarning)
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
    host_group = dist.new_group(backend="gloo")
    if hasattr(symm_mem, "enable_symm_mem_for_group"):
        symm_mem.enable_symm_mem_for_group(dist.group.WORLD.group_name)
    rows, n_bytes = [], options.min_bytes
    while n_bytes <= options.max_bytes:
        us = measure(torch, dist, symm_mem, host_group, n_bytes)
        rows.append({"collective": "all_reduce", "bytes": n_bytes, "type": "bf16", "op": "sum",
                     "us": us})
        if rank == 0:
            print(f"{n_bytes:11d} " + "  ".join(
                f"{name} {r['p50_us']:8.2f} us{'' if r['wrong'] == 0 else ' WRONG'}"
                for name, r in us.items()), flush=True)
        n_bytes *= options.factor
    if rank == 0 and options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump({"program": "gpu_peers", "torch": torch.__version__, "ranks": options.gpus,
                       "graph": True, "rows": rows}, out, indent=1)
    dist.barrier(group=host_group)
    dist.destroy_process_group()
    if any(r["wrong"] for row in rows for r in row["us"].values()):
        raise SystemExit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("-b", "--min-bytes", type=int, default=1024)
    parser.add_argument("-e", "--max-bytes", type=int, default=64 << 20)
    parser.add_argument("-f", "--factor", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    import torch.multiprocessing as multiprocessing

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(rank_main, args=(options, port), nprocs=options.gpus)


if __name__ == "__main__":
    main()
