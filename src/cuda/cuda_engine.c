/* The CUDA engine: ranks have a GPU each, or share one; tensors lie in GPU memory. */
#include "cuda/cuda_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/error.h"
#include "cuda/images.h"
#include "cuda/share_agree.h"
#include "cuda/share_map.h"

/* What the ranks tell each other before they share memory. */
struct card {
    int32_t n_sms;
    unsigned char uuid[16];
    uint64_t scratch_bytes, epoch; /* those of rank 0 count */
    int32_t n_blocks, n_threads;   /* likewise; 0: not forced */
    uint64_t table_id;             /* must be the same on all ranks */
};

/* How many blocks can all ranks that share the fullest GPU run at once, each? Blocks wait for those of
 * the peers, so all must be running. One fits a processor whatever it needs. */
static tutti_result count_blocks(struct tt_engine *e, const struct card *cards)
{
    int most = TT_CUDA_MAX_BLOCKS;

    e->overlaps = e->device->pdl;
    for (int r = 0; r < e->n_ranks; r++) {
        int sharers = 0;

        for (int q = 0; q < e->n_ranks; q++)
            sharers += memcmp(cards[q].uuid, cards[r].uuid, sizeof(cards[r].uuid)) == 0;
        if (cards[r].n_sms < sharers)
            return TT_FAIL(TUTTI_E_UNSUPPORTED,
                           "%d ranks share the GPU of rank %d, which has %d processors, and each "
                           "rank needs one: use more GPUs or fewer ranks",
                           sharers, r, cards[r].n_sms);
        if (sharers > 1) /* a launch that waits for its turn would take the place of a peer's */
            e->overlaps = 0;
        if (cards[r].n_sms / sharers < most)
            most = cards[r].n_sms / sharers;
    }
    e->limits.max_blocks = most;
    return TUTTI_OK;
}

/* Ranks that choose by different tables would wait for each other in vain. */
static tutti_result compare_tables(const struct tt_engine *e, const struct card *cards)
{
    for (int r = 1; r < e->n_ranks; r++)
        if (cards[r].table_id != cards[0].table_id)
            return TT_FAIL(TUTTI_E_VERSION,
                           "rank %d was built with another table of GPU launches than rank 0 "
                           "(%016llx, %016llx): use one build of tutti in all ranks",
                           r, (unsigned long long)cards[r].table_id,
                           (unsigned long long)cards[0].table_id);
    return TUTTI_OK;
}

static tutti_result read_shape(struct card *card)
{
    const char *text = tt_env_text(TT_ENV_TUTTI_CUDA_SHAPE);
    char after;

    if (!*text)
        return TUTTI_OK;
    if (sscanf(text, "%dx%d%c", &card->n_blocks, &card->n_threads, &after) != 2 ||
        card->n_blocks < 1 || card->n_blocks > TT_CUDA_MAX_BLOCKS || card->n_threads < 32 ||
        card->n_threads > TT_CUDA_MAX_THREADS || card->n_threads % 32 != 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "TUTTI_CUDA_SHAPE=%s is not \"BLOCKSxTHREADS\" with 1 to %d blocks and a "
                       "multiple of 32 threads up to %d",
                       text, TT_CUDA_MAX_BLOCKS, TT_CUDA_MAX_THREADS);
    return TUTTI_OK;
}

static tutti_result open_device(struct tt_engine *e, const struct tt_engine_config *config,
                                struct card *card)
{
    TT_TRY(tt_env_number(TT_ENV_TUTTI_CUDA_EPOCH, &card->epoch));
    TT_TRY(read_shape(card));
    TT_TRY(tt_cuda_device_open(config->device_index, &e->device));
    card->n_sms = e->device->n_sms;
    card->table_id = tt_cuda_table_id();
    memcpy(card->uuid, e->device->uuid, sizeof(card->uuid));
    return TUTTI_OK;
}

/* As if so many chunks had gone each way. */
static tutti_result count_messages_from(unsigned char *arena, uint64_t n_chunks)
{
    uint64_t words[TT_CUDA_P2P_LANES * TT_CUDA_MAX_RANKS];

    for (int word = 0; word < TT_N_P2P_WORDS; word++) {
        for (size_t i = 0; i < TT_LEN(words); i++)
            words[i] = word == TT_P2P_CREDIT ? TT_CUDA_P2P_CREDIT(n_chunks, 0) : n_chunks;
        TT_TRY(tt_cuda_write(arena + TT_CUDA_P2P_AT + (size_t)word * sizeof(words), words,
                             sizeof(words)));
    }
    return TUTTI_OK;
}

/* The first contents of the arena that are not zeros, and the report. */
static tutti_result fill_arena(struct tt_engine *e, uint64_t epoch)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const struct tt_cuda_layout *layout = &e->limits.layout;
    unsigned char *arena = e->arena.at[e->rank];
    struct tt_cuda_block blocks[TT_CUDA_MAX_BLOCKS];
    void *report;

    for (int b = 0; b < TT_CUDA_MAX_BLOCKS; b++)
        blocks[b] = (struct tt_cuda_block){.epoch = epoch};
    TT_TRY(tt_cuda_write(arena, blocks, sizeof(blocks)));
    if (epoch > 0)
        TT_TRY(count_messages_from(arena, epoch));
    TT_TRY(tt_cuda_fill(arena + layout->p2p, 0xff, layout->bytes - layout->p2p));
    TT_TRY(TT_CUDA(cu->cuMemHostAlloc(&report, sizeof(*e->report),
                                      CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP)));
    memset(report, 0, sizeof(*e->report));
    e->report = report;
    e->report->peer = -1;
    return TT_CUDA(cu->cuMemHostGetDevicePointer_v2(&e->report_on_device, report, 0));
}

static void set_base(struct tt_engine *e)
{
    struct tt_cuda_base *base = &e->base;

    memcpy(base->arena, e->arena.at, sizeof(base->arena));
    base->report = (struct tt_cuda_report *)(uintptr_t)e->report_on_device;
    base->timeout_ns = e->timeout_ns;
    base->layout = e->limits.layout;
    base->sentinel = base->layout.sentinel;
    base->sentinel_half = base->layout.sentinel_half;
    base->one_shot = base->layout.one_shot;
    base->one_shot_part = base->layout.one_shot_part;
    base->rank = e->rank;
    base->n_ranks = e->n_ranks;
}

static void set_details(struct tt_engine *e)
{
    const struct tt_cuda_device *d = e->device;
    int n_vmm = 0, n_ipc = 0;
    char uuid[33];

    for (int i = 0; i < 16; i++)
        snprintf(uuid + 2 * (size_t)i, 3, "%02x", d->uuid[i]);
    for (int r = 0; r < e->n_ranks && e->arena.mappings; r++) {
        n_vmm += r != e->rank && e->arena.mappings[r].sharing == TT_CUDA_VMM;
        n_ipc += r != e->rank && e->arena.mappings[r].sharing == TT_CUDA_IPC;
    }
    snprintf(
        e->details, sizeof(e->details),
        "GPU %d %s (%s), peers mapped by %s, up to %d blocks, %llu MiB of scratch, launches %s",
        d->index, d->name, uuid,
        n_vmm && n_ipc ? "descriptors and IPC"
        : n_ipc        ? "IPC"
        : n_vmm        ? "descriptors"
                       : "nobody",
        e->limits.max_blocks, (unsigned long long)e->limits.layout.bytes >> 20,
        e->overlaps ? "overlap" : "follow one another");
}

static tutti_result share_arena(struct tt_engine *e, uint64_t epoch)
{
    struct tt_cuda_scope scope;
    tutti_result res;

    TT_TRY(tt_cuda_share_alloc(e, e->limits.layout.bytes, &e->arena));
    res = tt_cuda_share_verify(e, &e->arena);
    if (res == TUTTI_OK)
        res = tt_cuda_scope_enter(e->device, &scope);
    if (res == TUTTI_OK) {
        res = fill_arena(e, epoch);
        tt_cuda_scope_leave(&scope);
    }
    return tt_cuda_agree(e, res, "set up its GPU"); /* so nobody sends before all are ready */
}

static tutti_result set_up(struct tt_engine *e, const struct tt_engine_config *config)
{
    struct card mine = {.scratch_bytes = config->scratch_bytes}, cards[TT_CUDA_MAX_RANKS];

    TT_TRY(tt_cuda_agree(e, open_device(e, config, &mine), "set up its GPU"));
    TT_TRY(e->exchange.all_gather(e->exchange.context, &mine, cards, sizeof(mine)));
    e->limits.n_ranks = e->n_ranks;
    e->limits.n_blocks = cards[0].n_blocks;
    e->limits.n_threads = cards[0].n_threads;
    TT_TRY(compare_tables(e, cards));
    TT_TRY(count_blocks(e, cards));
    TT_TRY(tt_cuda_layout(e->n_ranks, cards[0].scratch_bytes, &e->limits.layout));
    TT_TRY(share_arena(e, cards[0].epoch));
    set_base(e);
    set_details(e);
    return TUTTI_OK;
}

/* Local. Our own kernels end by themselves, soon after the abort word is set if they wait for somebody.
 * Peers may still be running kernels that store into our arena, and that is safe: the mappings of an
 * importer keep the memory alive. */
static void engine_destroy(struct tt_engine *e)
{
    struct tt_cuda_scope scope;

    if (!e)
        return;
    if (e->device && tt_cuda_scope_enter(e->device, &scope) == TUTTI_OK) {
        if (e->report)
            __atomic_store_n(&e->report->abort, 1, __ATOMIC_SEQ_CST);
        if (atomic_load(&e->n_calls) > 0)
            (void)tt_cuda_wait_for_kernels();
        tt_cuda_pool_detach(e);
        tt_cuda_windows_free(e);
        tt_cuda_share_close(e, &e->arena);
        if (e->report)
            (void)tt_cuda_driver()->cuMemFreeHost(e->report);
        tt_cuda_scope_leave(&scope);
    }
    tt_cuda_pool_detach(e); /* if the context could not be entered */
    tt_cuda_device_close(e->device);
    tt_fd_mesh_close(e->mesh);
    explicit_bzero(e->key, sizeof(e->key));
    free(e);
}

static tutti_result engine_create(const struct tt_engine_config *config,
                                  struct tt_engine **engine_out)
{
    struct tt_engine *e = calloc(1, sizeof(*e));
    tutti_result res;

    if (!e)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a communicator of %d ranks", config->n_ranks);
    e->rank = config->rank;
    e->n_ranks = config->n_ranks;
    e->timeout_ns = config->timeout_ns;
    e->exchange = *config->exchange;
    e->presence = config->presence;
    for (int r = 0; r < e->n_ranks; r++)
        e->labels[r] = config->labels ? config->labels[r] : r;
    memcpy(e->key, config->key, sizeof(e->key));
    snprintf(e->name, sizeof(e->name), "%s", config->name);
    res = set_up(e, config);
    if (res == TUTTI_OK)
        *engine_out = e;
    else
        engine_destroy(e);
    return res;
}

static tutti_result engine_run(struct tt_engine *e, const struct tt_call *call)
{
    TT_TRY(tt_cuda_check_report(e));
    switch (call->coll) {
    case TT_COLL_ALL_REDUCE:
    case TT_COLL_REDUCE_SCATTER:
    case TT_COLL_REDUCE: return tt_cuda_reduce(e, call);
    default: return tt_cuda_move(e, call);
    }
}

static tutti_result engine_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    TT_TRY(tt_cuda_check_report(e));
    return tt_cuda_p2p(e, ops, n_ops);
}

static void engine_info(const struct tt_engine *e, struct tt_engine_info *info)
{
    info->memory_bytes = e->limits.layout.bytes;
    info->xmem = 0;
    info->details = e->details;
    info->launch = (struct tt_launch_limits){.gpu = e->device->name,
                                             .max_blocks = e->limits.max_blocks,
                                             .max_threads = TT_CUDA_MAX_THREADS,
                                             .packets_dtypes = tt_cuda_packets_dtypes()};
}

const struct tt_engine_ops tt_cuda_engine = {
    .size = sizeof(struct tt_engine_ops),
    .name = "cuda",
    .create = engine_create,
    .destroy = engine_destroy,
    .run = engine_run,
    .run_p2p = engine_p2p,
    .abort = tt_cuda_abort,
    .state = tt_cuda_state,
    .info = engine_info,
    .stats = tt_cuda_stats,
    .mem_alloc = tt_cuda_mem_alloc,
    .mem_free = tt_cuda_mem_free,
    .window_register = tt_cuda_window_register,
    .window_deregister = tt_cuda_window_deregister,
    .window_find = tt_cuda_window_find,
    .window_at = tt_cuda_window_base,
};

/* ---- for `tutti info` ---- */

const char *tt_cuda_kernel_archs(void)
{
    return tt_cuda_images[0].data ? tt_cuda_archs : "";
}

void tt_cuda_driver_text(char *text, size_t bytes)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();

    text[0] = 0;
    if (cu)
        snprintf(text, bytes, "%d.%d", cu->version / 1000, cu->version % 1000 / 10);
}

void tt_cuda_gpus_text(char *text, size_t bytes)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    char first[64] = "", name[64];
    int n = 0, same = 1;
    CUdevice device;

    text[0] = 0;
    if (!cu || cu->cuDeviceGetCount(&n) != CUDA_SUCCESS || n < 1)
        return;
    for (int i = 0; i < n; i++) {
        if (cu->cuDeviceGet(&device, i) != CUDA_SUCCESS ||
            cu->cuDeviceGetName(name, (int)sizeof(name), device) != CUDA_SUCCESS)
            return;
        if (i == 0)
            memcpy(first, name, sizeof(first));
        same = same && strcmp(first, name) == 0;
    }
    snprintf(text, bytes, "%d x %s%s", n, first, same ? "" : " and others");
}

void tt_cuda_gpu_name(char *text, size_t bytes)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUdevice device;
    int n = 0;

    text[0] = 0;
    if (!cu || cu->cuDeviceGetCount(&n) != CUDA_SUCCESS || n < 1 ||
        cu->cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        cu->cuDeviceGetName(text, (int)bytes, device) != CUDA_SUCCESS)
        text[0] = 0;
}
