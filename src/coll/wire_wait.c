/*
 * Waiting for messages, and what ends a wait: a failure on this host, a notice from another one, a
 * peer that the network has lost or that has left, the deadline.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "coll/wire_parts.h"

#define POLLS      400u                 /* before giving up the core */
#define YIELD_NS   UINT64_C(2000000)    /* before going to sleep */
#define NAP_NS     UINT64_C(1000000)    /* what local failures may have to wait */
#define STOPPED_NS UINT64_C(1000000000) /* a gap that long: this process was stopped */
#define TELL_NS    UINT64_C(100000000) /* to tell others that this rank ends, since anything moved */
#define TELL_MOST  UINT64_C(1000000000) /* and in all */

/* ---- notices: one for each rank, in its place in the arena; then its number in the bell ---- */

static tutti_result read_notice(struct tt_wire *w, int peer)
{
    const uint64_t *words =
        (const uint64_t *)(void *)((unsigned char *)tt_wire_place(w, peer) + w->notice_at);
    struct tt_wire_notice notice;

    if (!tt_packet_notice(words, w->n_ranks, &notice))
        return TUTTI_OK;
    w->culprit = notice.peer;
    return TT_FAIL(notice.result, "%s", notice.text);
}

static tutti_result read_notices(struct tt_wire *w)
{
    const _Atomic uint64_t *bell = (_Atomic uint64_t *)(void *)(w->arena + TT_WIRE_BELL);

    if (tt_load_acquire(bell) == 0)
        return TUTTI_OK;
    for (int r = 0; r < w->n_ranks; r++)
        if (w->peers[r].used)
            TT_TRY(read_notice(w, r));
    return TUTTI_OK;
}

/* To those who are there, and for a while only: one may be stopped. */
static void tell(struct tt_wire *w, tutti_result result, int peer, const char *text)
{
    const size_t bytes = strnlen(text, TT_WIRE_NOTICE_TEXT);
    const uint32_t header[] = {(uint32_t)result, (uint32_t)(peer + 1), (uint32_t)bytes, 0, 0, 0};
    const uint64_t begin = tt_now_ns();
    uint64_t now = begin, moved = begin, moves = tt_net_moves(w->net);
    size_t n_words;
    int under_way = 1;

    n_words = tt_packet_write(w->notice, 0, header, text, bytes);
    for (int r = 0; r < w->n_ranks; r++) {
        const int is_dead = result == TUTTI_E_PEER && r == peer;

        if (!tt_net_has_met(w->net, r) || is_dead || tt_net_check_peer(w->net, r) != TUTTI_OK)
            continue;
        (void)tt_net_put(w->net, r, w->notice, n_words * 8, w->region,
                         tt_wire_theirs(w) + w->notice_at);
        (void)tt_net_signal(w->net, r, w->region, TT_WIRE_BELL, (uint64_t)w->rank + 1);
    }
    for (; under_way && now - moved < TELL_NS && now - begin < TELL_MOST; now = tt_now_ns()) {
        under_way = 0;
        if (tt_net_progress(w->net) == TUTTI_E_ABORTED)
            return; /* which everybody hears of without us */
        if (tt_net_moves(w->net) != moves) {
            moves = tt_net_moves(w->net);
            moved = tt_now_ns();
        }
        for (int r = 0; r < w->n_ranks; r++)
            under_way |= tt_net_posted(w->net, r) > 0 && tt_net_check_peer(w->net, r) == TUTTI_OK &&
                         !tt_net_has_left(w->net, r, tt_net_posted(w->net, r));
        if (under_way)
            sched_yield();
    }
    if (result == TUTTI_E_PEER && peer >= 0)
        tt_net_tell_lost(w->net, peer);
}

/* After a failure nothing comes to the caller's memory any more, and nothing is read from it. */
void tt_wire_tell(struct tt_wire *w, tutti_result result, int peer, const char *text)
{
    if (w->told)
        return;
    w->told = 1;
    w->n_messages = w->n_open = 0;
    tell(w, result, peer, text);
    for (int r = 0; r < w->n_ranks; r++)
        tt_net_drop(w->net, r);
}

void tt_wire_tell_waits(struct tt_wire *w)
{
    const uint64_t now = tt_now_ns();

    if (now - w->told_waits_ns < w->timeout_ns / 16)
        return;
    w->told_waits_ns = now;
    tt_net_tell_waits(w->net);
}

/* ---- what ends a wait ---- */

tutti_result tt_wire_look(struct tt_wire *w)
{
    TT_TRY(read_notices(w));
    return w->check(w->context);
}

static const struct tt_message *first_open(const struct tt_wire *w)
{
    const struct tt_message *sends = NULL;

    for (size_t i = 0; i < w->n_messages; i++) {
        const struct tt_message *m = &w->messages[i];

        if (!m->done && !m->is_send)
            return m;
        if (!m->done && !sends)
            sends = m;
    }
    return sends;
}

/* What a peer did last counts: so everything that has come is taken before its loss is one. */
static tutti_result drain(struct tt_wire *w)
{
    tutti_result res = TUTTI_OK;
    int moved = 1;

    while (moved && res == TUTTI_OK && w->n_open > 0) {
        moved = 0;
        res = tt_wire_advance(w, &moved);
    }
    return res == TUTTI_E_PEER ? TUTTI_OK : res; /* nothing more can be sent: known */
}

/* The network has lost a peer, or knows that somebody has. What other ranks say of it is better. */
static tutti_result lost(struct tt_wire *w)
{
    char text[256];
    const char *rank;
    long number = -1;

    snprintf(text, sizeof(text), "%s", tt_error_text());
    w->culprit = -1;
    TT_TRY(drain(w));
    if (w->n_messages > 0 && w->n_open == 0)
        return TUTTI_OK;
    TT_TRY(tt_wire_look(w));
    rank = strstr(text, "rank ");
    if (rank)
        number = strtol(rank + 5, NULL, 10);
    w->culprit = number >= 0 && number < w->n_ranks ? (int)number : -1;
    return TT_FAIL(TUTTI_E_PEER, "%s", text);
}

/* A way that cannot be made, or has broken, is most often a peer that died just now: the network has a
 * moment to say so. */
static tutti_result unreachable(struct tt_wire *w, tutti_result why)
{
    const uint64_t deadline = tt_now_ns() + STOPPED_NS;
    tutti_result res = TUTTI_OK;
    char text[256];

    snprintf(text, sizeof(text), "%s", tt_error_text());
    while (res == TUTTI_OK && tt_now_ns() < deadline) {
        sched_yield();
        res = tt_net_progress(w->net);
        if (res == TUTTI_OK)
            TT_TRY(tt_wire_look(w));
    }
    if (res == TUTTI_E_PEER)
        return lost(w);
    return TT_FAIL(why, "%s", text);
}

/* Is anybody waited for who has left in order? Whoever is waited for is watched, or its death would go unnoticed. */
static tutti_result check_peers(struct tt_wire *w)
{
    char text[256];

    for (size_t i = 0; i < w->n_messages; i++) {
        const struct tt_message *m = &w->messages[i];

        if (!m->done)
            tt_net_watch(w->net, m->peer);
        if (m->done || tt_net_check_peer(w->net, m->peer) == TUTTI_OK)
            continue;
        snprintf(text, sizeof(text), "%s", tt_error_text());
        TT_TRY(drain(w));
        if (m->done)
            continue;
        TT_TRY(tt_wire_look(w)); /* the last that it said may be why it went */
        w->culprit = m->peer;
        return TT_FAIL(TUTTI_E_PEER, "%s", text);
    }
    return TUTTI_OK;
}

static tutti_result late(struct tt_wire *w)
{
    const struct tt_message *m = first_open(w);

    if (!m)
        return TT_FAIL(TUTTI_E_INTERNAL, "a wait without a message to wait for");
    w->culprit = m->peer;
    return TT_FAIL(TUTTI_E_TIMEOUT,
                   "rank %d, on another host, did not %s within %llu ms, waited rank %d. It is "
                   "stopped, busy, in another call or waits itself",
                   m->peer, m->is_send ? "take what was sent" : "send",
                   (unsigned long long)(w->timeout_ns / 1000000), w->rank);
}

/* A peer that waits itself will say who is at fault, later than this deadline. */
static int is_late(struct tt_wire *w, uint64_t waited_ns)
{
    const struct tt_message *m = first_open(w);

    if (tt_is_long_wait(waited_ns, w->timeout_ns)) {
        tt_wire_tell_waits(w);
        w->waits(w->context);
    }
    return tt_is_overdue(waited_ns, w->timeout_ns,
                         m && tt_net_waits(w->net, m->peer, w->timeout_ns / 4));
}

tutti_result tt_wire_idle(struct tt_wire *w, struct tt_wire_idle *idle)
{
    uint64_t now;

    if (idle->rounds++ < (w->polls ? POLLS : 4)) /* the network's progress is pause enough */
        return TUTTI_OK;
    now = tt_now_ns();
    if (idle->since_ns == 0)
        idle->since_ns = idle->last_ns = now;
    if (now - idle->last_ns > STOPPED_NS)
        idle->since_ns += now - idle->last_ns;
    idle->last_ns = now;
    TT_TRY(tt_wire_look(w));
    if (now - idle->since_ns >= YIELD_NS) {
        TT_TRY(check_peers(w));
        if (w->n_open == 0)
            return TUTTI_OK;
    }
    if (is_late(w, now - idle->since_ns))
        return late(w);
    if (now - idle->since_ns < YIELD_NS)
        sched_yield();
    else
        tt_net_sleep(w->net, now + NAP_NS);
    return TUTTI_OK;
}

/* ---- the loop ---- */

/* One step of every message that no earlier one of its direction and peer holds up. */
tutti_result tt_wire_advance(struct tt_wire *w, int *moved)
{
    const uint64_t sweep = ++w->n_sweeps;

    for (size_t i = 0; i < w->n_messages; i++) {
        struct tt_message *m = &w->messages[i];
        struct tt_wire_peer *p = &w->peers[m->peer];

        if (m->done || p->busy_sweep[m->is_send] == sweep)
            continue;
        TT_TRY(tt_wire_step(w, m, moved));
        if (m->done) {
            w->n_open--;
            *moved = 1;
        } else if (!m->started || m->moved < m->bytes) {
            p->busy_sweep[m->is_send] = sweep;
        }
    }
    return TUTTI_OK;
}

tutti_result tt_wire_finish(struct tt_wire *w)
{
    struct tt_wire_idle idle = {0};
    tutti_result res = TUTTI_OK;

    while (w->n_open > 0 && res == TUTTI_OK) {
        int moved = w->turn && w->turn(w->turn_context);

        res = tt_wire_advance(w, &moved); /* what can be sent goes before anybody looks around */
        if (moved)
            idle = (struct tt_wire_idle){0};
        else if (res == TUTTI_OK)
            res = tt_wire_idle(w, &idle);
        if (res == TUTTI_OK && w->n_open > 0)
            res = tt_net_progress(w->net);
        if (res == TUTTI_E_SYSTEM)
            res = unreachable(w, res);
        if (res == TUTTI_E_PEER)
            res = lost(w);
    }
    w->n_messages = w->n_open = 0;
    return res;
}

int tt_wire_poll(struct tt_wire *w)
{
    int moved = 0;
    tutti_result res = tt_net_progress(w->net);

    if (res == TUTTI_OK && w->n_open > 0)
        res = tt_wire_advance(w, &moved);
    if (res == TUTTI_E_SYSTEM)
        res = unreachable(w, res);
    if (res == TUTTI_E_PEER)
        res = lost(w);
    if (res == TUTTI_OK)
        res = read_notices(w);
    return res < TUTTI_OK ? res : moved;
}
