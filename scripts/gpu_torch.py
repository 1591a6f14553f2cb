#!/usr/bin/env python3
"""PyTorch's tensors in windows, on real GPUs: of a torch.cuda.MemPool whose allocator is libtutti, and of
torch's own allocator without and with expandable segments. Every sum is compared, eager and in CUDA
graphs, on torch's current stream. Ranks are processes; they share a GPU where there are fewer.

    python3 scripts/gpu_torch.py [--ranks 2] [--library build/release/libtutti.so] [--limit 240]

Prints a line for each check, and at the end "N checks, 0 wrong". Exit status 0 only then.
"""
import argparse
import contextlib
import ctypes
import faulthandler
import gc
import os
import pathlib
import secrets
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODES = {"pool": {}, "default": {"expandable_segments": "False"},
         "expandable": {"expandable_segments": "True"}}
CALL_TIMEOUT_MS = 20000
DEVICE_CUDA, OP_SUM = 1, 0
COUNTS = (1, 1000, 70001, 1 << 20, (4 << 20) + 3)
KEPT = [] # until the interpreter ends: torch asks an allocator to free as long as it has memory of it


class Config(ctypes.Structure):
    """tutti_comm_config"""
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("rank", ctypes.c_int32),
                ("n_ranks", ctypes.c_int32), ("device", ctypes.c_int),
                ("device_index", ctypes.c_int32), ("id", ctypes.c_void_p),
                ("exchange", ctypes.c_void_p), ("exchange_context", ctypes.c_void_p),
                ("timeout_ms", ctypes.c_uint64), ("scratch_bytes", ctypes.c_uint64),
                ("name", ctypes.c_char_p), ("algorithm", ctypes.c_char_p),
                ("tune_file", ctypes.c_char_p)]


class Tutti:
    """The library by ctypes, and one communicator."""

    def __init__(self, path, device_index):
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        out = ctypes.POINTER(ctypes.c_void_p)
        self.lib = ctypes.CDLL(path)
        for name, result, *arguments in (
                ("last_error", ctypes.c_char_p),
                ("comm_create_from_env", integer, ctypes.POINTER(Config), out),
                ("comm_destroy", None, pointer),
                ("all_reduce", integer, pointer, pointer, pointer, size, integer, integer, pointer),
                ("barrier", integer, pointer, pointer),
                ("window_register", integer, pointer, pointer, size, out),
                ("window_deregister", integer, pointer, pointer),
                ("window_find", pointer, pointer, pointer, size),
                ("torch_push_comm", integer, pointer), ("torch_pop_comm", integer)):
            function = getattr(self.lib, "tutti_" + name)
            function.restype, function.argtypes = result, arguments
        config = Config(size=ctypes.sizeof(Config), device=DEVICE_CUDA, device_index=device_index,
                        timeout_ms=CALL_TIMEOUT_MS, name=b"torch")
        comm = ctypes.c_void_p()
        self.check(self.lib.tutti_comm_create_from_env(ctypes.byref(config), ctypes.byref(comm)))
        self.comm = comm

    def check(self, result):
        if result < 0:
            raise RuntimeError(f"{result}: {self.lib.tutti_last_error().decode()}")

    def all_reduce(self, torch, x):
        """In place, on torch's current stream."""
        dtypes = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int32: 6}
        stream = torch.cuda.current_stream().cuda_stream
        self.check(self.lib.tutti_all_reduce(self.comm, x.data_ptr(), x.data_ptr(), x.numel(),
                                             dtypes[x.dtype], OP_SUM, stream))

    def window_of(self, x):
        return self.lib.tutti_window_find(self.comm, x.data_ptr(), x.numel() * x.element_size())

    def register(self, x):
        window = ctypes.c_void_p()
        self.check(self.lib.tutti_window_register(
            self.comm, x.data_ptr(), x.numel() * x.element_size(), ctypes.byref(window)))
        return window

    @contextlib.contextmanager
    def symmetric_memory(self, torch, pool):
        self.check(self.lib.tutti_torch_push_comm(self.comm))
        try:
            with torch.cuda.use_mem_pool(pool):
                yield
        finally:
            self.check(self.lib.tutti_torch_pop_comm())

    def destroy(self):
        self.lib.tutti_comm_destroy(self.comm)
        self.comm = None


class Checks:
    """Counts them, and prints those of rank 0 and whatever is wrong."""

    def __init__(self, mode, rank):
        self.mode, self.rank, self.n, self.n_wrong = mode, rank, 0, 0

    def that(self, is_right, text):
        self.n += 1
        self.n_wrong += not is_right
        if self.rank == 0 or not is_right:
            print(f"{self.mode:11} rank {self.rank}: {'ok   ' if is_right else 'WRONG'} {text}",
                  flush=True)


class Rank:
    """What all checks need: torch, the library, who this is."""

    def __init__(self, torch, tutti, checks, rank, n_ranks):
        self.torch, self.tutti, self.checks = torch, tutti, checks
        self.rank, self.n_ranks, self.turn = rank, n_ranks, 0

    def inputs(self, x, rank, turn):
        """Small integers, whose sums are exact in every type."""
        index = self.torch.arange(x.numel(), device="cuda")
        return ((index * 7 + rank * 13 + turn * 5) % (256 // self.n_ranks)).to(x.dtype)

    def wanted(self, x, turn):
        parts = [self.inputs(x, r, turn).double() for r in range(self.n_ranks)]
        return sum(parts).to(x.dtype)

    def eager(self, x, what):
        self.turn += 1
        x.copy_(self.inputs(x, self.rank, self.turn))
        self.tutti.all_reduce(self.torch, x)
        n_wrong = int((x != self.wanted(x, self.turn)).sum())
        self.checks.that(n_wrong == 0,
                         f"{what}: all_reduce of {x.numel()} {x.dtype}, {n_wrong} elements differ")

    def graph(self, x, what):
        torch = self.torch
        source = torch.empty_like(x)
        stream = torch.cuda.Stream()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            x.copy_(source)
            self.tutti.all_reduce(torch, x)
        n_wrong = 0
        for _ in range(5):
            self.turn += 1
            source.copy_(self.inputs(x, self.rank, self.turn))
            graph.replay()
            n_wrong += int((x != self.wanted(x, self.turn)).sum())
        self.checks.that(n_wrong == 0, f"{what}: 5 replays of a graph with all_reduce of "
                                       f"{x.numel()} {x.dtype}, {n_wrong} elements differ")

    def barrier(self):
        """Also a synchronisation of this GPU."""
        self.torch.cuda.synchronize()
        self.tutti.check(self.tutti.lib.tutti_barrier(self.tutti.comm, None))
        self.torch.cuda.synchronize()


def use_everywhere(r, tensors, what):
    for x in tensors:
        r.eager(x, what)
    r.graph(tensors[2], what)
    side = r.torch.cuda.Stream()
    side.wait_stream(r.torch.cuda.current_stream())
    with r.torch.cuda.stream(side):
        r.eager(tensors[1], what + ", another stream")
    r.torch.cuda.current_stream().wait_stream(side)
    if len(tensors[-1]) > 1000:
        r.eager(tensors[-1][4:-3], what + ", a slice")


def tensors_of_all_kinds(torch):
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.bfloat16)
    return [torch.empty(n, dtype=kind, device="cuda") for n, kind in zip(COUNTS, kinds)]


def check_pool(r, library):
    torch, tutti = r.torch, r.tutti
    allocator = torch.cuda.memory.CUDAPluggableAllocator(library, "tutti_torch_alloc",
                                                         "tutti_torch_free")
    KEPT.append(allocator)
    pool = torch.cuda.MemPool(allocator.allocator())
    with tutti.symmetric_memory(torch, pool):
        tensors = tensors_of_all_kinds(torch)
    for x in tensors:
        r.checks.that(tutti.window_of(x), f"pool: {x.numel()} {x.dtype} lie in a window")
    use_everywhere(r, tensors, "pool")
    outside = torch.empty(5000, device="cuda")
    r.checks.that(not tutti.window_of(outside), "other tensors do not")
    r.eager(outside, "beside the pool")
    with tutti.symmetric_memory(torch, pool):
        again = torch.empty(12 << 20, dtype=torch.bfloat16, device="cuda")
    r.checks.that(tutti.window_of(again), "a later tensor lies in a window too")
    r.eager(again, "pool, later")
    kept = again.data_ptr(), again.numel() * again.element_size()
    r.barrier()
    del again, x
    tensors = tensors[:2]
    second = torch.cuda.MemPool(allocator.allocator())
    with tutti.symmetric_memory(torch, second):
        last = torch.empty(COUNTS[-1], device="cuda")
    r.eager(last, "a second pool")
    r.barrier()
    given_back = last.data_ptr()
    del last, second
    gc.collect()
    torch.cuda.empty_cache()
    tutti.check(tutti.lib.tutti_torch_push_comm(tutti.comm))
    tutti.check(tutti.lib.tutti_torch_pop_comm())
    is_left = [bool(tutti.lib.tutti_window_find(tutti.comm, p, 1)) for p in (kept[0], given_back)]
    print(f"{r.checks.mode:11} rank {r.rank}: after freeing, the first pool's segment is "
          f"{'still a window' if is_left[0] else 'no window'} (torch caches it), the second's is "
          f"{'still a window' if is_left[1] else 'no window'} (its pool is gone)", flush=True)
    r.eager(tensors[1], "pool, after freeing")
    r.barrier()
    tutti.destroy() # before the memory, part of which is freed when the interpreter ends
    del pool
    gc.collect()
    torch.cuda.empty_cache()
    tensors[1].fill_(3)
    r.checks.that(float(tensors[1].double().sum()) == 3 * COUNTS[1], "memory outlives its communicator")
    KEPT.extend(tensors)


def check_caching_allocator(r, mode):
    torch, tutti = r.torch, r.tutti
    tensors = tensors_of_all_kinds(torch)
    is_expandable = [bool(s.get("is_expandable")) for s in torch.cuda.memory_snapshot()]
    if mode == "expandable":
        r.checks.that(all(is_expandable), "torch's segments are expandable")
    else:
        r.checks.that(not any(is_expandable), "torch's segments are not expandable")
    windows = [tutti.register(x) for x in tensors]
    for x in tensors:
        r.checks.that(tutti.window_of(x), f"{mode}: {x.numel()} {x.dtype} are registered")
    use_everywhere(r, tensors, mode)
    grown = [torch.empty(3 << 20, device="cuda") for _ in range(3)] # segments grow beside windows
    r.eager(grown[-1], mode + ", not registered")
    r.eager(tensors[-1], mode + ", after segments have grown")
    r.barrier()
    for window in windows:
        tutti.check(tutti.lib.tutti_window_deregister(tutti.comm, window))
    r.checks.that(not tutti.window_of(tensors[0]), f"{mode}: deregistered")
    r.eager(tensors[-1], mode + ", deregistered")
    del tensors, grown, x
    gc.collect()
    torch.cuda.empty_cache()
    r.eager(torch.empty(1000, device="cuda"), mode + ", new memory")
    r.barrier()
    tutti.destroy()


def rank_main(options):
    faulthandler.dump_traceback_later(options.limit, exit=True)
    import torch

    rank, n_ranks = int(os.environ["TUTTI_RANK"]), options.ranks
    device = rank % torch.cuda.device_count()
    torch.cuda.set_device(device)
    torch.empty(1, device="cuda")
    checks = Checks(options.mode, rank)
    r = Rank(torch, Tutti(options.library, device), checks, rank, n_ranks)
    if options.mode == "pool":
        check_pool(r, options.library)
    else:
        check_caching_allocator(r, options.mode)
    torch.cuda.synchronize()
    print(f"counted {checks.n} {checks.n_wrong}", flush=True)
    if checks.n_wrong:
        raise SystemExit(1)


def run_mode(mode, options, until):
    """All ranks of one mode. Returns (checks, wrong)."""
    common = dict(os.environ, TUTTI_N_RANKS=str(options.ranks), TUTTI_SECRET=secrets.token_hex(16),
                  TUTTI_BOOT_ADDR=f"unix:gpu_torch-{os.getpid()}-{mode}", PYTHONUNBUFFERED="1")
    settings = ",".join(f"{k}:{v}" for k, v in MODES[mode].items())
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        common.pop(name, None)
    if settings:
        common["PYTORCH_CUDA_ALLOC_CONF"] = settings
    left = max(1, int(until - time.monotonic()))
    command = [sys.executable, __file__, "--mode", mode, "--ranks", str(options.ranks), "--library",
               options.library, "--limit", str(left)]
    ranks = [subprocess.Popen(command, env=dict(common, TUTTI_RANK=str(r)), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
             for r in range(options.ranks)]
    n = n_wrong = 0
    for rank, process in enumerate(ranks):
        try:
            text, _ = process.communicate(timeout=max(1, until + 5 - time.monotonic()))
        except subprocess.TimeoutExpired:
            for other in ranks:
                other.kill()
            text, _ = process.communicate()
            text += f"{mode:11} rank {rank}: WRONG: not done in time\n"
        counted = [line.split()[1:] for line in text.splitlines() if line.startswith("counted ")]
        print("".join(line + "\n" for line in text.splitlines() if not line.startswith("counted ")),
              end="", flush=True)
        if counted:
            n, n_wrong = n + int(counted[0][0]), n_wrong + int(counted[0][1])
        if not counted or process.returncode not in (0, 1):
            print(f"{mode:11} rank {rank}: WRONG: ended with status {process.returncode}", flush=True)
            n, n_wrong = n + 1, n_wrong + 1
    return n, n_wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--library", default=str(ROOT / "build/release/libtutti.so"))
    parser.add_argument("--limit", type=int, default=240, help="seconds for everything")
    parser.add_argument("--mode", choices=sorted(MODES), help="one rank of it: from the environment")
    parser.add_argument("--only", choices=sorted(MODES), help="this one alone")
    options = parser.parse_args()
    options.library = str(pathlib.Path(options.library).resolve())
    if options.mode:
        rank_main(options)
        return
    until = time.monotonic() + options.limit
    n = n_wrong = 0
    for mode in [options.only] if options.only else MODES:
        counted = run_mode(mode, options, until)
        n, n_wrong = n + counted[0], n_wrong + counted[1]
    print(f"{n} checks, {n_wrong} wrong")
    raise SystemExit(0 if n > 0 and n_wrong == 0 else 1)


if __name__ == "__main__":
    main()
