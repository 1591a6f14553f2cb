/* Public functions: communicators, errors, looking inside. */
#include <string.h>

#include "api/capability.h"
#include "base/env.h"
#include "base/error.h"
#include "base/log.h"
#include "boot/boot.h"
#include "coll/channel.h"
#include "coll/comm.h"
#include "cpu/cpu_engine.h"

#define NEED(pointer)                                                                              \
    do {                                                                                           \
        if (!(pointer))                                                                            \
            return TT_FAIL(TUTTI_E_ARG, "%s: " #pointer " is NULL", __func__);                     \
    } while (0)

const char *tutti_result_name(tutti_result result)
{
    return tt_result_name(result);
}

const char *tutti_result_text(tutti_result result)
{
    return tt_result_text(result);
}

const char *tutti_last_error(void)
{
    return tt_error_text();
}

uint32_t tutti_version(void)
{
    return tt_version();
}

size_t tutti_dtype_bytes(tutti_dtype dtype)
{
    return tt_dtype_bytes(dtype);
}

const char *tutti_dtype_name(tutti_dtype dtype)
{
    return tt_dtype_name(dtype);
}

const char *tutti_op_name(tutti_op op)
{
    return tt_op_name(op);
}

tutti_result tutti_unique_id_create(tutti_unique_id *id_out)
{
    NEED(id_out);
    return tt_boot_id_create(id_out);
}

tutti_result tutti_unique_id_to_text(const tutti_unique_id *id, char *text_out, size_t bytes)
{
    NEED(id);
    NEED(text_out);
    return tt_boot_id_to_text(id, text_out, bytes);
}

tutti_result tutti_unique_id_from_text(const char *text, tutti_unique_id *id_out)
{
    NEED(text);
    NEED(id_out);
    return tt_boot_id_from_text(text, id_out);
}

tutti_result tutti_comm_create(const tutti_comm_config *config, tutti_comm **comm_out)
{
    NEED(config);
    NEED(comm_out);
    return tt_comm_create(config, comm_out);
}

tutti_result tutti_comm_create_from_env(const tutti_comm_config *overrides, tutti_comm **comm_out)
{
    NEED(comm_out);
    return tt_comm_create_from_env(overrides, comm_out);
}

tutti_result tutti_comm_split(tutti_comm *comm, int color, int key, tutti_comm **comm_out)
{
    NEED(comm);
    NEED(comm_out);
    if (comm->group)
        return TT_FAIL(TUTTI_E_ARG, "comm_split inside a group");
    return tt_comm_split(comm, color, key, comm_out);
}

void tutti_comm_destroy(tutti_comm *comm)
{
    tt_comm_destroy(comm);
}

void tutti_comm_abort(tutti_comm *comm)
{
    if (comm)
        tt_comm_abort(comm);
}

/* Structs that the caller reads: fill no more than the caller's version has room for. */
static tutti_result give(void *to, const void *from, size_t ours, const char *what)
{
    uint32_t theirs;

    memcpy(&theirs, to, sizeof(theirs));
    if (theirs < sizeof(theirs) || theirs > 65536)
        return TT_FAIL(TUTTI_E_ARG, "%s.size is %u: set it with the _INIT macro", what, theirs);
    memcpy((unsigned char *)to + sizeof(theirs), (const unsigned char *)from + sizeof(theirs),
           (theirs < ours ? theirs : ours) - sizeof(theirs));
    return TUTTI_OK;
}

tutti_result tutti_comm_query(const tutti_comm *comm, tutti_comm_info *info)
{
    struct tt_engine_info ei = {0};
    tutti_comm_info own = {.size = sizeof(own)};

    NEED(comm);
    NEED(info);
    comm->ops->info(comm->engine, &ei);
    own.rank = comm->rank;
    own.n_ranks = comm->n_ranks;
    own.n_hosts = comm->n_hosts;
    own.device = comm->device;
    own.engine = comm->ops->name;
    own.name = comm->name;
    own.timeout_ms = comm->timeout_ms;
    own.memory_bytes = ei.memory_bytes;
    own.details = comm->details;
    return give(info, &own, sizeof(own), "info");
}

tutti_result tutti_comm_status(const tutti_comm *comm, tutti_comm_state *state)
{
    tutti_comm_state own = {.size = sizeof(own)};

    NEED(comm);
    NEED(state);
    tt_comm_state(comm, &own);
    if (own.result != TUTTI_OK)
        tt_channels_end_kernels(comm);
    return give(state, &own, sizeof(own), "state");
}

tutti_result tutti_comm_stats(const tutti_comm *comm, int rank, tutti_stats *stats)
{
    tutti_stats own = {.size = sizeof(own)};

    NEED(comm);
    NEED(stats);
    if (rank < 0 || rank >= comm->n_ranks)
        return TT_FAIL(TUTTI_E_ARG, "comm_stats of rank %d; there are %d", rank, comm->n_ranks);
    tt_comm_stats(comm, rank, &own);
    return give(stats, &own, sizeof(own), "stats");
}

tutti_result tutti_live_visit(int pid, tutti_live_fn visit, void *context)
{
    NEED(visit);
    if (pid < 0)
        return TT_FAIL(TUTTI_E_ARG, "live_visit of process %d", pid);
    return tt_cpu_live_visit(pid, visit, context);
}

tutti_result tutti_env_describe(size_t index, tutti_env_entry *entry)
{
    tutti_env_entry own = {.size = sizeof(own)};

    NEED(entry);
    TT_TRY(tt_env_describe(index, &own));
    return give(entry, &own, sizeof(own), "entry");
}

tutti_result tutti_capability_describe(size_t index, tutti_capability *capability)
{
    tutti_capability own = {.size = sizeof(own)};

    NEED(capability);
    TT_TRY(tt_capability_describe(index, &own));
    return give(capability, &own, sizeof(own), "capability");
}

tutti_result tutti_algorithm_name(const char *collective, size_t index, const char **name_out)
{
    enum tt_algo algo;
    int coll;

    NEED(collective);
    NEED(name_out);
    coll = tt_coll_from_name(collective);
    if (coll < 0)
        return TT_FAIL(TUTTI_E_ARG, "no collective \"%s\"", collective);
    algo = tt_select_known((enum tt_coll)coll, index);
    if (algo == TT_ALGO_AUTO)
        return TT_FAIL(TUTTI_E_ARG, "%s has no algorithm %zu", collective, index);
    *name_out = tt_algo_name(algo);
    return TUTTI_OK;
}

void tutti_log_set(tutti_log_fn handler, void *context)
{
    tt_log_set(handler, context);
}
