/* Dividing a communicator: its members find each other through it, so no network is needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "boot/boot.h"
#include "coll/comm.h"

#define TEXT_BYTES 320

struct member {
    int32_t color, key, rank;
};

/* Whether a member can go on, and if not, why. */
struct word {
    int32_t result, rank; /* who says so, among the members */
    char text[TEXT_BYTES];
};

struct split {
    tutti_comm *parent;
    struct member *members; /* of one color, in the order of their new ranks */
    int rank, n;            /* mine among them, and how many they are */
    struct tt_p2p *ops;     /* [n], as `words` */
    struct word *words;     /* of all members, at the first one */
    tutti_result failed;    /* all members know it, or the parent has: nobody listens any more */
};

/* The first member sends to all others or receives from all, the others to or from it. Records lie
 * `stride` apart. */
static tutti_result talk(struct split *s, int is_send, void *buf, size_t bytes, size_t stride)
{
    const int n_ops = s->rank == 0 ? s->n - 1 : 1;

    for (int i = 0; i < n_ops; i++) {
        const int peer = s->rank == 0 ? i + 1 : 0;

        s->ops[i] = (struct tt_p2p){.buf = (unsigned char *)buf + (size_t)i * stride,
                                    .bytes = bytes,
                                    .peer = s->members[peer].rank,
                                    .is_send = is_send,
                                    .dtype = TUTTI_DTYPE_U8};
    }
    return s->parent->control_ops->run_p2p(s->parent->control, s->ops, (size_t)n_ops);
}

/* The first failure. That somebody is gone is what others find when a member has left for a reason of its
 * own, which is worth more. */
static struct word judge(const struct split *s)
{
    struct word verdict = s->words[0];

    for (int i = 1; i < s->n; i++)
        if (s->words[i].result != TUTTI_OK &&
            (verdict.result == TUTTI_OK ||
             (verdict.result == TUTTI_E_PEER && s->words[i].result != TUTTI_E_PEER)))
            verdict = s->words[i];
    return verdict;
}

/* Do all members go on? A member that has failed asks instead of taking part in the next exchange, or at the
 * end, so all fail in the same step, and the parent is as good as before. */
static tutti_result agree(struct split *s, tutti_result mine)
{
    struct word own = {.result = mine, .rank = s->rank}, verdict;

    if (mine != TUTTI_OK)
        snprintf(own.text, sizeof(own.text), "%s", tt_error_text());
    s->words[0] = own; /* a member that is not the first has no more */
    s->failed = talk(s, s->rank > 0, s->words + (s->rank == 0), sizeof(own), sizeof(own));
    verdict = s->rank == 0 ? judge(s) : own;
    if (s->failed == TUTTI_OK)
        s->failed = talk(s, s->rank == 0, &verdict, sizeof(verdict), 0);
    if (s->failed != TUTTI_OK)
        return s->failed;
    verdict.text[TEXT_BYTES - 1] = 0; /* it may have come from another host */
    if (verdict.result > TUTTI_OK || verdict.rank < 0 || verdict.rank >= s->n)
        verdict =
            (struct word){.result = TUTTI_E_INTERNAL, .text = "an answer that makes no sense"};
    s->failed = (tutti_result)verdict.result;
    if (mine != TUTTI_OK && (mine != TUTTI_E_PEER || verdict.rank == s->rank))
        return TT_FAIL(mine, "%s", own.text);
    if (s->failed != TUTTI_OK)
        return TT_FAIL(s->failed, "rank %d (%d of %s) gave up: %s", verdict.rank,
                       s->members[verdict.rank].rank, s->parent->name, verdict.text);
    return TUTTI_OK;
}

/* An all-gather among the members: the first collects the records and hands them all out. */
static tutti_result member_all_gather(void *context, const void *send, void *recv, size_t bytes)
{
    struct split *s = context;
    unsigned char *own = (unsigned char *)recv + (size_t)s->rank * bytes;

    memmove(own, send, bytes);
    TT_TRY(agree(s, TUTTI_OK));
    s->failed = talk(s, s->rank > 0, s->rank > 0 ? own : own + bytes, bytes, bytes);
    if (s->failed == TUTTI_OK)
        s->failed = talk(s, s->rank == 0, recv, (size_t)s->n * bytes, 0);
    return s->failed;
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
                                      .tune_file = comm->tune_file};

    snprintf(name, sizeof(name), "%.20s.%u.%d", comm->name, comm->n_splits % 1000, color % 10000);
    derive_key(comm, color, key);
    return tt_comm_build(&config, &x, key, comm->has_route ? &comm->route : NULL, comm_out);
}

/* All members have the new communicator, or none. */
static tutti_result build_all(tutti_comm *comm, struct split *s, int color, tutti_comm **comm_out)
{
    tutti_comm *child = NULL;
    tutti_result res = build(comm, s, color, &child);

    if (s->failed == TUTTI_OK)
        res = agree(s, res);
    if (res == TUTTI_OK)
        *comm_out = child;
    else
        tt_comm_destroy(child);
    return res;
}

/* Has every rank the memory that it needs to hear what the others say? A rank that has none says so, in a call
 * that needs none, or the others would wait for it until the deadline. */
static tutti_result all_have_memory(tutti_comm *comm, int have)
{
    const int32_t mine = have ? -1 : comm->rank;
    int32_t without = -1;
    const struct tt_call call = {.coll = TT_COLL_ALL_REDUCE,
                                 .algo = TT_ALGO_ONE_SHOT,
                                 .window_algo = TT_ALGO_ONE_SHOT,
                                 .dtype = TUTTI_DTYPE_I32,
                                 .op = TUTTI_OP_MAX,
                                 .send = &mine,
                                 .recv = &without,
                                 .count = 1,
                                 .thread = TT_CALL_UNCOUNTED,
                                 .purpose = TT_FOR_SPLIT};

    TT_TRY(comm->control_ops->run(comm->control, &call));
    if (!have)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d members", comm->n_ranks);
    if (without >= 0)
        return TT_FAIL(TUTTI_E_MEMORY, "rank %d of %s gave up: no memory for %d members", without,
                       comm->name, comm->n_ranks);
    return TUTTI_OK;
}

tutti_result tt_comm_split(tutti_comm *comm, int color, int key, tutti_comm **comm_out)
{
    const size_t n = (size_t)comm->n_ranks;
    const struct member mine = {color, key, comm->rank};
    struct split s = {.parent = comm,
                      .members = calloc(n, sizeof(*s.members)),
                      .ops = calloc(n, sizeof(*s.ops)),
                      .words = calloc(n, sizeof(*s.words))};
    tutti_comm *child = NULL;
    tutti_result res;

    res = all_have_memory(comm, s.members && s.ops && s.words);
    if (res != TUTTI_OK)
        goto out;
    res = tt_comm_exchange(comm, TT_FOR_SPLIT, 0, &mine, s.members, sizeof(mine));
    comm->n_splits++;
    if (res == TUTTI_OK && color >= 0) {
        s.n = pick(s.members, comm->n_ranks, color);
        while (s.members[s.rank].rank != comm->rank)
            s.rank++;
        res = build_all(comm, &s, color, &child);
    }
    if (res == TUTTI_OK)
        *comm_out = child;
out:
    free(s.words);
    free(s.ops);
    free(s.members);
    return res;
}
