/* Copies between the memories of two processes in one system call each (process_vm_readv and
 * process_vm_writev). Whether the system allows them is probed at creation, never assumed. */
#include <errno.h>

#include "cpu/cpu.h"

#define AT_ONCE ((size_t)64 << 20) /* between two looks whether the call has failed elsewhere */

typedef ssize_t (*vm_fn)(pid_t, const struct iovec *, unsigned long, const struct iovec *,
                         unsigned long, unsigned long);

/* The others wait for this rank's part, which will not come: end the call for everybody. */
static tutti_result lost(struct tt_engine *e, int r, size_t bytes)
{
    const int why = errno;

    /* ESRCH: its memory is gone, which comes a moment before its locks and its number go. */
    if (why == ESRCH || !tt_peer_alive(e, r))
        return tt_engine_fail(e, TT_DIED, r, 0, 0);
    (void)tt_engine_fail(e, TT_ABORT, e->rank, 0, 0);
    return TT_FAIL(TUTTI_E_ABORTED,
                   "communicator %s: copying %zu bytes across memories with rank %d "
                   "failed: %s",
                   e->name, bytes, r, strerror(why));
}

static tutti_result transfer(struct tt_engine *e, int r, vm_fn call, unsigned char *local,
                             uint64_t remote, size_t bytes)
{
    while (bytes > 0) {
        const size_t n = bytes < AT_ONCE ? bytes : AT_ONCE;
        const struct iovec l = {local, n}, p = {(void *)(uintptr_t)remote, n};
        ssize_t moved;

        TT_TRY(tt_store_begin(e));
        moved = call(e->peers[r].pid, &l, 1, &p, 1, 0);
        tt_store_end(e);
        if (moved <= 0) {
            if (moved < 0 && errno == EINTR)
                continue;
            return lost(e, r, n);
        }
        local += moved;
        remote += (uint64_t)moved;
        bytes -= (size_t)moved;
    }
    return TUTTI_OK;
}

tutti_result tt_xmem_read(struct tt_engine *e, int r, void *dst, uint64_t src, size_t bytes)
{
    return transfer(e, r, process_vm_readv, dst, src, bytes);
}

tutti_result tt_xmem_write(struct tt_engine *e, int r, uint64_t dst, const void *src, size_t bytes)
{
    return transfer(e, r, process_vm_writev, (unsigned char *)(uintptr_t)src, dst, bytes);
}

/* Several blocks by one call. What does not go so goes one by one, and says why it does not. */
tutti_result tt_xmem_write_all(struct tt_engine *e, int r, const struct iovec to[],
                               const struct iovec from[], size_t n)
{
    size_t bytes = 0;
    ssize_t moved = 0;

    for (size_t i = 0; i < n; i++)
        bytes += from[i].iov_len;
    if (bytes <= AT_ONCE) {
        TT_TRY(tt_store_begin(e));
        moved = process_vm_writev(e->peers[r].pid, from, n, to, n, 0);
        tt_store_end(e);
    }
    for (size_t i = 0; i < n && moved != (ssize_t)bytes; i++)
        TT_TRY(tt_xmem_write(e, r, (uint64_t)(uintptr_t)to[i].iov_base, from[i].iov_base,
                             from[i].iov_len));
    return TUTTI_OK;
}

/* Read each peer's random token through its own memory, and write it back: a system may allow the one
 * without the other. Under Yama's ptrace_scope 1 a process must allow that first; TUTTI_CPU_XMEM=off
 * never does (cpu_engine.c). */
int tt_xmem_probe(struct tt_engine *e, const uint64_t token_addresses[], const uint64_t tokens[])
{
    for (int r = 0; r < e->n_ranks; r++) {
        uint64_t seen = 0;
        const struct iovec l = {&seen, sizeof(seen)};
        const struct iovec p = {(void *)(uintptr_t)token_addresses[r], sizeof(seen)};

        if (e->peers[r].pid <= 0 ||
            process_vm_readv(e->peers[r].pid, &l, 1, &p, 1, 0) != (ssize_t)sizeof(seen) ||
            seen != tokens[r] ||
            process_vm_writev(e->peers[r].pid, &l, 1, &p, 1, 0) != (ssize_t)sizeof(seen))
            return 0;
    }
    return 1;
}
