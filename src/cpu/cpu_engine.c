/* The CPU engine: ranks are processes (or threads) of one host, tensors lie in host memory. */
#include "cpu/cpu_engine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/env.h"
#include "cpu/cpu.h"
#include "topo/cores.h"

#define BOUNCE_BYTES      ((size_t)1 << 20)
#define TEAM_BOUNCE_BYTES ((size_t)128 << 10)
#define MAX_CPUS          2048

/* What the ranks tell each other before they share memory. */
struct card {
    unsigned char cpus[MAX_CPUS / 8]; /* that this rank may run on */
    uint32_t quota;                   /* of whole cores, of its cgroup; 0: none */
    uint32_t xmem_mode;               /* TUTTI_CPU_XMEM: auto, off, on */
};

/* ... and once they do. */
struct proof {
    int32_t result;
    int32_t xmem;
    uint64_t token, token_address;
};

static tutti_result card_fill(struct card *card)
{
    const size_t bytes = CPU_ALLOC_SIZE(MAX_CPUS);
    cpu_set_t *set;
    int mode;

    memset(card, 0, sizeof(*card));
    TT_TRY(tt_env_choice(TT_ENV_TUTTI_CPU_XMEM, &mode));
    card->xmem_mode = (uint32_t)mode;
    card->quota = tt_cores_quota("");
    set = CPU_ALLOC(MAX_CPUS);
    if (!set)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a set of cores");
    if (sched_getaffinity(0, bytes, set) == 0)
        for (size_t c = 0; c < MAX_CPUS; c++)
            if (CPU_ISSET_S(c, bytes, set))
                card->cpus[c / 8] |= (unsigned char)(1 << c % 8);
    CPU_FREE(set);
    return TUTTI_OK;
}

static int popcount(const unsigned char *bits, size_t n)
{
    int sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += __builtin_popcount(bits[i]);
    return sum;
}

/* Do ranks share cores, so that one that polls keeps another from running? */
static int crowded(const struct card *cards, int n, int n_nearby)
{
    unsigned char all[MAX_CPUS / 8] = {0};
    int n_cpus;

    for (int r = 0; r < n; r++) {
        if (cards[r].quota && cards[r].quota < (uint32_t)n)
            return 1;
        for (size_t i = 0; i < sizeof(all); i++)
            all[i] |= cards[r].cpus[i];
        for (int q = 0; q < r; q++)
            if (popcount(cards[r].cpus, sizeof(all)) == 1 &&
                memcmp(cards[r].cpus, cards[q].cpus, sizeof(all)) == 0)
                return 1;
    }
    n_cpus = popcount(all, sizeof(all));
    if (n_cpus < n)
        return 1;
    /* Where the others of this machine run is not known, but all cores are theirs too. */
    return n_cpus < n_nearby && n_cpus >= (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static tutti_result exchange(const struct tt_exchange *x, const void *send, void *recv,
                             size_t bytes)
{
    return x->all_gather(x->context, send, recv, bytes);
}

/* Where lane i of every rank has its flags and its halves of scratch. */
static void lane_place(struct tt_engine *e, struct tt_lane *ln, int i)
{
    const struct tt_segment *s = e->segment;
    const uint64_t offset =
        i == 0 ? s->scratch_offset : s->team_offset + (uint64_t)(i - 1) * 2 * TT_TEAM_SCRATCH;

    ln->e = e;
    ln->index = i;
    ln->mine = &e->mine->lanes[i];
    ln->half_bytes = i == 0 ? s->half_bytes : TT_TEAM_SCRATCH;
    for (int p = 0; p < 2; p++) {
        for (int r = 0; r < e->n_ranks; r++)
            ln->halves[p][r] =
                (unsigned char *)e->peers[r].area + offset + (uint64_t)p * ln->half_bytes;
        for (int d = 1; d < e->n_ranks; d++)
            ln->arrivals[p][d - 1] =
                &e->peers[(e->rank + d) % e->n_ranks].area->lanes[i].arrival[p];
    }
}

static tutti_result workspace_new(struct tt_engine *e)
{
    const size_t n = (size_t)e->n_ranks;
    const size_t list = n * (sizeof(struct tt_block) + 5 * sizeof(void *));
    const size_t lists = (TT_N_LANES * list + TT_PAGE - 1) / TT_PAGE * TT_PAGE;
    const size_t bytes = lists + BOUNCE_BYTES + TT_TEAM_LANES * TEAM_BOUNCE_BYTES;
    unsigned char *at = aligned_alloc(TT_PAGE, bytes), *bounce;

    e->workspace = at;
    if (!at)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu bytes of workspace", bytes);
    bounce = at + lists;
    for (int i = 0; i < TT_N_LANES; i++) {
        struct tt_lane *ln = &e->lanes[i];
        const void **pointers = (const void **)(void *)(at + n * sizeof(struct tt_block));

        ln->blocks = (struct tt_block *)(void *)at;
        ln->sources = pointers;
        ln->halves[0] = pointers + n;
        ln->halves[1] = pointers + 2 * n;
        ln->arrivals[0] = (const struct tt_arrival **)(void *)(pointers + 3 * n);
        ln->arrivals[1] = (const struct tt_arrival **)(void *)(pointers + 4 * n);
        lane_place(e, ln, i);
        at += list;
        ln->bounce = bounce;
        ln->bounce_bytes = i == 0 ? BOUNCE_BYTES : TEAM_BOUNCE_BYTES;
        bounce += ln->bounce_bytes;
    }
    return TUTTI_OK;
}

/* All ranks have mapped the segment, or none goes on. */
static tutti_result prove(struct tt_engine *e, const struct tt_exchange *x, tutti_result res,
                          struct proof *proofs)
{
    struct proof mine = {.result = res};
    char own[256];
    tutti_result told;

    if (res == TUTTI_OK) {
        mine.token = tt_load_relaxed(&e->mine->token);
        mine.token_address = (uint64_t)(uintptr_t)&e->mine->token;
    }
    snprintf(own, sizeof(own), "%s", tt_error_text());
    told = exchange(x, &mine, proofs, sizeof(mine));
    if (res != TUTTI_OK) /* the text of what this rank saw itself is the better one */
        return TT_FAIL(res, "%s", own);
    res = told;
    for (int r = 0; res == TUTTI_OK && r < e->n_ranks; r++)
        if (proofs[r].result != TUTTI_OK)
            res = TT_FAIL((tutti_result)proofs[r].result,
                          "rank %d could not set up shared memory: %s (see its own error)", r,
                          tt_result_text((tutti_result)proofs[r].result));
    return res;
}

/* Cross-memory copies are used if every rank can reach every other. */
static tutti_result xmem_agree(struct tt_engine *e, const struct tt_exchange *x,
                               const struct card *cards, struct proof *proofs)
{
    const size_t n = (size_t)e->n_ranks;
    uint64_t *addresses = malloc(2 * n * sizeof(*addresses));
    struct proof mine = {0};
    int wanted = 0, refused = 0;

    if (!addresses)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu addresses", n);
    for (size_t r = 0; r < n; r++) {
        addresses[r] = proofs[r].token_address;
        addresses[n + r] = proofs[r].token;
        refused |= cards[r].xmem_mode == 1;
        wanted |= cards[r].xmem_mode == 2;
    }
    mine.xmem = n > 1 && !refused && tt_xmem_probe(e, addresses, addresses + n);
    free(addresses);
    TT_TRY(exchange(x, &mine, proofs, sizeof(mine)));
    e->xmem = 1;
    for (size_t r = 0; r < n; r++)
        e->xmem = e->xmem && proofs[r].xmem;
    if (wanted && n > 1 && !e->xmem)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "TUTTI_CPU_XMEM=on, but process_vm_readv or process_vm_writev between the "
                       "ranks is refused: allow ptrace (--cap-add SYS_PTRACE)");
    return TUTTI_OK;
}

static tutti_result set_up(struct tt_engine *e, const struct tt_engine_config *config,
                           struct card *cards, struct proof *proofs)
{
    const struct tt_exchange *x = config->exchange;
    int wait_mode, isa;
    tutti_result res;

    TT_TRY(tt_env_choice(TT_ENV_TUTTI_CPU_ISA, &isa)); /* a word that is none says so here */
    e->kernels = tt_kernels_get(tt_env_text(TT_ENV_TUTTI_CPU_ISA));
    if (!e->kernels)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "TUTTI_CPU_ISA=%s: this processor cannot run that",
                       tt_env_text(TT_ENV_TUTTI_CPU_ISA));
    TT_TRY(tt_env_choice(TT_ENV_TUTTI_CPU_WAIT, &wait_mode));
    TT_TRY(card_fill(&cards[e->rank]));
    TT_TRY(exchange(x, &cards[e->rank], cards, sizeof(*cards)));
    tt_wait_configure(e, crowded(cards, e->n_ranks, config->n_nearby), wait_mode);
    TT_TRY(tt_fd_mesh_open(x, config->key, &e->mesh));
    for (int r = 0; r < e->n_ranks; r++)
        e->peers[r].pid = tt_fd_mesh_peer(e->mesh, r)->pid;
#ifdef PR_SET_PTRACER
    if (cards[e->rank].xmem_mode != 1) /* Yama lets a process name who may reach its memory */
        (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
#endif
    res = prove(e, x, tt_segment_open(e, config), proofs);
    if (res != TUTTI_OK)
        return res;
    tt_segment_populate(e);
    TT_TRY(xmem_agree(e, x, cards, proofs));
    TT_TRY(workspace_new(e));
    return tt_p2p_open(e);
}

static void engine_destroy(struct tt_engine *e)
{
    if (!e)
        return;
    if (e->segment) {
        atomic_store_explicit(&e->mine->left, 1, memory_order_release);
        tt_wake(e);
    }
    tt_cpu_windows_free(e);
    tt_p2p_close(e);
    tt_segment_close(e);
    tt_fd_mesh_close(e->mesh);
    free(e->workspace);
    free(e->labels);
    free(e->peers);
    free(e);
}

/* What another engine, which this one is a part of, wants to be done here. */
static tutti_result be_part(struct tt_engine *e, const struct tt_engine_config *config)
{
    const size_t bytes = (size_t)e->n_ranks * sizeof(*e->labels);

    e->idle = config->idle;
    e->idle_context = config->idle_context;
    if (!config->labels)
        return TUTTI_OK;
    e->labels = malloc(bytes);
    if (!e->labels)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the labels of %d ranks", e->n_ranks);
    memcpy(e->labels, config->labels, bytes);
    return TUTTI_OK;
}

static tutti_result engine_create(const struct tt_engine_config *config,
                                  struct tt_engine **engine_out)
{
    struct tt_engine *e = calloc(1, sizeof(*e));
    struct card *cards = calloc((size_t)config->n_ranks, sizeof(*cards));
    struct proof *proofs = calloc((size_t)config->n_ranks, sizeof(*proofs));
    tutti_result res;

    if (e) {
        e->fd = -1; /* 0 is the program's */
        e->peers = calloc((size_t)config->n_ranks, sizeof(*e->peers));
    }
    if (!e || !e->peers || !cards || !proofs) {
        res = TT_FAIL(TUTTI_E_MEMORY, "no memory for a communicator of %d ranks", config->n_ranks);
        goto out;
    }
    e->rank = config->rank;
    e->n_ranks = config->n_ranks;
    e->timeout_ns = config->timeout_ns;
    e->ns_per_tick = tt_ns_per_tick();
    snprintf(e->name, sizeof(e->name), "%s", config->name);
    res = set_up(e, config, cards, proofs);
    if (res == TUTTI_OK)
        res = be_part(e, config);
    if (res != TUTTI_OK)
        goto out;
    snprintf(e->details, sizeof(e->details), "%s kernels, cross-memory copies %s, waits by %s",
             e->kernels->isa, e->xmem ? "yes" : "no", e->spins ? "polling" : "yielding");
    *engine_out = e;
    e = NULL;
out:
    engine_destroy(e);
    free(proofs);
    free(cards);
    return res;
}

static void engine_abort(struct tt_engine *e)
{
    (void)tt_engine_fail(e, TT_ABORT, e->rank, 0, 0);
}

static void engine_info(const struct tt_engine *e, struct tt_engine_info *info)
{
    info->memory_bytes = e->segment->area_stride;
    info->xmem = e->xmem || e->n_ranks == 1; /* who is alone has nobody to reach */
    info->details = e->details;
}

static void engine_stats(const struct tt_engine *e, int rank, tutti_stats *stats)
{
    tt_stats_read(&e->peers[rank].area->stats, stats);
    stats->rank = rank;
}

static tutti_result engine_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_stats_area *st = &e->mine->stats;
    uint64_t bytes = 0;

    TT_TRY(tt_engine_failed(e));
    for (size_t i = 0; i < n_ops; i++)
        bytes += ops[i].bytes;
    tt_store_relaxed(&st->n_calls, tt_load_relaxed(&st->n_calls) + n_ops);
    tt_store_relaxed(&st->n_bytes, tt_load_relaxed(&st->n_bytes) + bytes);
    tt_store_relaxed(&st->last_what, TT_COLL_SEND_RECV);
    tt_store_relaxed(&st->last_bytes, bytes);
    return tt_p2p_run(e, ops, n_ops);
}

const struct tt_engine_ops tt_cpu_engine = {
    .size = sizeof(struct tt_engine_ops),
    .name = "cpu",
    .create = engine_create,
    .destroy = engine_destroy,
    .run = tt_cpu_run,
    .run_p2p = engine_p2p,
    .abort = engine_abort,
    .state = tt_engine_state,
    .info = engine_info,
    .stats = engine_stats,
    .mem_alloc = tt_cpu_mem_alloc,
    .mem_free = tt_cpu_mem_free,
    .window_register = tt_cpu_window_register,
    .window_deregister = tt_cpu_window_deregister,
    .window_find = tt_cpu_window_find,
    .window_at = tt_cpu_window_base,
};
