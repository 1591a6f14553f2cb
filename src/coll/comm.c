/* Creating, dividing and ending communicators. */
#include "coll/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/error.h"
#include "base/log.h"
#include "base/sha256.h"
#include "boot/boot.h"
#include "coll/channel.h"
#include "coll/hier.h"
#ifdef TUTTI_HAVE_CUDA
#include "coll/hier_gpu.h"
#endif
#include "cpu/cpu_engine.h"
#ifdef TUTTI_HAVE_CUDA
#include "cuda/cuda_engine.h"
#endif
#include "net/net.h"
#include "topo/host.h"

#define MAX_SCRATCH     ((uint64_t)1 << 32)
#define CONTROL_SCRATCH ((uint64_t)128 << 10) /* of the CPU engine beside another one */

/* ---- configuration ---- */

tutti_result tt_comm_config_read(const tutti_comm_config *given, tutti_comm_config *config)
{
    static const tutti_comm_config zero;
    const unsigned char *bytes = (const unsigned char *)given;

    *config = zero;
    if (given) {
        if (given->size < sizeof(given->size) || given->size > 65536)
            return TT_FAIL(TUTTI_E_ARG, "config.size is %u: set it to sizeof(tutti_comm_config)",
                           given->size);
        memcpy(config, given, given->size < sizeof(*config) ? given->size : sizeof(*config));
        for (uint32_t i = sizeof(*config); i < given->size; i++)
            if (bytes[i])
                return TT_FAIL(TUTTI_E_VERSION,
                               "config sets a field that this version of tutti does "
                               "not know (byte %u)",
                               i);
    }
    config->size = sizeof(*config);
    if (config->flags)
        return TT_FAIL(TUTTI_E_ARG, "config.flags is %#x; no flag is defined", config->flags);
    if (config->timeout_ms == 0)
        TT_TRY(tt_env_number(TT_ENV_TUTTI_TIMEOUT, &config->timeout_ms));
    if (config->scratch_bytes == 0)
        TT_TRY(tt_env_number(config->device == TUTTI_DEVICE_CUDA ? TT_ENV_TUTTI_CUDA_SCRATCH
                                                                 : TT_ENV_TUTTI_SCRATCH,
                             &config->scratch_bytes));
    if (!config->algorithm)
        config->algorithm = tt_env_text(TT_ENV_TUTTI_ALGO);
    if (!config->tune_file)
        config->tune_file = tt_env_text(TT_ENV_TUTTI_TUNE_FILE);
    if (!config->name)
        config->name = "";
    if (config->n_ranks == 0)
        config->n_ranks = 1;
    return TUTTI_OK;
}

static tutti_result device_check(const tutti_comm_config *c)
{
    if (c->device == TUTTI_DEVICE_CPU)
        return TUTTI_OK;
    if (c->device != TUTTI_DEVICE_CUDA)
        return TT_FAIL(
            TUTTI_E_UNSUPPORTED,
            "this build has no engine for device %d, only for the CPU (%d) and CUDA (%d)",
            (int)c->device, TUTTI_DEVICE_CPU, TUTTI_DEVICE_CUDA);
#ifdef TUTTI_HAVE_CUDA
    if (c->n_ranks > TT_HIER_GPU_MAX_RANKS)
        return TT_FAIL(TUTTI_E_ARG,
                       "n_ranks is %d; a communicator of GPUs has at most %d, and %d on a host",
                       c->n_ranks, TT_HIER_GPU_MAX_RANKS, TT_CUDA_MAX_RANKS);
    return TUTTI_OK;
#else
    return TT_FAIL(TUTTI_E_UNSUPPORTED,
                   "this build has no engine for GPUs (device CUDA): build tutti with src/cuda");
#endif
}

/* It stands in lines of text and in the name of the shared memory. */
static int is_name(const char *name)
{
    const char *at = name;

    while ((unsigned char)*at >= 0x20 && *at != 0x7f && *at != '/')
        at++;
    return *at == 0 && at - name <= 31;
}

static tutti_result config_check(const tutti_comm_config *c)
{
    if (c->n_ranks < 1 || c->n_ranks > TT_CPU_MAX_RANKS)
        return TT_FAIL(TUTTI_E_ARG, "n_ranks is %d; it must be 1 to %d", c->n_ranks,
                       TT_CPU_MAX_RANKS);
    if (c->rank < 0 || c->rank >= c->n_ranks)
        return TT_FAIL(TUTTI_E_ARG, "rank is %d of %d; it must be 0 to %d", c->rank, c->n_ranks,
                       c->n_ranks - 1);
    TT_TRY(device_check(c));
    if (c->timeout_ms > UINT64_C(1) << 40)
        return TT_FAIL(TUTTI_E_ARG, "timeout_ms is %llu, more than 34 years",
                       (unsigned long long)c->timeout_ms);
    if (c->scratch_bytes < 65536 || c->scratch_bytes > MAX_SCRATCH)
        return TT_FAIL(TUTTI_E_ARG, "scratch_bytes is %llu; it must be 64 KiB to 4 GiB",
                       (unsigned long long)c->scratch_bytes);
    if (!is_name(c->name))
        return TT_FAIL(TUTTI_E_ARG,
                       "name \"%.40s\" is longer than 31 bytes or holds a slash or a control "
                       "character",
                       c->name);
    if (c->n_ranks > 1 && !c->id && !c->exchange)
        return TT_FAIL(TUTTI_E_ARG,
                       "%d ranks need config.id (from rank 0's "
                       "tutti_unique_id_create) or config.exchange",
                       c->n_ranks);
    return TUTTI_OK;
}

/* ---- exchanges ---- */

static tutti_result boot_all_gather(void *context, const void *send, void *recv, size_t bytes)
{
    return tt_boot_all_gather(context, send, recv, bytes);
}

static tutti_result alone_all_gather(void *context, const void *send, void *recv, size_t bytes)
{
    (void)context;
    if (send != recv)
        memcpy(recv, send, bytes);
    return TUTTI_OK;
}

/* ---- creation, given a way to exchange ---- */

struct network_card {
    int32_t has_network, has_route;
    uint64_t scratch_bytes;
    struct tt_boot_address route;
};

/* Rank 0 met the other ranks of its host without leaving it: they take the way that one of them knows. */
static void take_route(tutti_comm *comm, const struct network_card *cards)
{
    for (int r = 0; r < comm->n_ranks && !comm->has_route; r++)
        if (cards[r].has_route && comm->host_of[r] == comm->host_of[comm->rank]) {
            comm->route = cards[r].route;
            comm->has_route = 1;
        }
}

/* All ranks must have a network: asked only where one is needed, for its library is loaded then. Ranks of several
 * hosts cut alike and write to each other's rings by one layout, so rank 0's scratch is everybody's. */
static tutti_result check_network(tutti_comm *comm, const struct tt_exchange *x, const char *hosts)
{
    const char *missing = tt_net_missing();
    const struct network_card mine = {missing[0] == 0, comm->has_route, comm->scratch_bytes,
                                      comm->route};
    struct network_card *all = calloc((size_t)comm->n_ranks, sizeof(*all));
    tutti_result res = all ? x->all_gather(x->context, &mine, all, sizeof(mine))
                           : TT_FAIL(TUTTI_E_MEMORY, "no memory for %d ranks", comm->n_ranks);

    for (int r = 0; res == TUTTI_OK && r < comm->n_ranks; r++)
        if (!all[r].has_network)
            res =
                TT_FAIL(TUTTI_E_UNSUPPORTED,
                        "the ranks run on %d hosts (%s), but rank %d has no network: %s",
                        comm->n_hosts, hosts, r, mine.has_network ? "see its own error" : missing);
    if (res == TUTTI_OK) {
        take_route(comm, all);
        comm->scratch_bytes = all[0].scratch_bytes;
    }
    free(all);
    return res;
}

static tutti_result several_hosts(tutti_comm *comm, const struct tt_exchange *x,
                                  const struct tt_host_card *cards)
{
    char text[160];

    tt_host_text(cards, comm->host_of, comm->n_ranks, text, sizeof(text));
    TT_LOG(TUTTI_LOG_INFO, comm->rank, comm->n_ranks, "communicator %s: %d hosts: %s", comm->name,
           comm->n_hosts, text);
    return check_network(comm, x, text);
}

static tutti_result find_hosts(tutti_comm *comm, const struct tt_exchange *x)
{
    const size_t n = (size_t)comm->n_ranks;
    struct tt_host_card *cards = calloc(n, sizeof(*cards));
    struct tt_host_card mine;
    tutti_result res;

    comm->host_of = calloc(n, sizeof(*comm->host_of));
    res = cards && comm->host_of ? tt_host_read(&mine)
                                 : TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu host names", n);
    if (res == TUTTI_OK)
        res = x->all_gather(x->context, &mine, cards, sizeof(mine));
    if (res == TUTTI_OK) {
        comm->n_hosts = tt_host_group(cards, comm->n_ranks, comm->host_of);
        comm->n_nearby = tt_host_nearby(cards, comm->n_ranks, comm->rank);
        if (comm->n_hosts > 1)
            res = several_hosts(comm, x, cards);
    }
    free(cards);
    return res;
}

static tutti_result choose_across_hosts(tutti_comm *comm)
{
#ifdef TUTTI_HAVE_CUDA
    if (comm->device == TUTTI_DEVICE_CUDA)
        return tt_hier_gpu_choose(comm->engine, comm->algorithm);
#endif
    return tt_hier_choose(comm->control, comm->algorithm);
}

/* Rank 0's table, or rank 0's reason for having none, becomes everybody's. */
static tutti_result agree_on_select(tutti_comm *comm, const tutti_comm_config *config)
{
    struct {
        int32_t result, unused;
        char algorithm[sizeof(comm->algorithm)];
        struct tt_select select;
    } word = {0};
    struct tt_call call = {.coll = TT_COLL_BROADCAST,
                           .algo = TT_ALGO_ONE_SHOT,
                           .window_algo = TT_ALGO_ONE_SHOT,
                           .dtype = TUTTI_DTYPE_U8,
                           .send = &word,
                           .recv = &word,
                           .count = sizeof(word),
                           .thread = TT_CALL_UNCOUNTED,
                           .purpose = TT_FOR_LIBRARY};
    struct tt_engine_info info = {0};

    comm->ops->info(comm->engine, &info);
    memcpy(word.algorithm, comm->algorithm, sizeof(word.algorithm));
    if (comm->rank == 0) {
        const struct tt_select_place place = {.kind = comm->n_hosts > 1 ? TT_SELECT_HOSTS
                                                      : comm->device == TUTTI_DEVICE_CUDA
                                                          ? TT_SELECT_GPU
                                                      : info.xmem ? TT_SELECT_CPU_XMEM
                                                                  : TT_SELECT_CPU,
                                              .n_ranks = comm->n_ranks,
                                              .limits = info.launch,
                                              .tune_file = config->tune_file,
                                              .force = config->algorithm};

        word.result = tt_select_make(&word.select, &place);
    }
    TT_TRY(comm->control_ops->run(comm->control, &call));
    comm->select = word.select;
    memcpy(comm->algorithm, word.algorithm, sizeof(comm->algorithm));
    if (word.result == TUTTI_OK && comm->n_hosts > 1)
        TT_TRY(choose_across_hosts(comm));
    if (word.result != TUTTI_OK && comm->rank != 0)
        return TT_FAIL((tutti_result)word.result, "rank 0 could not make the table of algorithms: "
                                                  "see its own error");
    return (tutti_result)word.result;
}

tutti_result tt_comm_exchange(const tutti_comm *comm, enum tt_purpose purpose, uint32_t alike,
                              const void *send, void *recv, size_t bytes)
{
    const struct tt_call call = {.coll = TT_COLL_ALL_GATHER,
                                 .algo = TT_ALGO_ONE_SHOT,
                                 .window_algo = TT_ALGO_ONE_SHOT,
                                 .dtype = TUTTI_DTYPE_U8,
                                 .send = send,
                                 .recv = recv,
                                 .count = bytes,
                                 .root = (int)alike,
                                 .thread = TT_CALL_UNCOUNTED,
                                 .purpose = purpose};

    return comm->control_ops->run(comm->control, &call);
}

tutti_result tt_comm_all_gather(void *context, const void *send, void *recv, size_t bytes)
{
    return tt_comm_exchange(context, TT_FOR_LIBRARY, 0, send, recv, bytes);
}

/* An engine for GPUs beside the CPU engine, through which its ranks talk as long as it lives. */
#ifdef TUTTI_HAVE_CUDA
static enum tt_presence presence(void *context, int rank)
{
    const tutti_comm *comm = context;

    return tt_cpu_presence(comm->control, rank);
}

static tutti_result create_gpu_engine(tutti_comm *comm, struct tt_engine_config *ec,
                                      uint64_t scratch_bytes)
{
    static const char purpose[] = "tutti GPU engine";
    struct tt_exchange x = *ec->exchange;
    unsigned char key[32];

    x.all_gather = tt_comm_all_gather;
    x.context = comm;
    tt_hmac_sha256(comm->key, sizeof(comm->key), purpose, strlen(purpose), key);
    ec->scratch_bytes = scratch_bytes;
    ec->exchange = &x;
    ec->key = key;
    ec->presence = presence;
    ec->control = comm->control;
    comm->ops = comm->n_hosts > 1 ? &tt_hier_gpu_engine : &tt_cuda_engine;
    if (comm->n_hosts == 1 && comm->n_ranks > TT_CUDA_MAX_RANKS)
        return TT_FAIL(TUTTI_E_ARG, "%d GPU ranks on one host; there may be %d", comm->n_ranks,
                       TT_CUDA_MAX_RANKS);
    return comm->ops->create(ec, &comm->engine);
}
#else
static tutti_result create_gpu_engine(tutti_comm *comm, struct tt_engine_config *ec,
                                      uint64_t scratch_bytes)
{
    (void)comm;
    (void)ec;
    (void)scratch_bytes;
    return TT_FAIL(TUTTI_E_UNSUPPORTED, "this build has no engine for GPUs");
}
#endif

static tutti_result create_engines(tutti_comm *comm, struct tt_engine_config *ec,
                                   const tutti_comm_config *config)
{
    const int on_cpu = config->device == TUTTI_DEVICE_CPU;

    ec->scratch_bytes = on_cpu ? comm->scratch_bytes : CONTROL_SCRATCH;
    ec->host_of = comm->host_of;
    ec->n_nearby = comm->n_nearby;
    ec->route = comm->has_route ? &comm->route : NULL;
    comm->control_ops = comm->n_hosts > 1 ? &tt_hier_engine : &tt_cpu_engine;
    TT_TRY(comm->control_ops->create(ec, &comm->control));
    if (!on_cpu) {
        TT_TRY(create_gpu_engine(comm, ec, comm->scratch_bytes));
    } else {
        comm->ops = comm->control_ops;
        comm->engine = comm->control;
    }
    return agree_on_select(comm, config);
}

tutti_result tt_comm_build(const tutti_comm_config *config, const struct tt_exchange *x,
                           const unsigned char key[32], const struct tt_boot_address *route,
                           tutti_comm **comm_out)
{
    tutti_comm *comm = calloc(1, sizeof(*comm));
    struct tt_engine_config ec = {.rank = config->rank,
                                  .n_ranks = config->n_ranks,
                                  .timeout_ns = config->timeout_ms * 1000000,
                                  .device_index = config->device_index,
                                  .key = key,
                                  .exchange = x};
    struct tt_engine_info info = {0};
    tutti_result res;

    if (!comm)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a communicator");
    comm->rank = config->rank;
    comm->n_ranks = config->n_ranks;
    comm->timeout_ms = config->timeout_ms;
    comm->scratch_bytes = config->scratch_bytes;
    comm->device = config->device;
    comm->device_index = config->device_index;
    if (route) {
        comm->route = *route;
        comm->has_route = 1;
    }
    memcpy(comm->key, key, sizeof(comm->key));
    snprintf(comm->name, sizeof(comm->name), "%s", config->name[0] ? config->name : "world");
    snprintf(comm->algorithm, sizeof(comm->algorithm), "%s", config->algorithm);
    ec.name = comm->name;
    comm->tune_file = strdup(config->tune_file);
    res = comm->tune_file ? find_hosts(comm, x)
                          : TT_FAIL(TUTTI_E_MEMORY, "no memory for a communicator");
    if (res == TUTTI_OK)
        res = create_engines(comm, &ec, config);
    if (res != TUTTI_OK) {
        tt_comm_destroy(comm);
        return res;
    }
    comm->ops->info(comm->engine, &info);
    if (comm->device == TUTTI_DEVICE_CPU && strcmp(comm->select.source, "built in") == 0)
        snprintf(comm->details, sizeof(comm->details), "%s", info.details);
    else
        snprintf(comm->details, sizeof(comm->details), "%s, algorithms: %s (table %08x)",
                 info.details, comm->select.source, tt_select_id(&comm->select));
    TT_LOG(TUTTI_LOG_INFO, comm->rank, comm->n_ranks, "communicator %s: %s engine, %s", comm->name,
           comm->ops->name, comm->details);
    *comm_out = comm;
    return TUTTI_OK;
}

/* An exchange callback carries rank 0's id to the others; the rest is as with any id. */
static tutti_result id_by_exchange(const tutti_comm_config *config, tutti_unique_id *id_out)
{
    struct {
        int32_t ok, unused;
        tutti_unique_id id;
    } mine = {0}, *all = calloc((size_t)config->n_ranks, sizeof(*all));
    tutti_result res = TUTTI_OK;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d ids", config->n_ranks);
    if (config->rank == 0)
        res = tt_boot_id_create(&mine.id);
    mine.ok = res == TUTTI_OK;
    if (config->exchange(config->exchange_context, &mine, all, sizeof(mine)) != 0 &&
        res == TUTTI_OK)
        res = TT_FAIL(TUTTI_E_SYSTEM, "the exchange callback failed on rank %d", config->rank);
    if (res == TUTTI_OK && !all[0].ok)
        res = TT_FAIL(TUTTI_E_SYSTEM, "rank 0 could not make an id: see its own error");
    if (res != TUTTI_OK && mine.ok && config->rank == 0)
        tt_boot_id_discard(&mine.id);
    *id_out = all[0].id;
    free(all);
    return res;
}

static tutti_result create_with_id(const tutti_comm_config *config, const tutti_unique_id *id,
                                   tutti_comm **comm_out)
{
    const uint64_t deadline = tt_now_ns() + config->timeout_ms * 1000000;
    const struct tt_boot_args args = {
        .rank = config->rank, .n_ranks = config->n_ranks, .id = *id, .deadline_ns = deadline};
    struct tt_boot *boot = NULL;
    struct tt_exchange x = {.rank = config->rank,
                            .n_ranks = config->n_ranks,
                            .all_gather = boot_all_gather,
                            .deadline_ns = deadline};
    unsigned char key[32];
    struct tt_boot_address route;
    tutti_result res;

    TT_TRY(tt_boot_open(&args, &boot));
    x.context = boot;
    tt_boot_derive_key(id, "tutti communicator", key);
    res = tt_comm_build(config, &x, key, tt_boot_route(boot, &route) > 0 ? &route : NULL, comm_out);
    if (res != TUTTI_OK)
        res = tt_boot_give_up(boot, res);
    else
        *tt_comm_refused(*comm_out) += tt_boot_refused(boot);
    tt_boot_close(boot);
    return res;
}

static tutti_result create_alone(const tutti_comm_config *config, tutti_comm **comm_out)
{
    static const unsigned char key[32];
    const struct tt_exchange x = {.rank = 0,
                                  .n_ranks = 1,
                                  .all_gather = alone_all_gather,
                                  .deadline_ns = tt_now_ns() + config->timeout_ms * 1000000};

    return tt_comm_build(config, &x, key, NULL, comm_out);
}

tutti_result tt_comm_create(const tutti_comm_config *given, tutti_comm **comm_out)
{
    tutti_comm_config config;
    tutti_unique_id id;

    tt_log_init();
    tt_env_check_unknown();
    TT_TRY(tt_comm_config_read(given, &config));
    TT_TRY(config_check(&config));
    if (config.n_ranks == 1 && !config.id)
        return create_alone(&config, comm_out);
    if (config.id)
        return create_with_id(&config, config.id, comm_out);
    TT_TRY(id_by_exchange(&config, &id));
    return create_with_id(&config, &id, comm_out);
}

tutti_result tt_comm_create_from_env(const tutti_comm_config *overrides, tutti_comm **comm_out)
{
    tutti_comm_config config;
    struct tt_boot_env env = {0};

    tt_log_init();
    TT_TRY(tt_boot_env_read(&env));
    TT_TRY(tt_comm_config_read(overrides, &config));
    if (!overrides || overrides->n_ranks == 0) {
        config.rank = env.rank;
        config.n_ranks = env.n_ranks;
    }
    if (!config.id && !config.exchange && env.have_id)
        config.id = &env.id;
    return tt_comm_create(&config, comm_out);
}

void tt_comm_destroy(tutti_comm *comm)
{
    if (!comm)
        return;
    tt_group_free(comm->group);
    tt_group_free(comm->spare_group);
    tt_channels_stop(comm);
    if (comm->engine && comm->engine != comm->control)
        comm->ops->destroy(comm->engine);
    if (comm->control)
        comm->control_ops->destroy(comm->control);
    tt_channels_free(comm);
    explicit_bzero(comm->key, sizeof(comm->key));
    free(comm->host_of);
    free(comm->tune_file);
    free(comm);
}

void tt_comm_abort(tutti_comm *comm)
{
    comm->ops->abort(comm->engine);
    if (comm->control != comm->engine)
        comm->control_ops->abort(comm->control);
    tt_channels_abort(comm);
}

_Atomic uint64_t *tt_comm_refused(const tutti_comm *comm)
{
    return comm->n_hosts > 1 ? tt_hier_refused(comm->control) : tt_cpu_refused(comm->control);
}

void tt_comm_stats(const tutti_comm *comm, int rank, tutti_stats *stats)
{
    comm->ops->stats(comm->engine, rank, stats);
    if (comm->control != comm->engine) {
        tutti_stats control = {.size = sizeof(control)};

        comm->control_ops->stats(comm->control, rank, &control);
        stats->n_refused += control.n_refused;
    }
}

/* A peer's abort may be known to the control engine before one of our kernels has seen it. That a peer has
 * died an engine for GPUs finds by `presence`. */
void tt_comm_state(const tutti_comm *comm, tutti_comm_state *state)
{
    comm->ops->state(comm->engine, state);
    if (state->result == TUTTI_OK && comm->control != comm->engine) {
        tutti_comm_state control = {.size = sizeof(control)};

        comm->control_ops->state(comm->control, &control);
        if (control.result != TUTTI_OK)
            *state = control;
    }
}
