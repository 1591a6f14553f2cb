/*
 * Memory of every rank, mapped by every rank. The ranks show each other offers, then pass descriptors,
 * a round for each piece that anybody has, and compare notes at the end: all succeed or none. Between
 * the first exchange and the last a rank that has failed goes on taking part, and gives what it has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cuda/share_agree.h"
#include "cuda/share_map.h"

/* ---- comparing notes ---- */

tutti_result tt_cuda_exchange(struct tt_engine *e, const void *send, void *recv, size_t bytes)
{
    tutti_result result;

    if (e->n_ranks == 1) {
        memcpy(recv, send, bytes);
        return TUTTI_OK;
    }
    e->exchange.deadline_ns = tt_now_ns() + e->timeout_ns;
    result = e->exchange.all_gather(e->exchange.context, send, recv, bytes);
    if (result == TUTTI_E_PEER)
        tt_cuda_watch(e);
    return result;
}

struct verdict {
    int32_t result;
    char why[192];
};

static void put_why(char *why, size_t bytes, tutti_result result)
{
    memset(why, 0, bytes);
    if (result != TUTTI_OK)
        snprintf(why, bytes, "%s", tt_error_text());
}

/* Its own text is the fullest for the rank that has failed itself. */
static tutti_result fail_as(const struct tt_engine *e, int rank, int32_t result, const char *why,
                            size_t why_bytes, const char *what)
{
    const tutti_result code =
        result < 0 && result >= TUTTI_E_INTERNAL ? (tutti_result)result : TUTTI_E_INTERNAL;

    if (rank == e->rank)
        return TT_FAIL(code, "%s", tt_error_text());
    return TT_FAIL(code, "rank %d could not %s: %.*s", rank, what, (int)strnlen(why, why_bytes),
                   why);
}

tutti_result tt_cuda_agree(struct tt_engine *e, tutti_result mine, const char *what)
{
    struct verdict own = {.result = mine};
    struct verdict all[TT_CUDA_MAX_RANKS];
    tutti_result result;

    put_why(own.why, sizeof(own.why), mine);
    result = tt_cuda_exchange(e, &own, all, sizeof(own));
    if (result != TUTTI_OK)
        return mine != TUTTI_OK ? TT_FAIL(mine, "%s", own.why) : result;
    for (int r = 0; r < e->n_ranks; r++)
        if (all[r].result != TUTTI_OK)
            return fail_as(e, r, all[r].result, all[r].why, sizeof(all[r].why), what);
    return TUTTI_OK;
}

/* ---- offers ---- */

static tutti_result judge(const struct tt_engine *e, const struct tt_cuda_offer offers[])
{
    for (int r = 0; r < e->n_ranks; r++)
        if (offers[r].result != TUTTI_OK)
            return fail_as(e, r, offers[r].result, offers[r].why, sizeof(offers[r].why),
                           "share its memory");
    for (int r = 1; r < e->n_ranks; r++)
        if (offers[r].bytes != offers[0].bytes)
            return TT_FAIL(TUTTI_E_MISMATCH,
                           "rank %d shares %llu bytes and rank 0 shares %llu: they must be equal",
                           r, (unsigned long long)offers[r].bytes,
                           (unsigned long long)offers[0].bytes);
    for (int r = 0; r < e->n_ranks; r++)
        if (!tt_cuda_offer_is_sane(&offers[r]))
            return TT_FAIL(TUTTI_E_INTERNAL, "rank %d offers memory that cannot be", r);
    return TUTTI_OK;
}

static uint32_t n_rounds(const struct tt_engine *e, const struct tt_cuda_offer offers[])
{
    uint32_t n = 0;

    for (int r = 0; r < e->n_ranks && e->n_ranks > 1; r++)
        n = offers[r].n_pieces > n ? offers[r].n_pieces : n;
    return n;
}

/* ---- mapping ---- */

static tutti_result open_mesh(struct tt_engine *e)
{
    tutti_result result = TUTTI_OK;

    if (e->mesh)
        return TUTTI_OK;
    e->exchange.deadline_ns = tt_now_ns() + e->timeout_ns;
    result = tt_fd_mesh_open(&e->exchange, e->key, &e->mesh);
    result = tt_cuda_agree(e, result, "pass file descriptors");
    if (result != TUTTI_OK) {
        tt_fd_mesh_close(e->mesh);
        e->mesh = NULL;
    }
    return result;
}

static tutti_result map_pieces(struct tt_engine *e, const struct tt_cuda_offer offers[],
                               struct tt_cuda_mapping m[], uint32_t piece, int fds[])
{
    for (int r = 0; r < e->n_ranks; r++) {
        if (r == e->rank || piece >= offers[r].n_pieces)
            continue;
        if (fds[r] < 0)
            return TT_FAIL(TUTTI_E_SYSTEM, "rank %d gave no descriptor for its memory", r);
        TT_TRY(tt_cuda_map_piece(e->device, &offers[r], &m[r], fds[r]));
    }
    return TUTTI_OK;
}

/* Pass and map one piece of everybody's. *broken_out: there are no further rounds. */
static tutti_result do_round(struct tt_engine *e, const struct tt_cuda_offer offers[],
                             struct tt_cuda_mapping m[], uint32_t piece, tutti_result so_far,
                             int *broken_out)
{
    int fds[TT_CUDA_MAX_RANKS];
    tutti_result result = so_far, own = TUTTI_OK, passed;
    int fd = -1;

    if (piece < offers[e->rank].n_pieces) /* a failure of ours shall not be one of everybody's */
        own = tt_cuda_piece_export(&offers[e->rank], piece, &fd);
    if (result == TUTTI_OK)
        result = own;
    passed = tt_fd_mesh_exchange(e->mesh, ++e->mesh_round, fd, fds, tt_now_ns() + e->timeout_ns);
    if (fd >= 0)
        close(fd);
    *broken_out = tt_fd_mesh_is_over(passed);
    if (passed != TUTTI_OK)
        return result != TUTTI_OK ? result : passed;
    if (result == TUTTI_OK)
        result = map_pieces(e, offers, m, piece, fds);
    for (int r = 0; r < e->n_ranks; r++)
        if (fds[r] >= 0)
            close(fds[r]);
    return result;
}

static tutti_result map_all(struct tt_engine *e, const struct tt_cuda_offer offers[],
                            struct tt_cuda_mapping m[])
{
    const uint32_t rounds = n_rounds(e, offers);
    tutti_result result = TUTTI_OK;
    int broken = 0;

    if (rounds > 0)
        TT_TRY(open_mesh(e));
    for (int r = 0; r < e->n_ranks && result == TUTTI_OK; r++)
        if (r != e->rank)
            result = tt_cuda_map_begin(&offers[e->rank], &offers[r], &m[r]);
    for (uint32_t piece = 0; piece < rounds && !broken; piece++)
        result = do_round(e, offers, m, piece, result, &broken);
    return tt_cuda_agree(e, result, "map the memory of the others");
}

static void mappings_close(const struct tt_engine *e, struct tt_cuda_mapping *m)
{
    for (int r = 0; r < e->n_ranks; r++) {
        tt_cuda_unmap(&m[r]);
        tt_cuda_memory_free(&m[r].made);
    }
    free(m);
}

/* ptr[0 .. bytes) is this rank's; `mine` tells whether it has come so far. */
static tutti_result join(struct tt_engine *e, tutti_result mine, void *ptr, size_t bytes,
                         struct tt_cuda_mapping m[], struct tt_cuda_share *share_out)
{
    struct tt_cuda_offer *offers = calloc((size_t)e->n_ranks + 1, sizeof(*offers));
    tutti_result result;

    if (!offers)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to share memory");

    struct tt_cuda_offer *own = &offers[e->n_ranks];

    if (mine == TUTTI_OK)
        mine = tt_cuda_offer_make(e->device, ptr, bytes, own);
    own->result = mine;
    put_why(own->why, sizeof(own->why), mine);
    result = tt_cuda_exchange(e, own, offers, sizeof(*own));
    if (result == TUTTI_OK)
        result = judge(e, offers);
    if (result == TUTTI_OK)
        result = map_all(e, offers, m);
    if (result == TUTTI_OK && m) {
        memset(share_out, 0, sizeof(*share_out));
        for (int r = 0; r < e->n_ranks; r++)
            share_out->at[r] = r == e->rank ? ptr : m[r].base + offers[r].offset;
        share_out->bytes = bytes;
        share_out->mappings = m;
    }
    free(offers);
    return result;
}

/* In the device's scope. `own` is NULL: memory of the kind `sharing` is made first. */
static tutti_result share(struct tt_engine *e, void *own, size_t bytes,
                          enum tt_cuda_sharing sharing, struct tt_cuda_share *share_out)
{
    struct tt_cuda_mapping *m = calloc((size_t)e->n_ranks, sizeof(*m));
    tutti_result result = m ? TUTTI_OK : TT_FAIL(TUTTI_E_MEMORY, "no memory to share memory");

    if (result == TUTTI_OK && sharing != TT_CUDA_NOT_SHARED) {
        result = tt_cuda_memory_new(e->device, bytes, sharing, &m[e->rank].made);
        own = m[e->rank].made.ptr;
    }
    result = join(e, result, own, bytes, m, share_out);
    if (result != TUTTI_OK && m)
        mappings_close(e, m);
    return result;
}

tutti_result tt_cuda_share_alloc(struct tt_engine *engine, size_t bytes,
                                 struct tt_cuda_share *share_out)
{
    struct tt_cuda_scope scope;
    tutti_result result;

    TT_TRY(tt_cuda_scope_enter(engine->device, &scope));
    result = share(engine, NULL, bytes, TT_CUDA_VMM, share_out);
    if (result == TUTTI_E_UNSUPPORTED || result == TUTTI_E_SYSTEM) { /* so all ranks say */
        TT_LOG(TUTTI_LOG_INFO, engine->rank, engine->n_ranks,
               "GPU memory is shared by IPC handles, because: %s", tt_error_text());
        result = share(engine, NULL, bytes, TT_CUDA_IPC, share_out);
    }
    tt_cuda_scope_leave(&scope);
    return result;
}

tutti_result tt_cuda_share_existing(struct tt_engine *engine, void *ptr, size_t bytes,
                                    struct tt_cuda_share *share_out)
{
    struct tt_cuda_scope scope;
    tutti_result result;

    TT_TRY(tt_cuda_scope_enter(engine->device, &scope));
    result = share(engine, ptr, bytes, TT_CUDA_NOT_SHARED, share_out);
    tt_cuda_scope_leave(&scope);
    return result;
}

void tt_cuda_share_close(struct tt_engine *engine, struct tt_cuda_share *share)
{
    struct tt_cuda_scope scope;

    if (!share->mappings || tt_cuda_scope_enter(engine->device, &scope) != TUTTI_OK)
        return;
    mappings_close(engine, share->mappings);
    tt_cuda_scope_leave(&scope);
    memset(share, 0, sizeof(*share));
}

/* ---- the proof ---- */

static uint64_t word_of(int from, int to)
{
    return UINT64_C(0x7475747469000000) ^ (uint64_t)(uint32_t)from << 12 ^ (uint64_t)(uint32_t)to;
}

static tutti_result write_words(const struct tt_engine *e, const struct tt_cuda_share *share)
{
    for (int r = 0; r < e->n_ranks; r++) {
        const uint64_t word = word_of(e->rank, r);

        TT_TRY(tt_cuda_write(share->at[r] + (size_t)e->rank * sizeof(word), &word, sizeof(word)));
    }
    return TUTTI_OK;
}

static tutti_result check_words(const struct tt_engine *e, const struct tt_cuda_share *share)
{
    uint64_t here[TT_CUDA_MAX_RANKS], there;

    TT_TRY(tt_cuda_read(here, share->at[e->rank], (size_t)e->n_ranks * sizeof(*here)));
    for (int r = 0; r < e->n_ranks; r++) {
        if (here[r] != word_of(r, e->rank))
            return TT_FAIL(TUTTI_E_SYSTEM,
                           "what rank %d wrote to the GPU memory of rank %d did not arrive: see "
                           "nvidia-smi topo -p2p rw, and IOMMU or ACS settings",
                           r, e->rank);
        TT_TRY(tt_cuda_read(&there, share->at[r] + (size_t)e->rank * sizeof(there), sizeof(there)));
        if (there != word_of(e->rank, r))
            return TT_FAIL(TUTTI_E_SYSTEM, "rank %d cannot read the GPU memory of rank %d", e->rank,
                           r);
    }
    return TUTTI_OK;
}

tutti_result tt_cuda_share_verify(struct tt_engine *engine, const struct tt_cuda_share *share)
{
    const size_t bytes = (size_t)engine->n_ranks * sizeof(uint64_t);
    static const char what[] = "prove that GPU memory is shared";
    struct tt_cuda_scope scope;
    tutti_result result;

    if (share->bytes < bytes)
        return TT_FAIL(TUTTI_E_INTERNAL, "%zu bytes are too few to verify", share->bytes);
    TT_TRY(tt_cuda_scope_enter(engine->device, &scope));
    result = tt_cuda_agree(engine, write_words(engine, share), what);
    if (result == TUTTI_OK)
        result = tt_cuda_agree(engine, check_words(engine, share), what);
    if (result == TUTTI_OK) /* nobody looks any more */
        result = tt_cuda_agree(engine, tt_cuda_fill(share->at[engine->rank], 0, bytes), what);
    tt_cuda_scope_leave(&scope);
    return result;
}
