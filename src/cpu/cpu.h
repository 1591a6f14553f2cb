/* The CPU engine's own state, and the steps that its algorithms are made of. */
#ifndef TT_CPU_CPU_H
#define TT_CPU_CPU_H

#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/call.h"
#include "base/clock.h"
#include "base/engine.h"
#include "base/error.h"
#include "boot/boot.h"
#include "cpu/kernels.h"
#include "cpu/layout.h"
#include "cpu/pages.h"
#include "cpu/stall.h"

#define TT_CHUNK        (256u << 10) /* what an algorithm handles at a time: a part of a core's L2 cache */
#define TT_DEMOTE_BYTES 256u         /* up to here pushing lines out of the own cache saves time */
#define TT_TIMED_BYTES  (256u << 10) /* smaller calls are timed one in TT_TIMED_EVERY */
#define TT_TIMED_EVERY  16u

/* What one rank sends to and receives from each peer in a call, cut into chunks by the movers. */
struct tt_block {
    const unsigned char *out;
    size_t out_bytes;
    unsigned char *in;
    size_t in_bytes;
};

/* One lane: a sequence of calls with flags and scratch of its own. Ordinary calls use lane 0; the
 * threads of a team share out lanes 1 .. 16, so that no two threads ever touch the same one. */
struct tt_lane {
    struct tt_engine *e;
    uint64_t epoch;    /* meetings begun on this lane; the same on all ranks */
    uint64_t produced; /* steps posted within calls; the same on all ranks between calls */
    struct tt_lane_area *mine;
    size_t half_bytes;
    /* By parity of the epoch, worked out beforehand: it is on the way of the smallest calls. */
    const struct tt_arrival **arrivals[2]; /* [n_ranks - 1]: the peers', from the next rank on */
    const void **halves[2];                /* [n_ranks]: everybody's half of scratch, by rank */
    int index;
    uint64_t what;           /* the call that runs, see tt_what() */
    uint64_t bytes_to_note;  /* 1 + bytes of a call that is not in the counters yet; 0: it is */
    uint32_t weight;         /* 0: this call is not timed; else what its times count for */
    uint64_t mark;           /* tick at which the current stretch of time began */
    struct tt_block *blocks; /* [n_ranks]: workspace of the movers */
    const void **sources;    /* [n_ranks]: workspace of reductions */
    unsigned char *bounce;   /* private memory for what is read across memories */
    size_t bounce_bytes;
};

struct tt_peer {
    struct tt_rank_area *area;
    pid_t pid; /* as this process sees it; 0 if it cannot */
};

struct tutti_window {
    struct tt_engine *e;
    unsigned char *mine;
    size_t bytes;
    uint32_t index;       /* the same on all ranks */
    unsigned char **base; /* [n_ranks]: each rank's memory as mapped here */
    struct {
        unsigned char *at; /* NULL: one's own, or not mapped */
        size_t bytes;
    } * maps;              /* [n_ranks]: what to unmap */
    struct tt_parts parts; /* of this rank's memory */
};

struct tt_engine {
    int rank, n_ranks;
    struct tt_segment *segment;
    struct tt_peer *peers;     /* [n_ranks] */
    struct tt_rank_area *mine; /* peers[rank].area */
    const struct tt_kernels *kernels;
    void *workspace; /* blocks, sources and bounce buffers of all lanes */
    struct tt_lane lanes[TT_N_LANES];

    int *labels; /* [n_ranks]: what texts call the ranks */

    /* waiting (wait.c) */
    int (*idle)(void *context);
    void *idle_context;
    uint64_t timeout_ns;
    unsigned spins;    /* polls before giving up the core */
    uint64_t yield_ns; /* time spent yielding before going to sleep */
    int fence_posts;   /* ranks share cores: a post must see a sleeper at once */

    int xmem; /* all ranks can read and write each other's memory */
    int fd;   /* the segment; its byte r is locked for as long as rank r lives */
    struct tt_fd_mesh *mesh;
    uint64_t mesh_round;
    char name[32];
    char details[160];
    double ns_per_tick;

    tutti_window **windows; /* [n_windows_max], by index; NULL where deregistered */
    uint32_t n_windows, n_windows_max;
    uint32_t n_registered;            /* 0: collectives pay one branch for the feature */
    tutti_window *_Atomic recent[64]; /* what tutti_window_find() found last, by address */
    struct tt_p2p_channel *channels;  /* [n_ranks] (p2p.c) */
};

/* How far ahead a kernel should fetch lines when it works on so many bytes: short ones gain nothing. */
static inline size_t tt_ahead_for(size_t bytes)
{
    return bytes >= 8192 ? 2048 : 0;
}

/* The d'th rank after this one, going round. (A division would take longer.) */
static inline int tt_after(const struct tt_engine *e, int d)
{
    return e->rank + d < e->n_ranks ? e->rank + d : e->rank + d - e->n_ranks;
}

/* ---- what a call is (call.c) ---- */

#define TT_PURPOSE_SHIFT 57

/* A call in 64 bits, for the arrival line: ranks whose words differ made calls that do not match. */
static inline uint64_t tt_what(const struct tt_call *call)
{
    /* coll:5 dtype:5 op:4 algo:5 window_algo:5 team:1 root:32 purpose:7, from the lowest bit up */
    return (uint64_t)call->coll | (uint64_t)call->dtype << 5 | (uint64_t)call->op << 10 |
           (uint64_t)call->algo << 14 | (uint64_t)call->window_algo << 19 |
           (uint64_t)(call->n_threads != TT_TEAM_NONE) << 24 |
           (uint64_t)(uint32_t)call->root << 25 | (uint64_t)call->purpose << TT_PURPOSE_SHIFT;
}
void tt_stats_read(const struct tt_stats_area *area, tutti_stats *stats); /* live.c */
void tt_what_text(uint64_t what, char *text, size_t bytes);               /* "all_reduce f32 sum" */
uint64_t tt_hash_on(uint64_t hash, uint64_t x); /* a hash of one number more */
uint64_t tt_counts_hash(const size_t *counts, size_t n);

/* ---- waiting and failing (wait.c) ---- */

/* Wait until *flag, which rank r stores, is at least `value`; the part that takes time. */
tutti_result tt_wait_slow(struct tt_engine *e, int r, const _Atomic uint64_t *flag, uint64_t value);

/* One step of waiting for rank r without a condition, for loops that make progress themselves. A peer
 * that was seen gone, or late, fails the step after: what it did last counts, so it is looked for once more. */
struct tt_idle { /* since something moved; zero at first */
    unsigned rounds;
    int is_gone, is_late;
    uint64_t since_ns, seen_ns; /* the first step that was timed, but for stops; the last one */
};
tutti_result tt_wait_pause(struct tt_engine *e, int r, struct tt_idle *idle);

/* What the others know of this rank's own waiting: it has lasted long, or it is over. */
void tt_engine_waits(struct tt_engine *e, int is_long);

void tt_wake(struct tt_engine *e);     /* ring this rank's doorbell */
void tt_wake_all(struct tt_engine *e); /* ring everybody's */

enum tt_failure {
    TT_FAILURE_NONE,
    TT_DIED,
    TT_LEFT,
    TT_LATE,
    TT_MISMATCH,
    TT_ABORT,
    TT_OUTSIDE /* what an engine composed of this one has seen (compose.c) */
};

/* Record the first failure for everybody, and return it as this rank's result with its text. */
tutti_result tt_engine_fail(struct tt_engine *e, enum tt_failure why, int rank, uint64_t detail,
                            uint64_t count);
/* The same for what was seen outside this engine; `peer` as the text calls it, or -1. */
tutti_result tt_engine_fail_outside(struct tt_engine *e, tutti_result result, int peer,
                                    const char *text);
/* The recorded failure as a result with its text; TUTTI_OK if there is none. */
tutti_result tt_engine_failed(const struct tt_engine *e);
void tt_engine_state(const struct tt_engine *e, tutti_comm_state *state);
int tt_peer_alive(struct tt_engine *e, int r);
void tt_wait_configure(struct tt_engine *e, int crowded, int mode);

/* Polls without a pause, which would cost more than most flags take to come. */
#define TT_TIGHT_POLLS 100u

static inline tutti_result tt_await(struct tt_engine *e, int r, const _Atomic uint64_t *flag,
                                    uint64_t value)
{
    TT_STALL();
    for (unsigned i = 0; i < TT_TIGHT_POLLS; i++)
        if (tt_load_acquire(flag) >= value || TT_BROKEN(EPOCH))
            return TUTTI_OK;
    return tt_wait_slow(e, r, flag, value);
}

/* Around what this rank stores into peers' buffers. Whoever gives up waits for those who are at it
 * (tt_wait_stored), for the buffers are then its caller's; whoever begins later finds that it has. */
static inline tutti_result tt_store_begin(struct tt_engine *e)
{
    const int early = TT_BROKEN(GUARD) && atomic_load(&e->segment->failure) == 0;

    if (early)
        TT_STALL_LONG();
    atomic_fetch_add(&e->mine->storing, 1);
    if (__builtin_expect(early || atomic_load(&e->segment->failure) == 0, 1))
        return TUTTI_OK;
    atomic_fetch_sub(&e->mine->storing, 1);
    return tt_engine_failed(e);
}

static inline void tt_store_end(struct tt_engine *e)
{
    atomic_fetch_sub_explicit(&e->mine->storing, 1, memory_order_release);
}

/* For between the pieces of what takes long: the failure that somebody has recorded, if any. (Where the guard above is
 * broken on purpose, this look must not stand in for it.) */
static inline tutti_result tt_go_on(const struct tt_engine *e)
{
    const int fine = tt_load_relaxed(&e->segment->failure) == 0 || TT_BROKEN(GUARD);

    return __builtin_expect(fine, 1) ? TUTTI_OK : tt_engine_failed(e);
}

/* A few milliseconds of work, and much less than it takes to give up (tt_wait_stored). */
#define TT_AT_ONCE ((size_t)16 << 20)

/* Copy a block of any length by one of the kernels, or as memory of one's own (NULL). */
static inline tutti_result tt_copy(const struct tt_engine *e, tt_copy_fn kernel, void *to,
                                   const void *from, size_t bytes)
{
    const size_t ahead = tt_ahead_for(bytes);

    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < TT_AT_ONCE ? bytes - done : TT_AT_ONCE;
        TT_TRY(tt_go_on(e));
        if (kernel)
            kernel((unsigned char *)to + done, (const unsigned char *)from + done, n, ahead);
        else
            memcpy((unsigned char *)to + done, (const unsigned char *)from + done, n);
    }
    return TUTTI_OK;
}

/* After a failure, which is recorded: until no peer stores any more, at most 50 ms (one may be stopped). */
void tt_wait_stored(struct tt_engine *e);

static inline int tt_has_sleepers(const struct tt_engine *e)
{
    return atomic_load_explicit(&e->mine->sleepers, memory_order_relaxed) != 0;
}

/* Publish a flag of one's own: what was stored before is seen by whoever sees the flag. */
static inline void tt_post(struct tt_engine *e, _Atomic uint64_t *flag, uint64_t value)
{
    const int early = TT_BROKEN(WAKE) && tt_has_sleepers(e);

    TT_STALL();
    tt_store_release(flag, value);
    if (e->fence_posts)
        atomic_thread_fence(memory_order_seq_cst);
    if (__builtin_expect(TT_BROKEN(WAKE) ? early : tt_has_sleepers(e), 0))
        tt_wake(e);
}

/* Where a rule is broken: the flag before what it announces. */
static inline void tt_post_early(int is_broken, struct tt_engine *e, _Atomic uint64_t *flag,
                                 uint64_t value)
{
    if (!is_broken)
        return;
    tt_post(e, flag, value);
    TT_STALL();
}

/* ---- meeting (lane.c): every call begins with one ---- */

struct tt_ticket {
    uint64_t what, count, can, send, recv, longest;
};

struct tt_meeting {
    uint64_t all_can, any_can; /* over all ranks */
    uint64_t longest;
};

void tt_lane_note(struct tt_lane *ln); /* count the call of bytes_to_note */

/* Wait for everybody's arrival and compare tickets. */
tutti_result tt_lane_meet(struct tt_lane *ln, const struct tt_ticket *t, struct tt_meeting *m);

/* Rank r's arrival does not match: the end of the communicator. */
tutti_result tt_lane_mismatch(struct tt_lane *ln, int r);

/* All ranks reach this before any leaves: the end of calls that touch the peers' own buffers. */
tutti_result tt_lane_barrier(struct tt_lane *ln);

static inline struct tt_lane_area *tt_lane_of(const struct tt_lane *ln, int r)
{
    return &ln->e->peers[r].area->lanes[ln->index];
}

static inline struct tt_arrival *tt_arrival_of(const struct tt_lane *ln, int r)
{
    return &tt_lane_of(ln, r)->arrival[ln->epoch & 1];
}

static inline unsigned char *tt_scratch_of(const struct tt_lane *ln, int r)
{
    return (unsigned char *)(uintptr_t)ln->halves[TT_BROKEN(PARITY) ? 0 : ln->epoch & 1][r];
}

/* ---- time of a call, by what it went to ---- */

static inline void tt_time_start(struct tt_lane *ln)
{
    if (ln->weight)
        ln->mark = tt_ticks();
}

static inline void tt_time_add(struct tt_lane *ln, _Atomic uint64_t *sum)
{
    if (ln->weight) {
        const uint64_t now = tt_ticks();

        tt_store_relaxed(sum, tt_load_relaxed(sum) +
                                  (uint64_t)((double)(now - ln->mark) * ln->e->ns_per_tick) *
                                      ln->weight);
        ln->mark = now;
    }
}

/* Begin a meeting on this lane: the next epoch, whose half of the scratch is free from here on. */
static inline void tt_lane_begin(struct tt_lane *ln, size_t bytes)
{
    ln->epoch++;
    ln->weight = bytes >= TT_TIMED_BYTES ? 1 : ln->epoch % TT_TIMED_EVERY ? 0 : TT_TIMED_EVERY;
    tt_time_start(ln);
}

static inline void tt_lane_arrive(struct tt_lane *ln, const struct tt_ticket *t)
{
    struct tt_arrival *a = &ln->mine->arrival[ln->epoch & 1];

    tt_store_relaxed(&a->what, t->what);
    tt_store_relaxed(&a->count, t->count);
    tt_store_relaxed(&a->can, t->can);
    tt_store_relaxed(&a->send, t->send);
    tt_store_relaxed(&a->recv, t->recv);
    tt_store_relaxed(&a->longest, t->longest);
    tt_fetch_to_write(&ln->mine->produced);
    tt_post(ln->e, &a->epoch, ln->epoch);
}

/* The same for calls that offer nothing and have no blocks: fewer fields, no meeting to look at. */
static inline void tt_lane_arrive_plain(struct tt_lane *ln, uint64_t count)
{
    struct tt_arrival *a = &ln->mine->arrival[ln->epoch & 1];

    tt_store_relaxed(&a->what, ln->what);
    tt_store_relaxed(&a->count, count);
    tt_store_relaxed(&a->can, 0);
    tt_post(ln->e, &a->epoch, ln->epoch);
}

/* TUTTI_IN_PROGRESS if some rank offered to be reached: all run again. The first `fetch` bytes of a
 * rank's scratch are fetched as soon as it has arrived, while the others are waited for. */
static inline tutti_result tt_lane_meet_plain(struct tt_lane *ln, uint64_t count, size_t fetch)
{
    struct tt_engine *e = ln->e;
    uint64_t any = 0;

    if (ln->bytes_to_note)
        tt_lane_note(ln);
    for (int i = 0; i + 1 < e->n_ranks; i++) {
        const struct tt_arrival *a = ln->arrivals[ln->epoch & 1][i];
        const int r = tt_after(e, 1 + i);

        TT_TRY(tt_await(e, r, &a->epoch, ln->epoch));
        if (__builtin_expect(
                tt_load_relaxed(&a->what) != ln->what || tt_load_relaxed(&a->count) != count, 0))
            return tt_lane_mismatch(ln, r);
        any |= tt_load_relaxed(&a->can);
        for (size_t at = 0; at < fetch; at += 64)
            __builtin_prefetch(tt_scratch_of(ln, r) + at, 0, 3);
    }
    tt_time_add(ln, &e->mine->stats.wait_ns);
    return any ? TUTTI_IN_PROGRESS : TUTTI_OK;
}

/* At the end of a meeting: ask for the lines that the next one will write first, back from the peers who
 * have read them, so that its stores do not wait for that. All peers have arrived here, so they are
 * through with both. Nobody waits for the lines; more than TT_READY_MOST would hold up what follows. */
#define TT_READY_MOST ((size_t)1024)

static inline void tt_lane_ready(const struct tt_lane *ln, size_t at, size_t bytes)
{
    const uint64_t next = (ln->epoch + 1) & 1;
    const unsigned char *half = ln->halves[next][ln->e->rank];

    tt_fetch_to_write(&ln->mine->arrival[next]);
    if (bytes > TT_READY_MOST)
        bytes = TT_READY_MOST;
    for (size_t line = at; line < at + bytes; line += 64)
        tt_fetch_to_write(half + line);
}

/* ---- algorithms, one file each ----
 *
 * Each carries out one call on one lane, and returns TUTTI_IN_PROGRESS when the ranks, having met,
 * find that some offered to be reached and some did not: all of them then run again, offering less
 * (cpu_run.c).
 */

/* The part of a call that a lane handles: the part'th of `parts` equal shares of every block. */
struct tt_share {
    unsigned part, parts;
    int windows; /* may offer windows */
    int xmem;    /* may offer to be reached across memories */
};

/* Elements [*first, *first + *n) of `count` that are this share's; lines are not split. */
void tt_share_of(struct tt_share share, size_t count, size_t element_bytes, size_t *first,
                 size_t *n);

/* all_reduce of send[count] on this lane; by two-shot also reduce, where recv may be NULL on all but root. */
tutti_result tt_all_reduce_one_shot(struct tt_lane *ln, const struct tt_call *call,
                                    const unsigned char *send, unsigned char *recv, size_t count);
tutti_result tt_all_reduce_two_shot(struct tt_lane *ln, const struct tt_call *call,
                                    const unsigned char *send, unsigned char *recv, size_t count);
tutti_result tt_all_reduce_reach(struct tt_lane *ln, const struct tt_call *call,
                                 const unsigned char *send, unsigned char *recv, size_t count,
                                 struct tt_share offers);

/* A broadcast so small that its overhead counts, whatever memory it is in (broadcast_shot.c). */
int tt_broadcast_is_short(const struct tt_call *call);
tutti_result tt_broadcast_short(struct tt_lane *ln, const struct tt_call *call);

/* Every other collective but barrier: through scratch, or from memory to memory. */
tutti_result tt_move_staged(struct tt_lane *ln, const struct tt_call *call, struct tt_share share);
tutti_result tt_move_reach(struct tt_lane *ln, const struct tt_call *call, struct tt_share share);

/* The rest of an all_to_allv whose ranks have met and written notes: copy across memories. */
tutti_result tt_move_noted(struct tt_lane *ln, const struct tt_call *call);
tutti_result tt_cpu_barrier(struct tt_lane *ln);
tutti_result tt_cpu_run(struct tt_engine *e, const struct tt_call *call); /* cpu_run.c */

/* all_gatherv_rows (move_rows.c): rows between scratch, from byte `at` of rank r's on, and their tensors; the own
 * ones; whether they are long enough to go across memories, where the tensors are, told before the ranks
 * meet, and the own rows stored there. */
void tt_rows_copy(struct tt_lane *ln, const struct tt_call *call, int r, size_t at, size_t bytes,
                  unsigned char *scratch, int out);
tutti_result tt_rows_keep_own(const struct tt_engine *e, const struct tt_call *call);
int tt_rows_go_across(const struct tt_call *call, int n_ranks);
void tt_rows_tell(const struct tt_lane *ln, const struct tt_call *call);
tutti_result tt_rows_push(struct tt_lane *ln, const struct tt_call *call);

struct tt_ticket tt_move_ticket(const struct tt_lane *ln, const struct tt_call *call);

/* all_to_allv only: tell every peer how long its block is and where to put the one it sends; see what they
 * say. */
void tt_notes_write(struct tt_lane *ln);
tutti_result tt_notes_check(struct tt_lane *ln);
uint64_t tt_note_address(const struct tt_lane *ln, int from);

/* An all-gather of small records, for the engine's own use. */
tutti_result tt_cpu_exchange(struct tt_engine *e, enum tt_purpose purpose, const void *send,
                             void *recv, size_t bytes);

/* Fill ln->blocks for this rank's share of a call. 1 if all peers get the same outgoing block. */
int tt_blocks_fill(struct tt_lane *ln, const struct tt_call *call, struct tt_share share);

/* ---- reaching a peer's own memory (xmem.c) ---- */

tutti_result tt_xmem_read(struct tt_engine *e, int r, void *dst, uint64_t src, size_t bytes);
tutti_result tt_xmem_write(struct tt_engine *e, int r, uint64_t dst, const void *src, size_t bytes);
tutti_result tt_xmem_write_all(struct tt_engine *e, int r, const struct iovec to[],
                               const struct iovec from[], size_t n);

/* 1 if this rank can read and write every peer: their random tokens, at these addresses in them. */
int tt_xmem_probe(struct tt_engine *e, const uint64_t addresses[], const uint64_t tokens[]);

/* ---- windows (window.c) ---- */

tutti_result tt_cpu_mem_alloc(struct tt_engine *e, size_t bytes, void **ptr_out);
tutti_result tt_cpu_mem_free(struct tt_engine *e, void *ptr);
tutti_result tt_cpu_window_register(struct tt_engine *e, void *ptr, size_t bytes,
                                    tutti_window **window_out);
tutti_result tt_cpu_window_deregister(struct tt_engine *e, tutti_window *window);
tutti_window *tt_cpu_window_find(struct tt_engine *e, const void *ptr, size_t bytes);
void *tt_cpu_window_base(struct tt_engine *e, const tutti_window *window, int rank);
void tt_cpu_windows_free(struct tt_engine *e);

/* Window and offset in 64 bits, and back to an address in this process. */
#define TT_WINDOW_SHIFT 48
uint64_t tt_window_word(const tutti_window *w, const void *ptr);
static inline unsigned char *tt_window_at(const struct tt_engine *e, int r, uint64_t word)
{
    return e->windows[word >> TT_WINDOW_SHIFT]->base[r] +
           (word & ((UINT64_C(1) << TT_WINDOW_SHIFT) - 1));
}

/* ---- the segment (segment.c) ---- */

tutti_result tt_segment_open(struct tt_engine *e, const struct tt_engine_config *config);
void tt_segment_populate(struct tt_engine *e);
void tt_segment_close(struct tt_engine *e);

/* ---- sends and receives (p2p.c) ---- */

tutti_result tt_p2p_open(struct tt_engine *e);
void tt_p2p_close(struct tt_engine *e);
tutti_result tt_p2p_run(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops);
int tt_p2p_is_open(const struct tt_engine *e, int r); /* something to or from rank r is under way */

#endif
