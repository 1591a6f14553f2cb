/*
 * What every kernel does first, while it waits, and last. docs/design/cuda.md: "One launch".
 *
 *     struct tt_launch l = tt_begin(&args.base);
 *     ... while (!condition && tt_wait(&l, &patience, peer)) ...
 *     tt_end(&l);
 *
 * All threads of all blocks call tt_begin and tt_end. After a failed wait every later wait of the
 * thread fails at once, the kernel runs to its end, and the result is not to be used. Nor must a peer use what
 * follows from it, or is put where it has not made room: a thread that has failed, or one of a block that has, if
 * that is what was waited for, shows and stores the peers nothing any more, in this launch and all that follow.
 * So who comes late misses us, as we have missed him.
 */
#ifndef TT_CUDA_KERNELS_PROTOCOL_H
#define TT_CUDA_KERNELS_PROTOCOL_H

#include "cuda/kernels/device.h"

#ifndef TT_POLLS_PER_CHECK
#define TT_POLLS_PER_CHECK 2048 /* looks at the clock and the abort word: about every ms */
#endif

#define TT_IDLE 0xffffffffu /* a word of sentinel memory that waits */

/* Of launches up to this size the next may take its place at once, and wait there; larger ones would
 * fill the GPU two by two. */
#define TT_EARLY_THREADS 16384

struct tt_launch {
    const struct tt_cuda_base *base;
    unsigned char *arena;  /* mine */
    uint64_t epoch;        /* of this launch, from 1 */
    uint32_t half;         /* which half of the packets and of two-shot's memory it uses */
    uint32_t part;         /* which part of the one-shot memory */
    uint32_t dirty;        /* vectors of the part before that are to be put right */
    uint32_t leaves;       /* vectors of its own part that it leaves to the next launch */
    uint32_t flag0, flag1; /* of its packets: together 62 bits of the epoch, and never 0 */
    int failed;
};

TT_FN struct tt_cuda_block *tt_my_block(const struct tt_launch *l)
{
    return (struct tt_cuda_block *)l->arena + TT_BLOCK;
}

TT_FN uint64_t *tt_flag(unsigned char *arena, enum tt_cuda_flag kind, int block, int from)
{
    return (uint64_t *)(arena + TT_CUDA_FLAGS_AT) +
           ((uint64_t)kind * TT_CUDA_MAX_BLOCKS + (uint64_t)block) * TT_CUDA_MAX_RANKS + from;
}

/* A peer that moves no data to us still shows that it came, or we could run two launches ahead of it
 * and overwrite what it has not read. */
TT_FN void tt_show_presence(const struct tt_launch *l)
{
    const struct tt_cuda_base *b = l->base;

    if (b->meet && TT_BLOCK == 0 && TT_THREAD < b->n_ranks && TT_THREAD != b->rank && !l->failed)
        tt_flag_relaxed(tt_flag(b->arena[TT_THREAD], TT_FLAG_ENTRY, 0, b->rank), l->epoch);
}

/* The first thread of the rank that fails writes the report; what it wrote stays. Only then do the
 * others see that there was a failure, so none of them can be first. */
TT_FN void tt_fail(struct tt_launch *l, uint32_t result, int peer, uint64_t detail)
{
    struct tt_cuda_report *r = l->base->report;

    l->failed = 1;
    if (tt_host_swap(&r->result, 0, UINT32_MAX) == 0) {
        r->peer = peer;
        r->coll = l->base->coll;
        r->epoch = l->epoch;
        r->sequence = l->base->sequence;
        r->detail = detail;
        tt_fence_sys();
        *(volatile uint32_t *)&r->result = result;
    }
    TT_ROLLED
    for (int b = 0; b < TT_CUDA_MAX_BLOCKS; b++)
        ((volatile struct tt_cuda_block *)l->arena)[b].failed = TT_CUDA_FAILED_IN(l->epoch);
}

/* For bodies that have waited for the previous kernel already, and have loads of their own under way
 * while the epoch comes. */
TT_FN struct tt_launch tt_begin_after_wait(const struct tt_cuda_base *base)
{
    struct tt_launch l;

    l.base = base;
    l.arena = base->arena[base->rank];
    l.epoch = tt_my_block(&l)->epoch + 1;
    l.failed =
        tt_my_block(&l)->failed != 0 && tt_my_block(&l)->failed != TT_CUDA_FAILED_IN(l.epoch);
    l.part = tt_my_block(&l)->next & 3;
    l.dirty = tt_my_block(&l)->next >> 2;
    l.leaves = 0;
    l.half = (uint32_t)l.epoch & 1;
    l.flag0 = (uint32_t)l.epoch << 1 | 1; /* memory that was never written holds 0 */
    l.flag1 = (uint32_t)(l.epoch ^ l.epoch >> 31) << 1 | 1;
    if (l.failed && TT_BLOCK == 0 && TT_THREAD == 0) /* no report yet: a peer has aborted */
        tt_host_swap(&base->report->result, 0, (uint32_t)-TUTTI_E_ABORTED);
    tt_show_presence(&l);
    if (TT_BLOCKS * TT_THREADS <= TT_EARLY_THREADS)
        tt_grid_launch_next();
    return l;
}

/* A word of each line of `bytes` bytes of arguments. To be fetched while the kernel before us still runs, it
 * must seem to be used. */
TT_FN uint64_t tt_touch_lines(const void *args, int bytes)
{
    const uint64_t *word = (const uint64_t *)args;
    uint64_t sum = 0;

    TT_UNROLL
    for (int k = 0; k < bytes / 8; k += 8)
        sum ^= word[k];
    return sum;
}

TT_FN struct tt_launch tt_begin(const struct tt_cuda_base *base)
{
    tt_grid_wait();
    return tt_begin_after_wait(base);
}

struct tt_patience {
    uint32_t polls;
    uint64_t since_ns;
};

/* Called after each look that did not find what is waited for. 0: give up. */
TT_FN int tt_wait_until(struct tt_launch *l, struct tt_patience *p, int peer, uint64_t timeout_ns)
{
    TT_PAUSE();
    if (l->failed)
        return 0;
    if (++p->polls % TT_POLLS_PER_CHECK != 0)
        return 1;
    const uint64_t now = tt_now();

    *(volatile uint64_t *)(l->arena + TT_CUDA_WAITS_AT) = l->epoch; /* I am not who is missing */
    if (p->since_ns == 0)
        p->since_ns = now;
    if (tt_host_load(&l->base->report->abort))
        tt_fail(l, (uint32_t)-TUTTI_E_ABORTED, -1, now - p->since_ns);
    else if (now - p->since_ns > timeout_ns)
        tt_fail(l, (uint32_t)-TUTTI_E_TIMEOUT, peer, now - p->since_ns);
    else if (((volatile struct tt_cuda_block *)l->arena)[TT_BLOCK].failed) {
        tt_host_swap(&l->base->report->result, 0, (uint32_t)-TUTTI_E_ABORTED); /* by a peer */
        l->failed = 1; /* or by a thread that has reported why */
    }
    return !l->failed;
}

TT_FN int tt_wait(struct tt_launch *l, struct tt_patience *p, int peer)
{
    return tt_wait_until(l, p, peer, l->base->timeout_ns);
}

TT_FN void tt_wait_flag(struct tt_launch *l, const uint64_t *flag, uint64_t value, int peer)
{
    struct tt_patience p = {0, 0};

    while (tt_flag_acquire(flag) < value && tt_wait(l, &p, peer))
        ;
}

/* The block joins; it has failed if one of its threads has. */
TT_FN void tt_join_block(struct tt_launch *l)
{
    l->failed = tt_sync_block_or(l->failed);
}

/* Every block meets the same block of all peers: threads < n_ranks each handle one peer, the block joins
 * them. Everything before it, on any rank, is seen by everything after it. On ENTRY that is only what
 * earlier kernels did, which everybody could see when they were over: nothing to release. */
TT_FN void tt_meet_peers(struct tt_launch *l, enum tt_cuda_flag kind)
{
    const struct tt_cuda_base *b = l->base;
    const int peer = TT_THREAD;

    tt_join_block(l);
    if (peer < b->n_ranks && peer != b->rank && !l->failed) {
        if (kind == TT_FLAG_ENTRY)
            tt_flag_relaxed(tt_flag(b->arena[peer], kind, TT_BLOCK, b->rank), l->epoch);
        else
            tt_flag_release(tt_flag(b->arena[peer], kind, TT_BLOCK, b->rank), l->epoch);
        tt_wait_flag(l, tt_flag(l->arena, kind, TT_BLOCK, peer), l->epoch, peer);
    }
    tt_join_block(l);
}

TT_FN struct tt_vec tt_idle_vec(void)
{
    const struct tt_vec idle = {{TT_IDLE, TT_IDLE, TT_IDLE, TT_IDLE}};

    return idle;
}

TT_FN void tt_finish_block(const struct tt_launch *l, int block, uint32_t next)
{
    ((struct tt_cuda_block *)l->arena)[block].epoch = l->epoch;
    ((struct tt_cuda_block *)l->arena)[block].next = next;
}

/* Put right what the launch before has left of its part, while there is something to wait for anyway: the
 * next to write there is a peer in the launch after the next. */
TT_FN void tt_clean(struct tt_launch *l)
{
    const uint32_t before = l->part == 0 ? TT_CUDA_PARTS - 1 : l->part - 1;
    unsigned char *at = l->arena + l->base->one_shot + before * l->base->one_shot_part;

    TT_ROLLED
    for (uint32_t i = (uint32_t)(TT_BLOCK * TT_THREADS + TT_THREAD); i < l->dirty;
         i += (uint32_t)(TT_BLOCKS * TT_THREADS))
        tt_store_shared16(at + (uint64_t)i * 16, tt_idle_vec());
    l->dirty = 0;
}

TT_FN void tt_end(struct tt_launch *l)
{
    const struct tt_cuda_base *b = l->base;
    const uint32_t part = l->part == TT_CUDA_PARTS - 1 ? 0 : l->part + 1;
    const uint32_t next = l->leaves << 2 | part;

    tt_clean(l);
    if (b->meet && TT_BLOCK == 0 && TT_THREAD < b->n_ranks && TT_THREAD != b->rank)
        tt_wait_flag(l, tt_flag(l->arena, TT_FLAG_ENTRY, 0, TT_THREAD), l->epoch, TT_THREAD);
    tt_grid_launch_next();
    tt_sync_block(); /* every thread has read the epoch */
    if (TT_THREAD == 0)
        tt_finish_block(l, TT_BLOCK, next);
    if (TT_BLOCK == 0) /* blocks that this launch does not have keep step */
        for (int i = TT_BLOCKS + TT_THREAD; i < TT_CUDA_MAX_BLOCKS; i += TT_THREADS)
            tt_finish_block(l, i, next);
}

#endif
