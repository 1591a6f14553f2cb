/* Collectives across hosts between a root and the others, and barrier. */
#include <string.h>

#include "coll/hier_parts.h"

#define CHAIN_FROM (UINT64_C(64) << 10) /* longer broadcasts pass from host to host in pieces */

/* ---- barrier: within the host, then among the hosts of each rail ---- */

tutti_result tt_hier_barrier(struct tt_engine *e)
{
    struct tt_call local = {.coll = TT_COLL_BARRIER, .dtype = TUTTI_DTYPE_U8};
    const int n = e->n_hosts;

    if (e->n_local > 1)
        TT_TRY(tt_hier_local(e, &local));
    for (int far = 1; far < n && (e->is_even || e->local == 0); far *= 2) {
        tt_hier_send(e, tt_hier_partner(e, (e->host + far) % n), NULL, 0);
        tt_hier_recv(e, tt_hier_partner(e, (e->host + n - far) % n), NULL, 0);
        TT_TRY(tt_hier_exchange(e));
    }
    return e->is_even || e->n_local == 1 ? TUTTI_OK : tt_hier_local(e, &local);
}

/* ---- broadcast: to one rank of each host, and from there within the host ---- */

/* The rank of host h that gets root's data from outside: root itself on its host. */
int tt_hier_entry(const struct tt_engine *e, int root, int h)
{
    return tt_hier_member(e, h, e->local_of[root] % tt_hier_size(e, h));
}

/* Prepare what this entry rank sends, once it has received what it needs. `v` is the number of its
 * host counted from root's. */
static tutti_result pass_on(struct tt_engine *e, const struct tt_call *call, void *buf,
                            uint64_t bytes)
{
    const int n = e->n_hosts, from = e->host_of[call->root];
    const int v = (e->host - from + n) % n, chain = n > 2 && bytes >= CHAIN_FROM;
    int bit = 1;

    if (chain) {
        const struct tt_message *m = NULL;

        if (v > 0)
            m = tt_hier_recv(e, tt_hier_entry(e, call->root, (e->host + n - 1) % n), buf, bytes);
        if (v < n - 1)
            tt_hier_send(e, tt_hier_entry(e, call->root, (e->host + 1) % n), buf, bytes)->ready =
                m ? &m->moved : NULL;
        if (v > 0)
            return tt_hier_exchange(e);
        tt_hier_start(e);
        return TUTTI_OK;
    }
    while (bit < n && !(v & bit))
        bit *= 2;
    if (v > 0) {
        tt_hier_recv(e, tt_hier_entry(e, call->root, (from + v - bit) % n), buf, bytes);
        TT_TRY(tt_hier_exchange(e));
    }
    for (bit /= 2; bit > 0; bit /= 2)
        if (v + bit < n)
            tt_hier_send(e, tt_hier_entry(e, call->root, (from + v + bit) % n), buf, bytes);
    tt_hier_start(e);
    return TUTTI_OK;
}

tutti_result tt_hier_broadcast_hosts(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    void *buf = e->rank == call->root ? (void *)(uintptr_t)call->send : call->recv;

    TT_TRY(pass_on(e, call, buf, bytes));
    return tt_hier_finish(e);
}

tutti_result tt_hier_broadcast(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int entry = tt_hier_entry(e, call->root, e->host);
    void *buf = e->rank == call->root ? (void *)(uintptr_t)call->send : call->recv;
    struct tt_call local = tt_call_even(TT_COLL_BROADCAST, call->dtype, buf, buf, call->count);

    TT_TRY(tt_hier_meet(e, call));
    if (e->rank == entry)
        TT_TRY(pass_on(e, call, buf, bytes));
    local.root = e->local_of[entry];
    if (e->n_local > 1)
        TT_TRY(tt_hier_local(e, &local));
    return tt_hier_finish(e);
}

/* ---- gather, scatter: straight between root and every rank ---- */

static struct tt_p2p within(const struct tt_engine *e, int peer, int is_send, void *buf,
                            size_t bytes, tutti_dtype dtype)
{
    return (struct tt_p2p){
        .buf = buf, .bytes = bytes, .peer = e->local_of[peer], .is_send = is_send, .dtype = dtype};
}

/* A block between root and each of the others; `is_root_sending` says which way. */
static tutti_result between(struct tt_engine *e, const struct tt_call *call, unsigned char *all,
                            unsigned char *own, int is_root_sending)
{
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int is_root = e->rank == call->root, is_send = is_root == is_root_sending;
    size_t n_within = 0;

    TT_TRY(tt_hier_meet(e, call));
    for (int i = is_root ? 1 : 0; i < (is_root ? e->n_ranks : 1); i++) {
        const int peer = is_root ? (e->rank + i) % e->n_ranks : call->root;
        unsigned char *buf = is_root && bytes ? all + (size_t)peer * bytes : own;

        if (e->host_of[peer] == e->host)
            e->p2p[n_within++] = within(e, peer, is_send, buf, bytes, call->dtype);
        else if (is_send)
            tt_hier_send(e, peer, buf, bytes);
        else
            tt_hier_recv(e, peer, buf, bytes);
    }
    tt_hier_start(e);
    if (n_within > 0)
        TT_TRY(tt_cpu_p2p(e->local_engine, e->p2p, n_within));
    return tt_hier_finish(e);
}

tutti_result tt_hier_gather(struct tt_engine *e, const struct tt_call *call)
{
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);

    TT_TRY(between(e, call, call->recv, (unsigned char *)(uintptr_t)call->send, 0));
    if (e->rank == call->root && bytes)
        memmove((unsigned char *)call->recv + (size_t)e->rank * bytes, call->send, bytes);
    return TUTTI_OK;
}

tutti_result tt_hier_scatter(struct tt_engine *e, const struct tt_call *call)
{
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);

    TT_TRY(between(e, call, (unsigned char *)(uintptr_t)call->send, call->recv, 1));
    if (e->rank == call->root && bytes)
        memmove(call->recv, (const unsigned char *)call->send + (size_t)e->rank * bytes, bytes);
    return TUTTI_OK;
}
