/*
 * Calls whose counts lie in memory of the communicator, where that is the host's: the counts are read,
 * told to all ranks, and make an ordinary call. On GPUs the kernels do all this.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "coll/comm.h"
#include "cpu/cpu_engine.h"

struct counted {
    tutti_comm *comm;
    const struct tt_call *given;
    const tutti_device_counts *counts;
    size_t n;               /* ranks */
    size_t n_words;         /* counts that each rank tells */
    uint64_t *mine, *all;   /* [n_words + 1], [n][n_words + 1]: and whether it wants gaps */
    size_t *sent, *sent_at; /* [n], in elements, as an ordinary call wants them */
    size_t *received, *received_at;
    void **blocks;
};

/* A rank tells what it sends; of a reduce_scatterv, whose counts all have, its largest. */
static void tell(struct counted *k)
{
    const uint64_t *given = k->counts->counts;

    for (size_t i = 0; i < k->n_words; i++)
        k->mine[i] = given[i];
    for (size_t r = 1; k->given->coll == TT_COLL_REDUCE_SCATTER && r < k->n; r++)
        k->mine[0] = given[r] > k->mine[0] ? given[r] : k->mine[0];
    k->mine[k->n_words] = k->counts->recv_stride > 0;
}

static uint64_t told(const struct counted *k, size_t r, size_t word)
{
    return k->all[r * (k->n_words + 1) + word];
}

/* What all ranks have to give alike: by the counts that one of them refuses the others would wait for it. */
static uint32_t alike(const struct counted *k)
{
    const struct tt_call *call = k->given;
    size_t words[6 + TUTTI_MAX_ROW_PARTS] = {call->coll,           call->dtype,     call->op,
                                             k->counts->max_count, k->counts->unit, call->n_parts};

    for (size_t p = 0; p < call->n_parts; p++)
        words[6 + p] = call->parts[p].row_bytes;
    return (uint32_t)tt_cpu_counts_hash(words, TT_LEN(words));
}

/* All ranks have the same words before them, and say the same. */
static tutti_result check(const struct counted *k)
{
    for (size_t i = 0; k->counts->received && i < k->n; i++)
        k->counts->received[i] = 0;
    for (size_t i = 0; i < k->n * k->n_words; i++)
        if (told(k, i / k->n_words, i % k->n_words) > k->counts->max_count)
            return TT_FAIL(TUTTI_E_ARG,
                           "rank %zu has a count of %" PRIu64
                           ", above max_count %zu; nothing was moved on any rank: raise max_count",
                           i / k->n_words, told(k, i / k->n_words, i % k->n_words),
                           k->counts->max_count);
    return TUTTI_OK;
}

/* Blocks of these sizes, in elements, begin there. */
static void place(const struct counted *k, size_t stride, const size_t sizes[], size_t at[])
{
    size_t end = 0;

    for (size_t r = 0; r < k->n; r++) {
        at[r] = stride > 0 ? r * stride * k->counts->unit : end;
        end += sizes[r];
    }
}

static tutti_result gather(struct counted *k, struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype);

    for (size_t r = 0; r < k->n; r++)
        k->received[r] = told(k, r, 0) * k->counts->unit;
    call->counts = k->received;
    if (k->counts->recv_stride == 0)
        return tt_coll_run(k->comm, call);
    place(k, k->counts->recv_stride, k->received, k->received_at);
    for (size_t r = 0; r < k->n; r++)
        k->blocks[r] = (unsigned char *)call->recv + k->received_at[r] * size;
    call->recv_blocks = k->blocks;
    return tt_coll_run(k->comm, call);
}

/* With gaps between the blocks, on whatever rank, one part after another. */
static tutti_result gather_rows(struct counted *k, struct tt_call *call)
{
    const size_t stride = k->counts->recv_stride;
    int gaps = 0;

    for (size_t r = 0; r < k->n; r++)
        gaps |= told(k, r, 1) != 0;
    if (!gaps)
        return gather(k, call);
    for (size_t p = 0; p < k->given->n_parts; p++) {
        const tutti_rows *part = &k->given->parts[p];
        struct tt_call one = *call;
        size_t before = 0;

        one.parts = NULL;
        one.n_parts = 0;
        one.send = part->send;
        one.counts = k->received;
        one.recv_blocks = k->blocks;
        for (size_t r = 0; r < k->n; r++) {
            k->received[r] = told(k, r, 0) * part->row_bytes;
            k->blocks[r] =
                (unsigned char *)part->recv + (stride > 0 ? r * stride * part->row_bytes : before);
            before += k->received[r];
        }
        TT_TRY(tt_coll_run(k->comm, &one));
    }
    return TUTTI_OK;
}

/* Across hosts blocks with gaps between them are brought together first. */
static tutti_result reduce_packed(struct counted *k, struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    size_t at = 0, total = 0;
    unsigned char *packed;
    tutti_result res;

    for (size_t r = 0; r < k->n; r++)
        total += k->sent[r];
    packed = malloc(total * size + 1);
    if (!packed)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu elements to be reduced", total);
    for (size_t r = 0; r < k->n; r++) {
        memcpy(packed + at * size, (const unsigned char *)call->send + k->sent_at[r] * size,
               k->sent[r] * size);
        at += k->sent[r];
    }
    call->send = packed;
    res = tt_coll_run(k->comm, call);
    free(packed);
    return res;
}

static tutti_result reduce(struct counted *k, struct tt_call *call)
{
    for (size_t r = 0; r < k->n; r++)
        k->sent[r] = k->counts->counts[r] * k->counts->unit;
    call->counts = k->sent;
    if (k->counts->send_stride == 0)
        return tt_coll_run(k->comm, call);
    place(k, k->counts->send_stride, k->sent, k->sent_at);
    if (k->comm->n_hosts > 1)
        return reduce_packed(k, call);
    call->send_displs = k->sent_at;
    return tt_coll_run(k->comm, call);
}

static tutti_result exchange(struct counted *k, struct tt_call *call)
{
    const size_t me = (size_t)k->comm->rank;

    for (size_t r = 0; r < k->n; r++) {
        k->sent[r] = k->mine[r] * k->counts->unit;
        k->received[r] = told(k, r, me) * k->counts->unit;
    }
    place(k, k->counts->send_stride, k->sent, k->sent_at);
    place(k, k->counts->recv_stride, k->received, k->received_at);
    call->send_counts = k->sent;
    call->send_displs = k->sent_at;
    call->recv_counts = k->received;
    call->recv_displs = k->received_at;
    return tt_coll_run(k->comm, call);
}

static tutti_result run(struct counted *k)
{
    struct tt_call call = *k->given;
    const size_t me = (size_t)k->comm->rank;

    call.device_counts = NULL;
    tell(k);
    TT_TRY(tt_comm_exchange(k->comm, TT_FOR_COUNTS, alike(k), k->mine, k->all,
                            (k->n_words + 1) * sizeof(*k->mine)));
    TT_TRY(check(k));
    for (size_t r = 0; k->counts->received && r < k->n; r++)
        k->counts->received[r] = told(k, r, k->n_words > 1 ? me : 0);
    switch (call.coll) {
    case TT_COLL_REDUCE_SCATTER: return reduce(k, &call);
    case TT_COLL_ALL_TO_ALL: return exchange(k, &call);
    default: return call.parts ? gather_rows(k, &call) : gather(k, &call);
    }
}

tutti_result tt_coll_run_counted(tutti_comm *comm, const struct tt_call *call)
{
    const size_t n = (size_t)comm->n_ranks;
    const size_t n_words = call->coll == TT_COLL_ALL_TO_ALL ? n : 1;
    struct counted k = {
        .comm = comm, .given = call, .counts = call->device_counts, .n = n, .n_words = n_words};
    size_t *sizes = malloc(4 * n * sizeof(*sizes));
    tutti_result res;

    k.mine = malloc((1 + n) * (n_words + 1) * sizeof(*k.mine));
    k.blocks = malloc(n * sizeof(*k.blocks));
    if (sizes && k.mine && k.blocks) {
        k.all = k.mine + n_words + 1;
        k.sent = sizes;
        k.sent_at = sizes + n;
        k.received = sizes + 2 * n;
        k.received_at = sizes + 3 * n;
        res = run(&k);
    } else {
        res = TT_FAIL(TUTTI_E_MEMORY, "no memory for the counts of %zu ranks", n);
    }
    free(sizes);
    free(k.mine);
    free(k.blocks);
    return res;
}
