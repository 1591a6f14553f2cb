/*
 * Several proxies for one communicator's calls: each a thread with an engine for host memory, and so a network,
 * of its own. The first finds calls and hands shares of them out. Which chunk and which message is whose follows
 * from what both ends know, so a lane only ever meets its like. docs/design/hierarchical.md: "Several proxies"
 */
#include <sched.h>
#include <stdio.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "coll/hier_gpu_parts.h"

#define NAP_NS   UINT64_C(20000000) /* of lanes that are kicked when there is work */
#define SERVE_NS UINT64_C(10000000) /* from one turn that an idle lane's network has to the next */

/* ---- failing ---- */

void tt_gpu_lanes_fail(struct tt_gpu_lane *lane, tutti_result why)
{
    struct tt_engine *e = lane->e;
    char text[256];

    snprintf(text, sizeof(text), "%s", tt_error_text());
    (void)tt_hier_fail(lane->data, why, -1, text);
    for (int k = 0; k < e->n_lanes; k++)
        if (k != lane->number)
            tt_hier_fail_like(e->lanes[k].data, lane->data);
    tt_cuda_end(e->cuda, why);
}

void tt_gpu_lanes_abort(struct tt_engine *e)
{
    for (int k = 0; k < e->n_lanes; k++)
        if (e->lanes[k].data)
            tt_hier_engine.abort(e->lanes[k].data);
}

/* ---- shares ---- */

void tt_gpu_lanes_carried(struct tt_engine *e, uint64_t c)
{
    struct tt_gpu_job *job = &e->job;

    pthread_mutex_lock(&job->lock);
    job->carried[c % TT_CUDA_STAGE_SLOTS] = c + 1;
    while (job->carried[job->n_done % TT_CUDA_STAGE_SLOTS] == job->n_done + 1) {
        /* From the end of the last one on the caller may destroy the communicator. */
        if (++job->n_done == job->n_chunks)
            atomic_store(&e->is_busy, 0);
        tt_cuda_stage_done(e->stage);
    }
    pthread_mutex_unlock(&job->lock);
}

static void carry_out(struct tt_gpu_lane *lane)
{
    lane->result = lane->e->job.work(lane);
    if (lane->result != TUTTI_OK)
        tt_gpu_lanes_fail(lane, lane->result);
}

/* Every lane's work has an end: its own deadlines, or the first failure of any. */
static void await_lane(struct tt_gpu_lane *first, struct tt_gpu_lane *lane)
{
    while (atomic_load_explicit(&lane->has_work, memory_order_acquire)) {
        if (first->result == TUTTI_OK && (first->result = tt_hier_gpu_look(first)) != TUTTI_OK)
            tt_gpu_lanes_fail(first, first->result);
        tt_pause();
        sched_yield();
    }
}

tutti_result tt_gpu_lanes_run(struct tt_engine *e, int (*has_share)(const struct tt_gpu_lane *))
{
    struct tt_gpu_lane *first = &e->lanes[0];
    tutti_result res;

    for (int k = 1; k < e->n_lanes; k++) {
        struct tt_gpu_lane *lane = &e->lanes[k];

        lane->result = TUTTI_OK;
        if (!has_share(lane))
            continue;
        atomic_store_explicit(&lane->has_work, 1, memory_order_release);
        tt_proxy_kick(lane->proxy);
    }
    carry_out(first);
    for (int k = 1; k < e->n_lanes; k++)
        await_lane(first, &e->lanes[k]);
    res = first->result;
    for (int k = 1; k < e->n_lanes && res == TUTTI_OK; k++)
        res = e->lanes[k].result;
    return res;
}

/* ---- the threads ---- */

/* A peer that ends its communicator waits until its network's last words have been taken. */
static void serve(struct tt_gpu_lane *lane)
{
    const uint64_t now = tt_now_ns();

    if (lane->is_lost || now - lane->looked_ns < SERVE_NS)
        return;
    lane->looked_ns = now;
    lane->is_lost = tt_hier_serve(lane->data) != TUTTI_OK;
}

static int poll_lane(void *context)
{
    struct tt_gpu_lane *lane = context;

    if (!atomic_load_explicit(&lane->has_work, memory_order_acquire)) {
        serve(lane);
        return 0;
    }
    carry_out(lane);
    atomic_store_explicit(&lane->has_work, 0, memory_order_release);
    return 1;
}

void tt_gpu_lanes_kick(struct tt_engine *e, uint64_t n_shares)
{
    for (int k = 0; k < e->n_lanes && (uint64_t)k < n_shares; k++)
        tt_proxy_kick(e->lanes[k].proxy);
}

tutti_result tt_gpu_lanes_start(struct tt_engine *e)
{
    for (int k = e->n_lanes - 1; k >= 0; k--) { /* the first, which needs the others, at last */
        char name[24];
        const struct tt_proxy_config config = {.name = name,
                                               .poll = k ? poll_lane : tt_hier_gpu_poll,
                                               .context = &e->lanes[k],
                                               .nap_ns = k ? NAP_NS : 0};

        if (k)
            snprintf(name, sizeof(name), "tutti-hosts-%d", k);
        else
            snprintf(name, sizeof(name), "tutti-hosts");
        TT_TRY(tt_proxy_start(&config, &e->lanes[k].proxy));
    }
    return TUTTI_OK;
}

void tt_gpu_lanes_stop(struct tt_engine *e)
{
    for (int k = 0; k < e->n_lanes; k++) /* the first at first: it waits for the others */
        tt_proxy_stop(e->lanes[k].proxy);
}
