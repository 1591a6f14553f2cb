/* A net at work and what ends it: progress, sleep, abort, the loss of a peer. */
#include "net/net.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "net/net_parts.h"

#define MS          UINT64_C(1000000)
#define WATCH_NS    (1 * MS)   /* between two looks at the watch */
#define SHAKE_NS    (MS / 20)  /* the same while there is a handshake */
#define CLOCK_EVERY 16         /* calls of progress */
#define MOST_SLEEP  (100 * MS) /* so that silence is noticed in time */
#define BLIND_NS    (MS / 20)  /* longest sleep that nothing can end */
#define GRACE_NS    (300 * MS) /* for the watch to say why an endpoint broke */
#define REACH_NS    (50 * MS)  /* for an abort to reach who is in a handshake */
#define REACH_MS    10         /* the same where nothing moves: nobody there is in a call */

/* ---- failure ---- */

void tt_net_fail(struct tt_net *net, int lost_rank, tutti_result code, const char *format, ...)
{
    va_list arguments;

    if (net->failed != TUTTI_OK)
        return;
    net->failed = code;
    va_start(arguments, format);
    vsnprintf(net->failed_text, sizeof(net->failed_text), format, arguments);
    va_end(arguments);
    TT_LOG(TUTTI_LOG_INFO, net->rank, net->n_ranks, "network: %s", net->failed_text);
    if (lost_rank >= 0)
        tt_watch_tell(net->watch, TT_NOTICE_LOST, lost_rank);
}

tutti_result tt_net_check(struct tt_net *net)
{
    if (atomic_load_explicit(&net->is_aborted, memory_order_relaxed))
        return TT_FAIL(TUTTI_E_ABORTED, "the network was aborted");
    return net->failed == TUTTI_OK ? TUTTI_OK : TT_FAIL(net->failed, "%s", net->failed_text);
}

tutti_result tt_net_check_peer(struct tt_net *net, int peer)
{
    const struct tt_net_endpoint *e = net->ranks[peer].endpoint;

    TT_TRY(tt_net_check(net));
    if (e && e->life == TT_NET_LEFT)
        return TT_FAIL(TUTTI_E_PEER, "rank %d on %s has left: it has destroyed its communicator",
                       peer, net->ranks[peer].host);
    if (e && e->life == TT_NET_GONE)
        return TT_FAIL(
            TUTTI_E_PEER,
            "rank %d on %s is gone: nobody listens at its port. It has died or left before", peer,
            net->ranks[peer].host);
    return TUTTI_OK;
}

void tt_net_watch(struct tt_net *net, int peer)
{
    tt_watch_start(net->watch, peer);
}

int tt_net_has_met(const struct tt_net *net, int peer)
{
    return net->ranks[peer].endpoint || tt_watch_is_watched(net->watch, peer);
}

void tt_net_tell_waits(struct tt_net *net)
{
    tt_watch_tell(net->watch, TT_NOTICE_WAITS, 0);
}

int tt_net_waits(const struct tt_net *net, int peer, uint64_t within_ns)
{
    const uint64_t told = net->ranks[peer].waits_ns;

    return told && tt_now_ns() - told <= within_ns;
}

void tt_net_tell_lost(struct tt_net *net, int rank)
{
    if (net->failed == TUTTI_OK)
        tt_watch_tell(net->watch, TT_NOTICE_LOST, rank);
}

/* 1: it was not known before. */
static int pass_on_abort(struct tt_net *net)
{
    const uint64_t one = 1;

    if (atomic_exchange(&net->is_aborted, 1))
        return 0;
    tt_watch_tell(net->watch, TT_NOTICE_ABORT, 0);
    if (write(net->abort_fd, &one, sizeof(one)) != sizeof(one)) {
        /* A full counter is as readable as one that has just been raised. */
    }
    return 1;
}

void tt_net_reach(struct tt_net *net)
{
    struct pollfd watch = {.fd = tt_watch_fd(net->watch), .events = POLLIN};
    const uint64_t end = tt_now_ns() + REACH_NS;

    while (tt_watch_poll(net->watch) && tt_now_ns() < end && poll(&watch, 1, REACH_MS) > 0)
        ;
}

/* Who is in a call may wait for a rank that this one has never met, or that is in none itself and passes nothing on. */
void tt_net_abort(struct tt_net *net)
{
    if (!pass_on_abort(net))
        return;
    for (int r = 0; r < net->n_ranks; r++) {
        if (r != net->rank)
            tt_watch_start(net->watch, r);
    }
    tt_net_reach(net);
}

/* ---- what the watch and the provider say; from within their calls, so that they only leave marks ---- */

static void set_life(struct tt_net *net, int rank, enum tt_net_life life)
{
    struct tt_net_endpoint *e;

    if (tt_net_endpoint(net, rank, &e) != TUTTI_OK)
        return; /* no memory to remember a rank that was never sent to */
    if (e->life == TT_NET_HERE)
        net->n_unsettled++;
    e->life = life;
}

static void on_lost(void *context, int rank, const char *why)
{
    struct tt_net_news *news = &((struct tt_net *)context)->news;

    if (news->lost_rank >= 0)
        return;
    news->lost_rank = rank;
    news->said_by = -1;
    snprintf(news->why, sizeof(news->why), "%s", why);
}

static void on_gone(void *context, int rank)
{
    set_life(context, rank, TT_NET_GONE);
}

static void on_notice(void *context, int from, const struct tt_notice *notice)
{
    struct tt_net *net = context;

    if (notice->kind == TT_NOTICE_ABORT) {
        net->news.is_aborted = 1;
    } else if (notice->kind == TT_NOTICE_LEFT) {
        set_life(net, from, TT_NET_LEFT);
    } else if (notice->kind == TT_NOTICE_WAITS) {
        net->ranks[from].waits_ns = tt_now_ns();
    } else if (net->news.lost_rank < 0) {
        net->news.lost_rank = (int)notice->about;
        net->news.said_by = from;
    }
}

void tt_net_broken(void *context, int rank, const char *why)
{
    struct tt_net *net = context;
    struct tt_net_endpoint *e = net->ranks[rank].endpoint;

    if (!e || e->life != TT_NET_HERE)
        return;
    set_life(net, rank, TT_NET_BROKEN);
    e->broken_ns = tt_now_ns();
    snprintf(e->broken_text, sizeof(e->broken_text), "%s", why);
    net->next_watch_ns = 0;
}

struct tt_watch_events tt_net_events(struct tt_net *net)
{
    return (struct tt_watch_events){
        .context = net, .lost = on_lost, .gone = on_gone, .notice = on_notice};
}

/* ---- acting upon it ---- */

static void take_news(struct tt_net *net)
{
    struct tt_net_news *news = &net->news;
    const int lost = news->lost_rank, by = news->said_by;

    if (news->is_aborted)
        (void)pass_on_abort(net);
    if (lost < 0)
        return;
    if (by < 0)
        tt_net_fail(net, lost, TUTTI_E_PEER, "lost rank %d on %s: %s", lost, net->ranks[lost].host,
                    news->why);
    else if (by == lost)
        tt_net_fail(net, lost, TUTTI_E_PEER, "rank %d on %s has given up after a failure", lost,
                    net->ranks[lost].host);
    else
        tt_net_fail(net, lost, TUTTI_E_PEER, "rank %d on %s is lost, says rank %d on %s", lost,
                    net->ranks[lost].host, by, net->ranks[by].host);
}

/* Nobody misses what is not sent. */
static void end_way(struct tt_net_endpoint *e)
{
    tt_net_unwire(e);
    e->n_flushed = e->n_started = e->n_sent = e->n_posted;
}

void tt_net_drop(struct tt_net *net, int peer)
{
    struct tt_net_endpoint *e = net->ranks[peer].endpoint;

    if (!e || e->n_sent == e->n_posted)
        return;
    set_life(net, peer, TT_NET_LEFT);
    end_way(e);
}

/* One that needs no way any more, or that is to be called lost. */
static void settle_one(struct tt_net *net, struct tt_net_endpoint *e, uint64_t now)
{
    const char *host = net->ranks[e->rank].host;

    if (e->life == TT_NET_LEFT && e->to) {
        end_way(e);
    } else if (e->life == TT_NET_GONE && e->n_sent != e->n_posted) {
        tt_net_fail(
            net, e->rank, TUTTI_E_PEER,
            "lost rank %d on %s: nobody listens at its port, and %d puts to it are not sent",
            e->rank, host, (int)(e->n_posted - e->n_sent));
    } else if (e->life == TT_NET_BROKEN && now - e->broken_ns > GRACE_NS) {
        tt_net_fail(net, e->rank, TUTTI_E_PEER, "lost rank %d on %s: %s says \"%s\"", e->rank, host,
                    net->ops->name, e->broken_text);
    }
}

void tt_net_look(struct tt_net *net)
{
    const uint64_t now = tt_now_ns();

    net->is_shaking_hands = tt_watch_poll(net->watch);
    take_news(net);
    for (int i = 0; i < net->n_used && net->n_unsettled > 0; i++)
        settle_one(net, net->used[i], now);
    net->next_watch_ns = now + (net->is_shaking_hands ? SHAKE_NS : WATCH_NS);
}

tutti_result tt_net_progress(struct tt_net *net)
{
    TT_TRY(tt_net_check(net));
    net->n_moves += net->ops->progress(net->provider) != 0;
    for (int i = 0; i < net->n_used; i++) {
        if (net->used[i]->n_sent != net->used[i]->n_posted)
            tt_net_pump(net->used[i]);
    }
    /* The clock costs as much as the rest of a progress that finds nothing. */
    if ((++net->n_progress % CLOCK_EVERY == 0 || net->next_watch_ns == 0) &&
        tt_now_ns() >= net->next_watch_ns)
        tt_net_look(net);
    return tt_net_check(net);
}

uint64_t tt_net_moves(const struct tt_net *net)
{
    return net->n_moves;
}

void tt_net_sleep(struct tt_net *net, uint64_t until_ns)
{
    struct pollfd fds[] = {{.fd = net->ops->fd(net->provider), .events = POLLIN},
                           {.fd = tt_watch_fd(net->watch), .events = POLLIN},
                           {.fd = net->abort_fd, .events = POLLIN}};
    const uint64_t now = tt_now_ns();
    uint64_t ns = until_ns > now ? until_ns - now : 0;
    struct timespec limit;

    if (ns > MOST_SLEEP)
        ns = MOST_SLEEP;
    if (fds[0].fd < 0 && ns > BLIND_NS)
        ns = BLIND_NS;
    limit = (struct timespec){.tv_nsec = (long)ns};
    if (ns == 0 || tt_net_check(net) != TUTTI_OK ||
        (fds[0].fd >= 0 && net->ops->arm(net->provider) != 0))
        return;
    (void)ppoll(fds, TT_LEN(fds), &limit, NULL);
    net->next_watch_ns = 0;
}
