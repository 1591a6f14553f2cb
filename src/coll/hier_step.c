/* What the collectives across hosts are made of. */
#include <string.h>

#include "base/clock.h"
#include "coll/hier_parts.h"

#define DIRECT_HOSTS 8 /* up to which every rank sends to all of its rail at once */

/* ---- messages ---- */

static struct tt_message *message(struct tt_engine *e, int peer, int is_send, void *buf,
                                  uint64_t bytes)
{
    struct tt_message *m = &e->messages[e->n_messages++];

    *m = (struct tt_message){.peer = peer,
                             .is_send = is_send,
                             .kind = e->kind,
                             .check = e->check,
                             .buf = buf,
                             .bytes = bytes};
    return m;
}

struct tt_message *tt_hier_send(struct tt_engine *e, int peer, const void *buf, uint64_t bytes)
{
    return message(e, peer, 1, (void *)(uintptr_t)buf, bytes);
}

struct tt_message *tt_hier_recv(struct tt_engine *e, int peer, void *buf, uint64_t bytes)
{
    return message(e, peer, 0, buf, bytes);
}

void tt_hier_start(struct tt_engine *e)
{
    tt_wire_start(e->wire, e->messages, e->n_messages);
    e->n_messages = 0;
}

tutti_result tt_hier_finish(struct tt_engine *e)
{
    return tt_wire_finish(e->wire);
}

tutti_result tt_hier_exchange(struct tt_engine *e)
{
    tt_hier_start(e);
    return tt_hier_finish(e);
}

/* ---- within the host ---- */

static uint64_t larger_side(const struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t size = tt_dtype_bytes(call->dtype), n = (uint64_t)e->n_local;
    uint64_t count = 0;

    if (call->send_counts)
        return UINT64_MAX;
    for (uint64_t r = 0; call->counts && r < n; r++)
        count += call->counts[r];
    if (call->counts)
        return count * size;
    if (call->coll == TT_COLL_ALL_REDUCE || call->coll == TT_COLL_BROADCAST)
        return call->count * size;
    return n * call->count * size;
}

tutti_result tt_hier_local(struct tt_engine *e, struct tt_call *call)
{
    const uint64_t bytes = larger_side(e, call);

    call->thread = TT_CALL_UNCOUNTED;
    call->algo = (enum tt_algo)tt_select_row(&e->select, call->coll, TT_TUNE_ORDINARY, bytes)->algo;
    call->window_algo =
        bytes >= e->select.direct_from[call->coll] ? TT_ALGO_DIRECT : TT_ALGO_ONE_SHOT;
    return e->ops->run(e->local_engine, call);
}

tutti_result tt_hier_meet_any(struct tt_engine *e, const struct tt_call *call, int *any)
{
    const uint64_t mine[3] = {(uint64_t)e->kind << 32 | e->check, call->count, *any != 0};
    uint64_t *all = (uint64_t *)(void *)e->scratch;
    struct tt_call gather = {.coll = TT_COLL_ALL_GATHER,
                             .dtype = TUTTI_DTYPE_U64,
                             .send = mine,
                             .recv = all,
                             .count = TT_LEN(mine)};
    char theirs[48];

    if (e->n_local == 1)
        return TUTTI_OK;
    TT_TRY(tt_hier_local(e, &gather));
    for (int i = 0; i < e->n_local; i++, all += TT_LEN(mine)) {
        const uint32_t kind = (uint32_t)(all[0] >> 32);

        *any |= all[2] != 0;
        if (all[0] == mine[0])
            continue;
        tt_cpu_call_text((kind & TT_WIRE_KIND_MASK) | (uint64_t)(kind >> TT_WIRE_KIND_BITS) << 25,
                         theirs, sizeof(theirs));
        return TT_FAIL(TUTTI_E_MISMATCH, "calls do not match: rank %d made %s (count %llu)",
                       tt_hier_member(e, e->host, i), theirs, (unsigned long long)all[1]);
    }
    return TUTTI_OK;
}

tutti_result tt_hier_meet(struct tt_engine *e, const struct tt_call *call)
{
    int any = 0;

    return tt_hier_meet_any(e, call, &any);
}

/* ---- arithmetic ---- */

/* Rounding partial results of 8-bit floats loses too much; averages of integers must not wrap before
 * they are divided, nor those of f16 overflow. */
int tt_hier_is_flat(const struct tt_call *call)
{
    const tutti_op op = call->op;

    if (op == TUTTI_OP_MAX || op == TUTTI_OP_MIN)
        return 0;
    switch (call->dtype) {
    case TUTTI_DTYPE_E4M3:
    case TUTTI_DTYPE_E5M2: return 1;
    case TUTTI_DTYPE_I8:
    case TUTTI_DTYPE_U8:
    case TUTTI_DTYPE_I32:
    case TUTTI_DTYPE_U32: return op == TUTTI_OP_AVG;
    case TUTTI_DTYPE_I64:
    case TUTTI_DTYPE_U64: return 0;
    case TUTTI_DTYPE_F16: return op == TUTTI_OP_AVG || call->algo == TT_ALGO_FLAT;
    default: return call->algo == TT_ALGO_FLAT;
    }
}

static void fill_zeros(struct tt_engine *e, tutti_dtype dtype)
{
    const size_t size = tt_dtype_bytes(dtype);
    const int is_integer = dtype == TUTTI_DTYPE_I64 || dtype == TUTTI_DTYPE_U64;

    memset(e->zeros, 0, TT_HIER_ZEROS);
    for (size_t i = size - 1; !is_integer && i < TT_HIER_ZEROS; i += size)
        e->zeros[i] = 0x80;
    e->zeros_dtype = (int)dtype;
}

/* The kernels divide by the number of sources: so there are as many as ranks, the rest of them zero. */
static void average(struct tt_engine *e, unsigned char *dst, const void *const partials[],
                    size_t count, tutti_dtype dtype)
{
    const size_t size = tt_dtype_bytes(dtype), most = TT_HIER_ZEROS / size;
    const void **sources = e->sources + e->n_ranks;

    if (e->zeros_dtype != (int)dtype)
        fill_zeros(e, dtype);
    for (int r = e->n_hosts; r < e->n_ranks; r++)
        sources[r] = e->zeros;
    for (size_t at = 0; at < count; at += most) {
        const size_t n = count - at < most ? count - at : most;

        for (int h = 0; h < e->n_hosts; h++)
            sources[h] = (const unsigned char *)partials[h] + at * size;
        e->kernels->reduce[dtype][TUTTI_OP_AVG](dst + at * size, NULL, sources, e->n_ranks, n, 0);
    }
}

void tt_hier_combine(struct tt_engine *e, void *dst, const void *const partials[], size_t count,
                     tutti_dtype dtype, tutti_op op)
{
    if (op == TUTTI_OP_AVG && e->n_ranks > e->n_hosts)
        average(e, dst, partials, count, dtype);
    else
        e->kernels->reduce[dtype][op](dst, NULL, partials, e->n_hosts, count, 0);
}

/* ---- among the hosts ---- */

/* Few hosts: everybody to everybody, one exchange. Many: log2 of them, each with twice the data of the
 * last. Block i of scratch is that of the i'th host after this one. */
tutti_result tt_hier_gather_hosts(struct tt_engine *e, const void *mine, size_t bytes,
                                  const void *blocks_out[])
{
    const int n = e->n_hosts;
    unsigned char *to = e->scratch;

    for (int i = 0; i < n; i++)
        blocks_out[(e->host + i) % n] = i == 0 ? mine : to + (size_t)i * bytes;
    if (n <= DIRECT_HOSTS) {
        for (int i = 1; i < n; i++) {
            tt_hier_send(e, tt_hier_partner(e, (e->host + n - i) % n), mine, bytes);
            tt_hier_recv(e, tt_hier_partner(e, (e->host + i) % n), to + (size_t)i * bytes, bytes);
        }
        return tt_hier_exchange(e);
    }
    if (bytes)
        memcpy(to, mine, bytes);
    for (int have = 1; have < n; have *= 2) {
        const size_t more = (size_t)(have < n - have ? have : n - have) * bytes;

        tt_hier_send(e, tt_hier_partner(e, (e->host + n - have) % n), to, more);
        tt_hier_recv(e, tt_hier_partner(e, (e->host + have) % n), to + (size_t)have * bytes, more);
        TT_TRY(tt_hier_exchange(e));
    }
    return TUTTI_OK;
}
