/*
 * Waiting for a peer, and what ends a wait: its flag, the deadline, its death, a failure that
 * somebody else recorded. Poll a little, then yield the core, then sleep on the peer's doorbell;
 * only a wait that long pays for clocks and checks.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "cpu/cpu_engine.h"

#define RECORD_NS      UINT64_C(50000000)
#define STORED_NS      UINT64_C(50000000)
#define FIRST_NAP_NS   UINT64_C(1000000)
#define LONGEST_NAP_NS UINT64_C(20000000)
#define PAUSE_NS       UINT64_C(200000)
#define STOPPED_NS     UINT64_C(1000000000)
#define IDLE_NAP_NS    UINT64_C(500000) /* where somebody else has work to do in our waits */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, (uint32_t *)(void *)word, op, value, timeout, NULL, 0);
}

static void ring(struct tt_rank_area *area)
{
    atomic_fetch_add(&area->doorbell, 1);
    futex(&area->doorbell, FUTEX_WAKE, INT_MAX, NULL);
}

void tt_wake(struct tt_engine *e)
{
    ring(e->mine);
}

void tt_wake_all(struct tt_engine *e)
{
    for (int r = 0; r < e->n_ranks; r++)
        ring(e->peers[r].area);
}

/* A rank lives as long as it holds the lock on its byte of the segment. A forked child keeps its
 * parent's lock, so a process that is known to be gone is dead whatever the lock says. */
int tt_peer_alive(struct tt_engine *e, int r)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = r, .l_len = 1};

    if (e->peers[r].pid > 0 && kill(e->peers[r].pid, 0) != 0 && errno == ESRCH)
        return 0;
    if (fcntl(e->fd, F_OFD_GETLK, &lock) != 0)
        return 1; /* cannot tell: the deadline will */
    return lock.l_type != F_UNLCK;
}

/* ---- failures: why:8 rank:16 epoch:40, so that one compare-exchange records the first ---- */

static uint64_t failure_word(enum tt_failure why, int rank, uint64_t epoch)
{
    return (uint64_t)why | (uint64_t)(uint16_t)rank << 8 | epoch << 24;
}

static int label(const struct tt_engine *e, int rank)
{
    return e->labels ? e->labels[rank] : rank;
}

/* Where this rank is, beside the call that failed. An abort belongs to no call. What is told to other hosts ends
 * before these words (tt_hier_reason). */
static void where_text(const struct tt_engine *e, uint64_t failure, char *text, size_t bytes)
{
    const struct tt_stats_area *st = &e->mine->stats;
    const unsigned long long last = tt_load_relaxed(&st->sequence), failed = failure >> 24;
    const enum tt_failure why = (enum tt_failure)(failure & 0xff);
    const int64_t outside = (int64_t)tt_load_relaxed(&e->segment->failure_detail);
    const int me = label(e, e->rank);
    char what[48];

    tt_what_text(tt_load_relaxed(&st->last_what), what, sizeof(what));
    if (tt_load_relaxed(&st->n_calls) == 0)
        snprintf(text, bytes, "this rank %d had made no call", me);
    else if (why == TT_ABORT || (why == TT_OUTSIDE && outside == TUTTI_E_ABORTED))
        snprintf(text, bytes, "this rank %d was in or after %s, call %llu", me, what, last);
    else if (last < failed)
        snprintf(text, bytes, "this rank %d had not come to call %llu: its last was %s, call %llu",
                 me, failed, what, last);
    else
        snprintf(text, bytes, "this rank %d was in %s, call %llu", me, what, last);
}

static tutti_result failure_text(const struct tt_engine *e, char *text, size_t bytes, int *rank_out)
{
    const struct tt_segment *s = e->segment;
    const uint64_t word = tt_load_acquire(&s->failure);
    const int index = (int)(word >> 8 & 0xffff), rank = index < e->n_ranks ? label(e, index) : -1;
    char other[48], late[TT_RANKS_TEXT], where[128];

    *rank_out = rank;
    where_text(e, word, where, sizeof(where));
    switch ((enum tt_failure)(word & 0xff)) {
    case TT_FAILURE_NONE: *rank_out = -1; return TUTTI_OK;
    case TT_DIED:
        snprintf(text, bytes, "communicator %s: rank %d (pid %d) died%s%.100s; %s", e->name, rank,
                 (int)e->peers[index].pid, s->failure_text[0] ? ", as did " : "", s->failure_text,
                 where);
        return TUTTI_E_PEER;
    case TT_LEFT:
        snprintf(text, bytes,
                 "communicator %s: rank %d has destroyed its communicator, which a call needs; %s",
                 e->name, rank, where);
        return TUTTI_E_PEER;
    case TT_LATE:
        tt_ranks_text(&rank, 1, late);
        if (s->failure_text[0]) /* or whoever took the record died over it */
            snprintf(late, sizeof(late), "%s", s->failure_text);
        snprintf(text, bytes,
                 "communicator %s: %s did not arrive within %llu ms: %s stopped, busy or in "
                 "another call; %s",
                 e->name, late, (unsigned long long)(e->timeout_ns / 1000000),
                 late[4] == 's' ? "they are" : "it is", where);
        return TUTTI_E_TIMEOUT;
    case TT_MISMATCH:
        tt_what_text(tt_load_relaxed(&s->failure_detail), other, sizeof(other));
        snprintf(text, bytes,
                 "communicator %s: call %llu does not match: rank %d made %s (count or hash %llu), "
                 "another rank something else; %s, %llu bytes",
                 e->name, (unsigned long long)(word >> 24), rank, other,
                 (unsigned long long)tt_load_relaxed(&s->failure_count), where,
                 (unsigned long long)tt_load_relaxed(&e->mine->stats.last_bytes));
        return TUTTI_E_MISMATCH;
    case TT_ABORT:
        snprintf(text, bytes, "communicator %s: aborted by rank %d; %s", e->name, rank, where);
        return TUTTI_E_ABORTED;
    case TT_OUTSIDE: {
        const int64_t result = (int64_t)tt_load_relaxed(&s->failure_detail);

        *rank_out = (int)(int64_t)tt_load_relaxed(&s->failure_count);
        snprintf(text, bytes, "communicator %s: %.*s; %s", e->name,
                 (int)(bytes - strlen(e->name) - strlen(where) - 20), s->failure_text, where);
        return result < 0 ? (tutti_result)result : TUTTI_E_PEER;
    }
    }
    return TUTTI_E_INTERNAL;
}

tutti_result tt_engine_failed(const struct tt_engine *e)
{
    char text[256];
    int rank;
    tutti_result res;

    if (tt_load_relaxed(&e->segment->failure) == 0)
        return TUTTI_OK;
    res = failure_text(e, text, sizeof(text), &rank);
    return TT_FAIL(res, "%s", text);
}

/* The first to see a failure takes the record, describes it, and then makes it count. A rank that
 * comes second waits for that, but not for ever: the first may be killed in between. */
static void record(struct tt_engine *e, uint64_t word, uint64_t detail, uint64_t count,
                   const char *text)
{
    struct tt_segment *s = e->segment;
    uint64_t none = 0;

    if (atomic_compare_exchange_strong(&s->failure_taken, &none, 1)) {
        tt_store_relaxed(&s->failure_detail, detail);
        tt_store_relaxed(&s->failure_count, count);
        snprintf(s->failure_text, sizeof(s->failure_text), "%s", text);
        tt_store_release(&s->failure, word);
    } else {
        const uint64_t start = tt_now_ns();

        while (tt_load_acquire(&s->failure) == 0 && tt_now_ns() - start < RECORD_NS)
            sched_yield();
        none = 0;
        atomic_compare_exchange_strong(&s->failure, &none, word);
    }
    tt_wake_all(e);
}

tutti_result tt_engine_fail(struct tt_engine *e, enum tt_failure why, int rank, uint64_t detail,
                            uint64_t count)
{
    record(e, failure_word(why, rank, tt_load_relaxed(&e->mine->stats.sequence)), detail, count,
           "");
    return tt_engine_failed(e);
}

tutti_result tt_engine_fail_outside(struct tt_engine *e, tutti_result result, int peer,
                                    const char *text)
{
    record(e, failure_word(TT_OUTSIDE, e->rank, tt_load_relaxed(&e->mine->stats.sequence)),
           (uint64_t)(int64_t)result, (uint64_t)(int64_t)peer, text);
    return tt_engine_failed(e);
}

void tt_engine_state(const struct tt_engine *e, tutti_comm_state *state)
{
    state->sequence = tt_load_relaxed(&e->mine->stats.sequence);
    state->text[0] = 0;
    state->result = failure_text(e, state->text, sizeof(state->text), &state->peer);
    if (state->result != TUTTI_OK && state->result != TUTTI_E_ABORTED)
        state->sequence = tt_load_relaxed(&e->segment->failure) >> 24;
}

/* ---- waiting ---- */

static int has_left(const struct tt_engine *e, int r)
{
    return atomic_load_explicit(&e->peers[r].area->left, memory_order_acquire) != 0;
}

/* A rank that leaves says so before it gives up its lock, so it is asked again once that is gone. */
static enum tt_failure why_gone(struct tt_engine *e, int r)
{
    if (r == e->rank)
        return TT_FAILURE_NONE;
    if (has_left(e, r))
        return TT_LEFT;
    if (tt_peer_alive(e, r))
        return TT_FAILURE_NONE;
    return has_left(e, r) ? TT_LEFT : TT_DIED;
}

enum tt_presence tt_cpu_presence(struct tt_engine *e, int rank)
{
    switch (why_gone(e, rank)) {
    case TT_DIED: return TT_HAS_DIED;
    case TT_LEFT: return TT_HAS_LEFT;
    default: return TT_IS_THERE;
    }
}

/* Rank r is gone. All who have died by now are named; who dies later may do so because of this. */
static tutti_result fail_gone(struct tt_engine *e, enum tt_failure why, int r)
{
    int dead[TT_CPU_MAX_RANKS] = {0}, n = 0;
    char text[TT_RANKS_TEXT] = "";

    for (int q = 0; why == TT_DIED && q < e->n_ranks; q++)
        if (q != r && why_gone(e, q) == TT_DIED)
            dead[n++] = label(e, q);
    if (n > 0)
        tt_ranks_text(dead, n, text);
    record(e, failure_word(why, r, tt_load_relaxed(&e->mine->stats.sequence)), 0, 0, text);
    return tt_engine_failed(e);
}

/* What ends a long wait other than the flag, which is looked at again after the peer was seen gone: its
 * last post counts. */
static tutti_result check_peer(struct tt_engine *e, int r, const _Atomic uint64_t *flag,
                               uint64_t value)
{
    enum tt_failure why;

    TT_TRY(tt_engine_failed(e));
    why = why_gone(e, r);
    if (why == TT_FAILURE_NONE || tt_load_acquire(flag) >= value)
        return TUTTI_OK;
    return fail_gone(e, why, r);
}

void tt_engine_waits(struct tt_engine *e, int is_long)
{
    _Atomic uint32_t *waits = &e->mine->waits;

    if (atomic_load_explicit(waits, memory_order_relaxed) != (uint32_t)is_long)
        atomic_store_explicit(waits, (uint32_t)is_long, memory_order_release);
}

static int has_waited(const struct tt_engine *e, int r)
{
    return atomic_load_explicit(&e->peers[r].area->waits, memory_order_acquire) != 0;
}

/* A peer that waits itself will say who is at fault, later than this deadline. */
static int is_late(struct tt_engine *e, int r, uint64_t waited_ns)
{
    if (tt_is_long_wait(waited_ns, e->timeout_ns))
        tt_engine_waits(e, 1);
    return tt_is_overdue(waited_ns, e->timeout_ns, has_waited(e, r));
}

/* Has rank q not come either to where this rank waits for rank r? Areas are alike, so q's flag is where r's is in
 * its own; sends and receives wait for those who have not done their part. */
static int is_missing(const struct tt_engine *e, int q, int r, const _Atomic uint64_t *flag,
                      uint64_t value)
{
    const unsigned char *theirs = (const unsigned char *)e->peers[q].area;

    if (q == e->rank || q == r)
        return q == r;
    if (has_waited(e, q))
        return 0;
    if (!flag)
        return tt_p2p_is_open(e, q);
    theirs += (const unsigned char *)flag - (const unsigned char *)e->peers[r].area;
    return tt_load_acquire((const _Atomic uint64_t *)(const void *)theirs) < value;
}

/* The deadline is over: all who are missing are named, the lowest first. One that is gone explains more; whether it is
 * comes before a look at its flag, for its last post counts. */
static tutti_result fail_late(struct tt_engine *e, int r, const _Atomic uint64_t *flag,
                              uint64_t value)
{
    int missing[TT_CPU_MAX_RANKS] = {0}, first = -1, n = 0;
    char text[TT_RANKS_TEXT];

    for (int q = 0; q < e->n_ranks; q++) {
        const enum tt_failure why = why_gone(e, q);

        if (!is_missing(e, q, r, flag, value))
            continue;
        if (why != TT_FAILURE_NONE)
            return fail_gone(e, why, q);
        first = n == 0 ? q : first;
        missing[n++] = label(e, q);
    }
    tt_ranks_text(missing, n, text);
    record(e, failure_word(TT_LATE, first, tt_load_relaxed(&e->mine->stats.sequence)), 0, 0, text);
    return tt_engine_failed(e);
}

/* Sleep until rank r rings, at most `ns`. */
static void nap(struct tt_engine *e, int r, const _Atomic uint64_t *flag, uint64_t value,
                uint64_t ns)
{
    struct tt_rank_area *area = e->peers[r].area;
    const struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    const uint32_t bell = atomic_load(&area->doorbell);
    struct tt_stats_area *st = &e->mine->stats;

    atomic_fetch_add(&area->sleepers, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (!flag || tt_load_acquire(flag) < value || TT_BROKEN(LOOK))
        futex(&area->doorbell, FUTEX_WAIT, bell, &t);
    atomic_fetch_sub(&area->sleepers, 1);
    tt_store_relaxed(&st->n_sleeps, tt_load_relaxed(&st->n_sleeps) + 1);
}

/* What took far longer than asked: this process was stopped, not its peer late. The wait began later then. */
static void forgive_stop(uint64_t *start, uint64_t before, uint64_t now, uint64_t asked_ns)
{
    if (now - before > asked_ns + STOPPED_NS)
        *start += now - before - asked_ns;
}

static tutti_result wait_asleep(struct tt_engine *e, int r, const _Atomic uint64_t *flag,
                                uint64_t value, uint64_t start)
{
    uint64_t before = tt_now_ns(), length = FIRST_NAP_NS;

    for (;;) {
        const uint64_t deadline = start + e->timeout_ns;
        const uint64_t left = deadline > before ? deadline - before : length;
        uint64_t now;

        if (e->idle && (length = IDLE_NAP_NS) && e->idle(e->idle_context))
            length = IDLE_NAP_NS / 16;
        nap(e, r, flag, value, TT_NAP(left < length ? left : length));
        if (tt_load_acquire(flag) < value)
            TT_TRY(check_peer(e, r, flag, value));
        if (tt_load_acquire(flag) >= value) {
            tt_engine_waits(e, 0);
            return TUTTI_OK;
        }
        now = tt_now_ns();
        forgive_stop(&start, before, now, length);
        before = now;
        if (is_late(e, r, now - start))
            return fail_late(e, r, flag, value);
        length = length * 2 < LONGEST_NAP_NS ? length * 2 : LONGEST_NAP_NS;
    }
}

tutti_result tt_wait_slow(struct tt_engine *e, int r, const _Atomic uint64_t *flag, uint64_t value)
{
    uint64_t start;

    for (unsigned i = 0; i < e->spins; i++) {
        tt_pause();
        if (tt_load_acquire(flag) >= value)
            return TUTTI_OK;
    }
    start = tt_now_ns();
    tt_engine_waits(e, 0);
    do {
        for (int i = 0; i < 8; i++) {
            sched_yield();
            if (tt_load_acquire(flag) >= value)
                return TUTTI_OK;
        }
        if (e->idle)
            (void)e->idle(e->idle_context);
        TT_TRY(tt_engine_failed(e));
    } while (tt_now_ns() - start < e->yield_ns);
    forgive_stop(&start, start, tt_now_ns(), e->yield_ns);
    return wait_asleep(e, r, flag, value, start);
}

/* Since something moved last, without the time in which this process was stopped. */
static uint64_t has_paused(struct tt_idle *idle)
{
    const uint64_t now = tt_now_ns();

    if (idle->since_ns == 0)
        idle->since_ns = idle->seen_ns = now;
    forgive_stop(&idle->since_ns, idle->seen_ns, now, PAUSE_NS);
    idle->seen_ns = now;
    return now - idle->since_ns;
}

tutti_result tt_wait_pause(struct tt_engine *e, int r, struct tt_idle *idle)
{
    enum tt_failure why;
    uint64_t waited_ns;

    if (idle->since_ns == 0)
        tt_engine_waits(e, 0);
    if (e->idle && idle->rounds % 16 == 0 && e->idle(e->idle_context)) {
        *idle = (struct tt_idle){.rounds = 1};
        return TUTTI_OK;
    }
    if (idle->rounds++ < e->spins) {
        if (idle->rounds > TT_TIGHT_POLLS)
            tt_pause();
        return TUTTI_OK;
    }
    waited_ns = has_paused(idle);
    TT_TRY(tt_engine_failed(e));
    if (waited_ns < e->yield_ns) {
        sched_yield();
        return TUTTI_OK;
    }
    if (!idle->is_gone)
        nap(e, r, NULL, 0, PAUSE_NS);
    TT_TRY(tt_engine_failed(e));
    why = why_gone(e, r);
    if (why != TT_FAILURE_NONE && idle->is_gone)
        return fail_gone(e, why, r);
    idle->is_gone = why != TT_FAILURE_NONE;
    if (!is_late(e, r, has_paused(idle)))
        idle->is_late = 0;
    else if (idle->is_late++)
        return fail_late(e, r, NULL, 0);
    return TUTTI_OK;
}

static int is_storing(struct tt_engine *e, int r)
{
    return r != e->rank && atomic_load(&e->peers[r].area->storing) != 0 && tt_peer_alive(e, r);
}

void tt_wait_stored(struct tt_engine *e)
{
    const uint64_t end = tt_now_ns() + STORED_NS;

    atomic_thread_fence(memory_order_seq_cst);
    for (int r = 0; r < e->n_ranks && !TT_BROKEN(LEAVE); r++)
        while (is_storing(e, r) && tt_now_ns() < end)
            sched_yield();
}

/* mode: as the words of TUTTI_CPU_WAIT: auto, spin, yield, sleep. */
void tt_wait_configure(struct tt_engine *e, int crowded, int mode)
{
    const int spin = mode == 1 || (mode == 0 && !crowded);

    e->spins = spin ? 2000 : 0; /* about 100 us where a pause takes 50 ns */
    e->yield_ns = mode == 3 ? 0 : UINT64_C(2000000);
    e->fence_posts = !spin;
}
