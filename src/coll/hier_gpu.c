/* The engine for GPUs on several hosts: creating, describing and ending it, and its windows. */
#include "coll/hier_gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/proxy.h"
#include "base/sha256.h"
#include "coll/hier_gpu_parts.h"
#include "coll/select.h"

/* A slot of the stage holds a 64th of the scratch, 16 KiB to 1 MiB: a MiB is far more than what the time
 * of a message costs, and eight of them are little memory to pin. */
#define SLOT_SHARE    64u
#define SMALLEST_SLOT (UINT64_C(16) << 10)
#define LARGEST_SLOT  (UINT64_C(1) << 20)
#define DATA_SCRATCH  4u /* of the engine for host memory, in slots */
#define PARTIALS      4u /* on the GPU, in slots: as many chunks as may be under way */
#define MORE_NS       UINT64_C(1000000000)

/* ---- agreeing with all ranks ---- */

/* All ranks have managed, or all fail; who has failed by its own reason, even if the others have gone. */
static tutti_result agree(struct tt_engine *e, tutti_result mine, const char *what)
{
    const int32_t word = mine;
    int32_t all[TT_HIER_GPU_MAX_RANKS];
    tutti_result told;
    char text[256];

    snprintf(text, sizeof(text), "%s", mine == TUTTI_OK ? "" : tt_error_text());
    told = e->exchange.all_gather(e->exchange.context, &word, all, sizeof(word));
    if (mine != TUTTI_OK)
        return TT_FAIL(mine, "%s", text);
    TT_TRY(told);
    for (int r = 0; r < e->n_ranks; r++)
        if (all[r] != TUTTI_OK)
            return TT_FAIL((tutti_result)all[r], "rank %d could not %s: %s", r, what,
                           tt_result_text((tutti_result)all[r]));
    return TUTTI_OK;
}

/* ---- creating ---- */

static enum tt_presence presence(void *context, int local)
{
    return tt_hier_local_presence(context, local);
}

static void derive(const struct tt_engine_config *config, const char *purpose, int host,
                   unsigned char key[32])
{
    char text[64];

    snprintf(text, sizeof(text), "%s %d", purpose, host);
    tt_hmac_sha256(config->key, 32, text, strlen(text), key);
}

static tutti_result create_cuda(struct tt_engine *e, const struct tt_engine_config *config)
{
    const struct tt_hier_place *p = &e->place;
    const struct tt_exchange x = {.rank = p->local,
                                  .n_ranks = p->n_local,
                                  .all_gather = tt_hier_gather_local,
                                  .context = e->control,
                                  .deadline_ns = config->exchange->deadline_ns};
    struct tt_engine_config own = *config;
    unsigned char key[32];

    if (p->n_local > TT_CUDA_MAX_RANKS)
        return TT_FAIL(TUTTI_E_ARG, "%d GPU ranks on one host; there may be %d", p->n_local,
                       TT_CUDA_MAX_RANKS);
    derive(config, "tutti GPUs of host", p->host, key);
    own.rank = p->local;
    own.n_ranks = p->n_local;
    own.key = key;
    own.exchange = &x;
    own.presence = presence;
    own.labels = p->members + p->first[p->host];
    return tt_cuda_engine.create(&own, &e->cuda);
}

/* Who waits for a GPU of its own host is the first to give up, and to say who is missing. So that it can
 * say so, every rank has talked to some of every rail. */
static tutti_result create_data(struct tt_gpu_lane *lane, const struct tt_engine_config *config)
{
    const struct tt_call barrier = {.coll = TT_COLL_BARRIER, .dtype = TUTTI_DTYPE_U8};
    const struct tt_engine *e = lane->e;
    struct tt_engine_config own = *config;
    unsigned char key[32];
    char gpu[32];

    derive(config, "tutti data between hosts", lane->number, key);
    tt_cuda_place(e->cuda, gpu, sizeof(gpu));
    own.gpu = gpu;
    own.scratch_bytes = DATA_SCRATCH * e->slot_bytes;
    own.key = key;
    own.timeout_ns += own.timeout_ns / 4 < MORE_NS ? own.timeout_ns / 4 : MORE_NS;
    TT_TRY(tt_hier_engine.create(&own, &lane->data));
    return tt_hier_engine.run(lane->data, &barrier);
}

/* Rank 0's wishes are everybody's; its scratch_bytes are already. A message's window in a slot's share must hold a
 * packet. */
static tutti_result agree_on_sizes(struct tt_engine *e, const struct tt_engine_config *config)
{
    const uint64_t least = (uint64_t)e->n_ranks * TT_CUDA_STAGE_LEAST / TT_CUDA_STAGE_SLOTS;
    uint64_t mine = 0, all[TT_HIER_GPU_MAX_RANKS];
    const tutti_result res = tt_env_number(TT_ENV_TUTTI_NET_PROXIES, &mine);

    TT_TRY(agree(e, res, "read TUTTI_NET_PROXIES"));
    if (mine == 0)
        mine = tt_proxy_share(config->n_nearby, TT_GPU_LANES);
    TT_TRY(e->exchange.all_gather(e->exchange.context, &mine, all, sizeof(mine)));
    e->slot_bytes = SMALLEST_SLOT;
    while (e->slot_bytes < LARGEST_SLOT &&
           (e->slot_bytes < least || 2 * e->slot_bytes <= config->scratch_bytes / SLOT_SHARE))
        e->slot_bytes *= 2;
    e->n_lanes = all[0] < TT_GPU_LANES ? (int)all[0] : TT_GPU_LANES;
    return TUTTI_OK;
}

static tutti_result make_lane(struct tt_engine *e, int number)
{
    struct tt_gpu_lane *lane = &e->lanes[number];
    const size_t n = (size_t)e->n_ranks;

    lane->e = e;
    lane->number = number;
    lane->places = calloc(n, sizeof(*lane->places));
    lane->counts = calloc(4 * n, sizeof(*lane->counts));
    lane->streams = calloc(TT_CUDA_STAGE_BLOCKS, sizeof(*lane->streams));
    lane->stage_index = calloc(TT_CUDA_STAGE_BLOCKS, sizeof(*lane->stage_index));
    return lane->places && lane->counts && lane->streams && lane->stage_index
               ? TUTTI_OK
               : TT_FAIL(TUTTI_E_MEMORY, "no memory for calls among %zu ranks", n);
}

static tutti_result make_workspace(struct tt_engine *e)
{
    const size_t n = (size_t)e->n_ranks;

    e->counts = calloc(4 * n, sizeof(*e->counts));
    e->blocks = calloc(n, sizeof(*e->blocks));
    e->words = calloc((1 + n) * n, sizeof(*e->words));
    if (!e->counts || !e->blocks || !e->words)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for calls among %zu ranks", n);
    for (int k = 0; k < e->n_lanes; k++)
        TT_TRY(make_lane(e, k));
    return TUTTI_OK;
}

static tutti_result make_partials(struct tt_engine *e)
{
    void *memory;

    e->partial_bytes = PARTIALS * e->slot_bytes; /* on all ranks, for they cut alike */
    if (e->place.n_local == 1)
        return TUTTI_OK;
    TT_TRY(tt_cuda_engine.mem_alloc(e->cuda, e->partial_bytes, &memory));
    e->partials = memory;
    return TUTTI_OK;
}

static tutti_result start_proxies(struct tt_engine *e)
{
    TT_TRY(tt_cuda_stage_open(e->cuda, e->slot_bytes, &e->stage));
    TT_TRY(tt_cuda_side_open(e->cuda, &e->side));
    return tt_gpu_lanes_start(e);
}

static tutti_result set_up(struct tt_engine *e, const struct tt_engine_config *config)
{
    struct tt_engine_info cuda = {0}, data = {0};

    TT_TRY(agree_on_sizes(e, config));
    TT_TRY(make_workspace(e));
    TT_TRY(agree(e, create_cuda(e, config), "set up its GPU"));
    TT_TRY(agree(e, make_partials(e), "find memory for partial results"));
    for (int k = 0; k < e->n_lanes; k++)
        TT_TRY(agree(e, create_data(&e->lanes[k], config), "reach the others"));
    e->data = e->lanes[0].data;
    TT_TRY(agree(e, start_proxies(e), "start its proxies"));
    tt_cuda_engine.info(e->cuda, &cuda);
    tt_hier_engine.info(e->data, &data);
    snprintf(e->details, sizeof(e->details), "%s; between hosts: chunks of %llu KiB, %d %s; %s",
             cuda.details, (unsigned long long)e->slot_bytes >> 10, e->n_lanes,
             e->n_lanes == 1 ? "proxy" : "proxies", data.details);
    return TUTTI_OK;
}

static void free_lane(struct tt_gpu_lane *lane)
{
    if (lane->data)
        tt_hier_engine.destroy(lane->data);
    free(lane->places);
    free(lane->counts);
    free(lane->streams);
    free(lane->stage_index);
}

/* Kernels end first, then the threads that serve them, then what both use. */
static void engine_destroy(struct tt_engine *e)
{
    if (!e)
        return;
    atomic_store(&e->is_stopping, 1);
    if (e->cuda)
        tt_cuda_end(e->cuda, TUTTI_E_ABORTED);
    if (atomic_load(&e->is_busy))
        tt_gpu_lanes_abort(e);
    tt_gpu_lanes_stop(e);
    tt_cuda_side_close(e->side);
    tt_cuda_stage_close(e->stage);
    if (e->partials)
        (void)tt_cuda_engine.mem_free(e->cuda, e->partials);
    if (e->cuda)
        tt_cuda_engine.destroy(e->cuda);
    for (int k = 0; k < e->n_lanes; k++)
        free_lane(&e->lanes[k]);
    while (e->records)
        tt_gpu_record_drop(e, e->records);
    pthread_mutex_destroy(&e->lock);
    pthread_mutex_destroy(&e->job.lock);
    free(e->counts);
    free(e->blocks);
    free(e->words);
    free(e);
}

static tutti_result engine_create(const struct tt_engine_config *config,
                                  struct tt_engine **engine_out)
{
    struct tt_engine *e = calloc(1, sizeof(*e));
    tutti_result res;

    if (!e)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a communicator of %d ranks", config->n_ranks);
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->job.lock, NULL);
    e->rank = config->rank;
    e->n_ranks = config->n_ranks;
    e->timeout_ns = config->timeout_ns;
    e->exchange = *config->exchange;
    e->control = config->control;
    e->place = tt_hier_place(config->control);
    res = set_up(e, config);
    if (res == TUTTI_OK)
        *engine_out = e;
    else
        engine_destroy(e);
    return res;
}

struct tt_engine *tt_hier_gpu_local(struct tt_engine *e)
{
    return e->cuda;
}

tutti_result tt_hier_gpu_choose(struct tt_engine *e, const char *algorithm)
{
    const int algo = algorithm[0] ? tt_algo_from_name(algorithm) : TT_ALGO_AUTO;

    if (algo < 0 || algo == TT_ALGO_XMEM)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "algorithm %s is for host memory; on GPUs of several hosts there are "
                       "one_shot, two_shot and direct within a host, and flat",
                       algorithm);
    e->algo = algo == TT_ALGO_FLAT ? TT_ALGO_AUTO : (enum tt_algo)algo;
    return TUTTI_OK;
}

/* ---- ending, looking inside ---- */

static void engine_abort(struct tt_engine *e)
{
    tt_gpu_lanes_abort(e);
    tt_cuda_engine.abort(e->cuda);
}

static void engine_state(const struct tt_engine *e, tutti_comm_state *state)
{
    tutti_comm_state cuda = {.size = sizeof(cuda)};

    tt_cuda_engine.state(e->cuda, &cuda);
    tt_hier_engine.state(e->data, state);
    if (atomic_load(&e->has_refused)) {
        state->result = e->refusal;
        state->peer = e->refusal_peer;
        snprintf(state->text, sizeof(state->text), "%s", e->refusal_text);
    } else if (state->result == TUTTI_OK) {
        *state = cuda;
    }
    state->sequence = cuda.sequence;
}

static void engine_info(const struct tt_engine *e, struct tt_engine_info *info)
{
    struct tt_engine_info data = {0};

    tt_cuda_engine.info(e->cuda, info);
    tt_hier_engine.info(e->data, &data);
    info->memory_bytes += e->partial_bytes + (uint64_t)e->n_lanes * data.memory_bytes +
                          tt_cuda_stage_memory(e->stage);
    info->details = e->details;
}

/* Of ranks of other hosts nothing is known, as of any other rank's. */
static void engine_stats(const struct tt_engine *e, int rank, tutti_stats *stats)
{
    tt_cuda_engine.stats(e->cuda, rank == e->rank ? e->place.local : -1, stats);
    stats->rank = rank;
    for (int k = 0; k < e->n_lanes && rank == e->rank; k++)
        stats->n_refused += *tt_hier_refused(e->lanes[k].data);
}

/* ---- memory: windows help the steps within a host ---- */

static tutti_result engine_mem_alloc(struct tt_engine *e, size_t bytes, void **ptr_out)
{
    return tt_cuda_engine.mem_alloc(e->cuda, bytes, ptr_out);
}

static tutti_result engine_mem_free(struct tt_engine *e, void *ptr)
{
    return tt_cuda_engine.mem_free(e->cuda, ptr);
}

/* The bytes of a host's ranks the CUDA engine compares. */
static tutti_result agree_on_bytes(struct tt_engine *e, size_t bytes)
{
    const uint64_t mine = bytes;
    uint64_t all[TT_HIER_GPU_MAX_RANKS];

    TT_TRY(e->exchange.all_gather(e->exchange.context, &mine, all, sizeof(mine)));
    for (int r = 0; r < e->n_ranks; r++)
        if (all[r] != mine)
            return TT_FAIL(TUTTI_E_MISMATCH,
                           "window_register of %zu bytes on rank %d meets one of %llu on rank %d",
                           bytes, e->rank, (unsigned long long)all[r], r);
    return TUTTI_OK;
}

static tutti_result engine_window_register(struct tt_engine *e, void *ptr, size_t bytes,
                                           tutti_window **window_out)
{
    tutti_window *window = NULL;
    tutti_result mine, res;
    char text[256];

    TT_TRY(agree_on_bytes(e, bytes));
    mine = tt_cuda_engine.window_register(e->cuda, ptr, bytes, &window);
    res = agree(e, mine, "register its memory");
    if (res == TUTTI_OK)
        *window_out = window;
    if (res == TUTTI_OK || mine != TUTTI_OK)
        return res;
    snprintf(text, sizeof(text), "%s", tt_error_text());
    (void)tt_cuda_engine.window_deregister(e->cuda, window);
    return TT_FAIL(res, "%s", text);
}

static tutti_result engine_window_deregister(struct tt_engine *e, tutti_window *window)
{
    return tt_cuda_engine.window_deregister(e->cuda, window);
}

static tutti_window *engine_window_find(struct tt_engine *e, const void *ptr, size_t bytes)
{
    return tt_cuda_engine.window_find(e->cuda, ptr, bytes);
}

static void *engine_window_at(struct tt_engine *e, const tutti_window *window, int rank)
{
    const int *members = e->place.members + e->place.first[e->place.host];

    for (int i = 0; i < e->place.n_local; i++)
        if (members[i] == rank)
            return tt_cuda_engine.window_at(e->cuda, window, i);
    return NULL;
}

const struct tt_engine_ops tt_hier_gpu_engine = {
    .size = sizeof(struct tt_engine_ops),
    .name = "cuda hosts",
    .create = engine_create,
    .destroy = engine_destroy,
    .run = tt_hier_gpu_run,
    .run_p2p = tt_hier_gpu_p2p,
    .abort = engine_abort,
    .state = engine_state,
    .info = engine_info,
    .stats = engine_stats,
    .mem_alloc = engine_mem_alloc,
    .mem_free = engine_mem_free,
    .window_register = engine_window_register,
    .window_deregister = engine_window_deregister,
    .window_find = engine_window_find,
    .window_at = engine_window_at,
};
