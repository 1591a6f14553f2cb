/* The engine for several hosts: creating, describing and ending it, and its windows. */
#include "coll/hier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/sha256.h"
#include "boot/boot.h"
#include "coll/hier_parts.h"
#include "cpu/cpu_engine.h"

#define SCRATCH_PER_RANK ((uint64_t)4096) /* at least */

/* ---- who is where ---- */

static tutti_result find_hosts(struct tt_engine *e, const int host_of[])
{
    const size_t n = (size_t)e->n_ranks;
    int *all = malloc((4 * n + 1) * sizeof(int));
    int at = 0;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the hosts of %zu ranks", n);
    e->host_of = all;
    e->local_of = all + n;
    e->members = all + 2 * n;
    e->first = all + 3 * n;
    memcpy(e->host_of, host_of, n * sizeof(int));
    e->host = host_of[e->rank];
    for (int r = 0; r < e->n_ranks; r++)
        e->n_hosts = host_of[r] >= e->n_hosts ? host_of[r] + 1 : e->n_hosts;
    for (int h = 0; h < e->n_hosts; h++) {
        e->first[h] = at;
        for (int r = 0; r < e->n_ranks; r++)
            if (host_of[r] == h) {
                e->local_of[r] = at - e->first[h];
                e->members[at++] = r;
            }
    }
    e->first[e->n_hosts] = at;
    e->local = e->local_of[e->rank];
    e->n_local = tt_hier_size(e, e->host);
    e->n_rails = e->n_local;
    for (int h = 0; h < e->n_hosts; h++)
        e->n_rails = tt_hier_size(e, h) < e->n_rails ? tt_hier_size(e, h) : e->n_rails;
    e->is_even = e->n_rails * e->n_hosts == e->n_ranks;
    return TUTTI_OK;
}

/* ---- the engine within the host ---- */

struct part {
    const struct tt_engine *e;
    const struct tt_exchange *whole;
};

/* All hosts do this at the same time, so it is one exchange of all, of which each keeps its own. */
static tutti_result part_all_gather(void *context, const void *send, void *recv, size_t bytes)
{
    const struct part *p = context;
    const struct tt_engine *e = p->e;
    unsigned char *all = malloc((size_t)e->n_ranks * bytes);
    tutti_result res;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for records of %d ranks", e->n_ranks);
    res = p->whole->all_gather(p->whole->context, send, all, bytes);
    for (int i = 0; res == TUTTI_OK && i < e->n_local; i++)
        memcpy((unsigned char *)recv + (size_t)i * bytes,
               all + (size_t)tt_hier_member(e, e->host, i) * bytes, bytes);
    free(all);
    return res;
}

/* In long waits within the host: let messages advance, and see what other hosts say. */
static int idle(void *context)
{
    struct tt_engine *e = context;
    int moved;

    if (!e->wire)
        return 0;
    if (tt_cpu_has_waited(e->local_engine))
        tt_wire_tell_waits(e->wire);
    moved = tt_wire_poll(e->wire);
    if (moved < 0) {
        (void)tt_hier_give_up(e, (tutti_result)moved);
        return 0;
    }
    return moved;
}

static tutti_result create_local(struct tt_engine *e, const struct tt_engine_config *config)
{
    struct part part = {e, config->exchange};
    const struct tt_exchange x = {.rank = e->local,
                                  .n_ranks = e->n_local,
                                  .all_gather = part_all_gather,
                                  .context = &part,
                                  .deadline_ns = config->exchange->deadline_ns};
    struct tt_engine_config own = *config;
    tutti_result res;

    own.rank = e->local;
    own.n_ranks = e->n_local;
    own.exchange = &x;
    own.labels = e->members + e->first[e->host];
    own.idle = idle;
    own.idle_context = e;
    e->ops = &tt_cpu_engine;
    res = e->ops->create(&own, &e->local_engine);
    if (res != TUTTI_OK && e->n_local > 1)
        return TT_FAIL(res, "%s (ranks counted among the %d of this host)", tt_error_text(),
                       e->n_local);
    return res;
}

/* ---- creating ---- */

static tutti_result check_local(void *context)
{
    const struct tt_engine *e = context;

    return tt_cpu_failed(e->local_engine);
}

static void tell_local(void *context)
{
    const struct tt_engine *e = context;

    tt_cpu_waits(e->local_engine);
}

static tutti_result create_wire(struct tt_engine *e, const struct tt_engine_config *config)
{
    static const char purpose[] = "tutti network";
    unsigned char key[32];
    struct tt_wire_config wc = {.rank = e->rank,
                                .n_ranks = e->n_ranks,
                                .host_of = e->host_of,
                                .name = config->name,
                                .timeout_ns = e->timeout_ns,
                                .ring_bytes = 2 * config->scratch_bytes,
                                .key = key,
                                .exchange = config->exchange,
                                .route = config->route,
                                .gpu = config->gpu,
                                .refused = tt_cpu_refused(e->local_engine),
                                .polls = tt_cpu_polls(e->local_engine),
                                .check = check_local,
                                .waits = tell_local,
                                .context = e};

    tt_hmac_sha256(config->key, 32, purpose, strlen(purpose), key);
    return tt_wire_create(&wc, &e->wire);
}

static tutti_result make_workspace(struct tt_engine *e, uint64_t scratch_bytes)
{
    const size_t n = (size_t)e->n_ranks;

    e->scratch_bytes = scratch_bytes > SCRATCH_PER_RANK * n ? scratch_bytes : SCRATCH_PER_RANK * n;
    e->scratch_bytes = (e->scratch_bytes + 63) & ~(size_t)63;
    e->max_messages = 4 * n + 8;
    e->messages = malloc(e->max_messages * sizeof(*e->messages));
    e->scratch = aligned_alloc(64, e->scratch_bytes);
    e->counts = calloc(TT_HIER_N_ROWS * n, sizeof(*e->counts));
    e->sources = calloc(2 * n, sizeof(*e->sources));
    e->places = calloc(2 * n, sizeof(*e->places));
    e->p2p = calloc(n, sizeof(*e->p2p));
    e->zeros = aligned_alloc(64, TT_HIER_ZEROS);
    e->zeros_dtype = -1;
    if (!e->messages || !e->scratch || !e->counts || !e->sources || !e->places || !e->p2p ||
        !e->zeros)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for calls among %zu ranks", n);
    return TUTTI_OK;
}

static void engine_destroy(struct tt_engine *e)
{
    if (!e)
        return;
    tt_wire_destroy(e->wire);
    e->wire = NULL;
    tt_hier_windows_free(e);
    if (e->local_engine)
        e->ops->destroy(e->local_engine);
    free(e->messages);
    free(e->scratch);
    free(e->counts);
    free(e->sources);
    free(e->places);
    free(e->p2p);
    free(e->zeros);
    free(e->host_of);
    free(e);
}

tutti_result tt_hier_choose(struct tt_engine *e, const char *algorithm)
{
    const int is_flat = strcmp(algorithm, tt_algo_name(TT_ALGO_FLAT)) == 0;
    struct tt_select_place place = {
        .n_ranks = e->n_local, .tune_file = "", .force = is_flat ? "" : algorithm};
    struct tt_engine_info info = {0};

    e->ops->info(e->local_engine, &info);
    place.kind = info.xmem ? TT_SELECT_CPU_XMEM : TT_SELECT_CPU;
    return tt_select_make(&e->select, &place);
}

static tutti_result set_up(struct tt_engine *e, const struct tt_engine_config *config)
{
    struct tt_engine_info info = {0};

    TT_TRY(find_hosts(e, config->host_of));
    TT_TRY(make_workspace(e, config->scratch_bytes));
    e->kernels = tt_kernels_get(tt_env_text(TT_ENV_TUTTI_CPU_ISA));
    TT_TRY(create_local(e, config));
    TT_TRY(create_wire(e, config));
    TT_TRY(tt_hier_choose(e, ""));
    e->ops->info(e->local_engine, &info);
    snprintf(e->details, sizeof(e->details), "%d hosts, %d ranks on this one: %s; network: %s",
             e->n_hosts, e->n_local, info.details, tt_wire_details(e->wire));
    return TUTTI_OK;
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
    res = set_up(e, config);
    if (res != TUTTI_OK) {
        engine_destroy(e);
        return res;
    }
    *engine_out = e;
    return TUTTI_OK;
}

/* ---- ending, looking inside ---- */

static void engine_abort(struct tt_engine *e)
{
    e->ops->abort(e->local_engine);
    tt_wire_abort(e->wire);
}

static void engine_state(const struct tt_engine *e, tutti_comm_state *state)
{
    e->ops->state(e->local_engine, state);
}

static void engine_info(const struct tt_engine *e, struct tt_engine_info *info)
{
    e->ops->info(e->local_engine, info);
    info->memory_bytes += tt_wire_memory(e->wire);
    info->details = e->details;
}

static void engine_stats(const struct tt_engine *e, int rank, tutti_stats *stats)
{
    if (e->host_of[rank] == e->host)
        e->ops->stats(e->local_engine, e->local_of[rank], stats);
    else
        snprintf(stats->last_call, sizeof(stats->last_call), "-");
    stats->rank = rank;
}

_Atomic uint64_t *tt_hier_refused(struct tt_engine *e)
{
    return tt_cpu_refused(e->local_engine);
}

/* ---- memory ---- */

static tutti_result engine_mem_alloc(struct tt_engine *e, size_t bytes, void **ptr_out)
{
    return e->ops->mem_alloc(e->local_engine, bytes, ptr_out);
}

static tutti_result engine_mem_free(struct tt_engine *e, void *ptr)
{
    return e->ops->mem_free(e->local_engine, ptr);
}

static tutti_window *engine_window_find(struct tt_engine *e, const void *ptr, size_t bytes)
{
    return e->ops->window_find(e->local_engine, ptr, bytes);
}

static void *engine_window_at(struct tt_engine *e, const tutti_window *window, int rank)
{
    if (e->host_of[rank] != e->host)
        return NULL;
    return e->ops->window_at(e->local_engine, window, e->local_of[rank]);
}

enum tt_presence tt_hier_presence(struct tt_engine *e, int rank)
{
    if (e->host_of[rank] != e->host)
        return TT_IS_THERE;
    return tt_cpu_presence(e->local_engine, e->local_of[rank]);
}

const struct tt_engine_ops tt_hier_engine = {
    .size = sizeof(struct tt_engine_ops),
    .name = "hosts",
    .create = engine_create,
    .destroy = engine_destroy,
    .run = tt_hier_run,
    .run_p2p = tt_hier_run_p2p,
    .abort = engine_abort,
    .state = engine_state,
    .info = engine_info,
    .stats = engine_stats,
    .mem_alloc = engine_mem_alloc,
    .mem_free = engine_mem_free,
    .window_register = tt_hier_window_register,
    .window_deregister = tt_hier_window_deregister,
    .window_find = engine_window_find,
    .window_at = engine_window_at,
};
