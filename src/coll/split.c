/* Dividing a communicator: its members find each other through it, so no network is needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "boot/boot.h"
#include "coll/comm.h"

struct member {
    int32_t color, key, rank;
};

struct split {
    tutti_comm *parent;
    const struct member *members; /* of one color, in the order of their new ranks */
    int rank, n;                  /* mine among them, and how many they are */
};

static struct tt_p2p p2p(const struct split *s, int peer, int is_send, void *buf, size_t bytes)
{
    return (struct tt_p2p){.buf = buf,
                           .bytes = bytes,
                           .peer = s->members[peer].rank,
                           .is_send = is_send,
                           .dtype = TUTTI_DTYPE_U8};
}

/* An all-gather among the members: the first collects the records and hands them all out. */
static tutti_result member_all_gather(void *context, const void *send, void *recv, size_t bytes)
{
    const struct split *s = context;
    const size_t others = (size_t)s->n - 1, all = (size_t)s->n * bytes;
    struct tt_p2p *ops = calloc(others + 2, sizeof(*ops));
    tutti_result res;

    if (!ops)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to exchange records of %d ranks", s->n);
    memmove((unsigned char *)recv + (size_t)s->rank * bytes, send, bytes);
    if (s->rank == 0) {
        for (size_t i = 0; i < others; i++)
            ops[i] = p2p(s, (int)i + 1, 0, (unsigned char *)recv + (i + 1) * bytes, bytes);
        res = s->parent->control_ops->run_p2p(s->parent->control, ops, others);
        for (size_t i = 0; i < others; i++)
            ops[i] = p2p(s, (int)i + 1, 1, recv, all);
        if (res == TUTTI_OK)
            res = s->parent->control_ops->run_p2p(s->parent->control, ops, others);
    } else {
        ops[0] = p2p(s, 0, 1, (unsigned char *)recv + (size_t)s->rank * bytes, bytes);
        res = s->parent->control_ops->run_p2p(s->parent->control, ops, 1);
        ops[0] = p2p(s, 0, 0, recv, all);
        if (res == TUTTI_OK)
            res = s->parent->control_ops->run_p2p(s->parent->control, ops, 1);
    }
    free(ops);
    return res;
}

static int member_order(const void *a, const void *b)
{
    const struct member *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Keep the members of `color` at the front of the list, in order; how many there are. */
static int pick(struct member *members, int n, int color)
{
    int m = 0;

    for (int r = 0; r < n; r++)
        if (members[r].color == color)
            members[m++] = members[r];
    qsort(members, (size_t)m, sizeof(*members), member_order);
    return m;
}

static void derive_key(const tutti_comm *comm, int color, unsigned char key[32])
{
    char text[64];

    snprintf(text, sizeof(text), "split %u color %d", comm->n_splits, color);
    tt_hmac_sha256(comm->key, sizeof(comm->key), text, strlen(text), key);
}

static tutti_result build(tutti_comm *comm, struct split *s, int color, tutti_comm **comm_out)
{
    char name[32];
    unsigned char key[32];
    const struct tt_exchange x = {.rank = s->rank,
                                  .n_ranks = s->n,
                                  .all_gather = member_all_gather,
                                  .context = s,
                                  .deadline_ns = tt_now_ns() + comm->timeout_ms * 1000000};
    const tutti_comm_config config = {.size = sizeof(config),
                                      .rank = s->rank,
                                      .n_ranks = s->n,
                                      .device = comm->device,
                                      .device_index = comm->device_index,
                                      .timeout_ms = comm->timeout_ms,
                                      .scratch_bytes = comm->scratch_bytes,
                                      .name = name,
                                      .algorithm = comm->algorithm,
                                      .tune_file = ""};

    snprintf(name, sizeof(name), "%.20s.%u.%d", comm->name, comm->n_splits % 1000, color % 10000);
    derive_key(comm, color, key);
    return tt_comm_build(&config, &x, key, comm->has_route ? &comm->route : NULL, comm_out);
}

tutti_result tt_comm_split(tutti_comm *comm, int color, int key, tutti_comm **comm_out)
{
    const struct member mine = {color, key, comm->rank};
    struct member *members = calloc((size_t)comm->n_ranks, sizeof(*members));
    struct split s = {.parent = comm, .members = members};
    tutti_comm *child = NULL;
    tutti_result res;

    if (!members)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d members", comm->n_ranks);
    res = tt_comm_all_gather(comm, &mine, members, sizeof(mine));
    comm->n_splits++;
    if (res == TUTTI_OK && color >= 0) {
        s.n = pick(members, comm->n_ranks, color);
        while (members[s.rank].rank != comm->rank)
            s.rank++;
        res = build(comm, &s, color, &child);
    }
    free(members);
    if (res == TUTTI_OK)
        *comm_out = child;
    return res;
}
