/* All connections to the ranks that are watched, the door for those that watch us, and its strangers. */
#include "net/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "boot/boot_socket.h"
#include "net/watch_link.h"

#define MS             UINT64_C(1000000)
#define MOST_STRANGERS 64
#define MOST_EVENTS    32
#define MOST_ACCEPTS   16
#define MOST_REFUSALS  5           /* a rank that is slow may take us for a stranger now and then */
#define STRANGER_NS    (2000 * MS) /* to prove oneself */
#define TICK_NS        (100 * MS)  /* between two looks at silence */

/* What is known of a rank. */
struct watched {
    struct tt_boot_endpoint where;
    struct tt_link *mine;   /* I connected */
    struct tt_link *theirs; /* it did */
    int is_wanted;          /* tt_watch_start() */
    uint64_t trying_ns;     /* since when no connection could be made; 0: it could */
    int n_refused;          /* times that it hung up on our proof, in a row */
    int has_left;           /* said so, on either connection: their end is no death */
    int is_over;            /* lost, gone or left: nothing more to learn */
};

struct tt_watch {
    pthread_mutex_t lock;
    struct tt_watch_events events;
    struct tt_link_self self;
    uint64_t lost_ns;
    _Atomic uint64_t *refused;
    int epoll_fd, listen_fd;
    struct tt_boot_endpoint where;
    struct watched *ranks;
    struct tt_link *strangers; /* newest first */
    int n_strangers;
    struct tt_link *dead;  /* freed when no event can name them any more */
    struct tt_notice said; /* the last that concerns everybody; kind 0: none */
    uint64_t next_tick_ns;
};

/* ---- links ---- */

static int listen_to(struct tt_watch *w, struct tt_link *link, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = link};

    return epoll_ctl(w->epoll_fd, operation, link->fd, &event);
}

static void bury(struct tt_watch *w, struct tt_link *link)
{
    (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, link->fd, NULL);
    link->next = w->dead;
    w->dead = link;
}

static void free_dead(struct tt_watch *w)
{
    while (w->dead) {
        struct tt_link *link = w->dead;

        w->dead = link->next;
        tt_link_free(link);
    }
}

static int is_dead(const struct tt_watch *w, const struct tt_link *link)
{
    const struct tt_link *d = w->dead;

    while (d && d != link)
        d = d->next;
    return d != NULL;
}

static void remove_stranger(struct tt_watch *w, const struct tt_link *link)
{
    struct tt_link **at = &w->strangers;

    while (*at && *at != link)
        at = &(*at)->next;
    if (*at) {
        *at = link->next;
        w->n_strangers--;
    }
}

/* ---- what becomes of ranks ---- */

/* Whoever aborts may poll, on any thread, so that others hear of it; nothing else is news then. */
static int is_mute(const struct tt_watch *w)
{
    return w->said.kind == TT_NOTICE_ABORT;
}

/* One of its connections; what it is and has done stays. */
static void drop_link(struct tt_watch *w, struct tt_link *link)
{
    struct watched *r = &w->ranks[link->rank];

    if (link == r->mine)
        r->mine = NULL;
    else
        r->theirs = NULL;
    bury(w, link);
}

static void end_rank(struct tt_watch *w, int rank)
{
    struct watched *r = &w->ranks[rank];

    r->is_over = 1;
    if (r->mine)
        bury(w, r->mine);
    if (r->theirs)
        bury(w, r->theirs);
    r->mine = r->theirs = NULL;
}

static void lose_rank(struct tt_watch *w, int rank, const char *why)
{
    if (w->ranks[rank].is_over)
        return;
    end_rank(w, rank);
    if (!is_mute(w))
        w->events.lost(w->events.context, rank, why);
}

static void rank_is_gone(struct tt_watch *w, int rank)
{
    if (w->ranks[rank].is_over || w->ranks[rank].theirs) /* which will tell */
        return;
    end_rank(w, rank);
    if (!is_mute(w))
        w->events.gone(w->events.context, rank);
}

/* A connection of ours that was not through the handshake: somebody else's backlog, or the end. */
static void connect_to(struct tt_watch *w, int rank)
{
    struct watched *r = &w->ranks[rank];
    int fd;
    int error = tt_boot_connect(&r->where, &fd);
    const uint64_t now = tt_now_ns();

    if (!r->trying_ns)
        r->trying_ns = now;
    if (fd < 0) { /* the next tick tries again */
        if (error == ECONNREFUSED)
            rank_is_gone(w, rank);
        else if (now - r->trying_ns > w->lost_ns)
            lose_rank(w, rank, strerror(error));
        return;
    }
    r->mine = tt_link_new(fd, 1, rank, w->lost_ns);
    if (r->mine) /* many attempts, some of which fail only after seconds, are one silence */
        r->mine->since_ns = r->trying_ns;
    if (r->mine && listen_to(w, r->mine, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD) != 0) {
        tt_link_free(r->mine);
        r->mine = NULL;
    }
}

static void on_ready(struct tt_watch *w, struct tt_link *link)
{
    if (w->said.kind)
        (void)tt_link_tell(link, &w->said);
}

static void count_refused(struct tt_watch *w)
{
    if (w->refused)
        atomic_fetch_add_explicit(w->refused, 1, memory_order_relaxed);
}

/* It was not through the handshake. */
static void on_refused(struct tt_watch *w, struct tt_link *link, enum tt_link_result how, int error)
{
    const int rank = link->rank;

    drop_link(w, link);
    if (how == TT_LINK_LIES)
        count_refused(w);
    w->ranks[rank].n_refused += link->state == TT_LINK_WANTS_WELCOME;
    if (how == TT_LINK_LIES || w->ranks[rank].n_refused == MOST_REFUSALS)
        lose_rank(w, rank, "its port is held by a process that does not know the ranks' key");
    else if (error == ECONNREFUSED)
        rank_is_gone(w, rank);
}

/* Two ranks that connect at once have two connections. One that ends alone says nothing: a process that
 * dies closes the other as well, and one that leaves has said so there, where we have not read it yet. */
static int other_will_tell(const struct tt_watch *w, const struct tt_link *link)
{
    const struct watched *r = &w->ranks[link->rank];
    const struct tt_link *other = link == r->mine ? r->theirs : r->mine;

    return other && other->state == TT_LINK_READY;
}

static void on_closed(struct tt_watch *w, struct tt_link *link, enum tt_link_result how, int error)
{
    const int rank = link->rank;
    char text[160];

    if (w->ranks[rank].has_left) {
        end_rank(w, rank);
        return;
    }
    if (link->state != TT_LINK_READY) {
        on_refused(w, link, how, error);
        return;
    }
    if (how == TT_LINK_LIES) {
        count_refused(w);
        snprintf(text, sizeof(text), "its connection (process %u) carried what it cannot have sent",
                 link->pid);
    } else if (error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH) {
        snprintf(text, sizeof(text), "its host does not answer any more (%s)", strerror(error));
    } else if (other_will_tell(w, link)) {
        drop_link(w, link);
        return;
    } else {
        snprintf(text, sizeof(text), "process %u died: its connection was closed without a word",
                 link->pid);
    }
    lose_rank(w, rank, text);
}

/* ---- strangers ---- */

/* Who has proved to be a rank. Of two connections that it made, the later is meant. */
static void admit(struct tt_watch *w, struct tt_link *link)
{
    struct watched *r = &w->ranks[link->rank];

    remove_stranger(w, link);
    if (r->is_over) {
        bury(w, link);
        return;
    }
    if (r->theirs)
        bury(w, r->theirs);
    r->theirs = link;
    r->trying_ns = 0; /* a way was found */
    on_ready(w, link);
}

static void drop_stranger(struct tt_watch *w, struct tt_link *link)
{
    count_refused(w);
    remove_stranger(w, link);
    bury(w, link);
}

static void drop_late_strangers(struct tt_watch *w, uint64_t now)
{
    struct tt_link *next;

    for (struct tt_link *link = w->strangers; link; link = next) {
        next = link->next;
        if (now - link->since_ns > STRANGER_NS)
            drop_stranger(w, link);
    }
}

static void accept_strangers(struct tt_watch *w)
{
    for (int i = 0; i < MOST_ACCEPTS; i++) {
        int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct tt_link *link = fd >= 0 ? tt_link_new(fd, 0, -1, w->lost_ns) : NULL;

        if (!link)
            return;
        if (w->n_strangers ==
            MOST_STRANGERS) { /* the oldest goes: a rank answers in a round trip */
            struct tt_link *oldest = w->strangers;

            while (oldest->next)
                oldest = oldest->next;
            drop_stranger(w, oldest);
        }
        if (tt_link_greet(link) != TT_LINK_FINE ||
            listen_to(w, link, EPOLLIN, EPOLL_CTL_ADD) != 0) {
            tt_link_free(link);
            continue;
        }
        link->next = w->strangers;
        w->strangers = link;
        w->n_strangers++;
    }
}

/* ---- polling ---- */

static void on_notice(void *context, int from, const struct tt_notice *notice)
{
    struct tt_watch *w = context;

    w->ranks[from].has_left |= notice->kind == TT_NOTICE_LEFT;
    if (!is_mute(w))
        w->events.notice(w->events.context, from, notice);
}

static void step(struct tt_watch *w, struct tt_link *link)
{
    const enum tt_link_state before = link->state;
    const int was_stranger = link->rank < 0;
    enum tt_link_result result;
    int error;

    errno = 0;
    result = tt_link_step(link, &w->self, on_notice, w);
    error = errno;
    if (was_stranger) {
        if (link->state == TT_LINK_READY)
            admit(w, link);
        else if (result != TT_LINK_FINE)
            drop_stranger(w, link);
        if (result == TT_LINK_FINE || link->state != TT_LINK_READY || is_dead(w, link))
            return;
    }
    if (result != TT_LINK_FINE) {
        on_closed(w, link, result, error);
        return;
    }
    if (before == TT_LINK_CONNECTING && link->state != before) {
        w->ranks[link->rank].trying_ns = 0;
        (void)listen_to(w, link, EPOLLIN, EPOLL_CTL_MOD);
    }
    if (before == TT_LINK_WANTS_WELCOME && link->state == TT_LINK_READY)
        on_ready(w, link);
}

static void look_at(struct tt_watch *w, struct tt_link *link, uint64_t now)
{
    const int rank = link->rank;
    const uint64_t silent = tt_link_silent_ns(link, now);
    char text[120];

    if (link->n_out)
        step(w, link);
    if (link->state == TT_LINK_CONNECTING && w->ranks[rank].theirs) /* which is heard */
        return;
    if (silent <= w->lost_ns || w->ranks[rank].is_over)
        return;
    snprintf(text, sizeof(text), "its host has not answered for %.1f s (TUTTI_NET_LOST)",
             (double)silent / 1e9);
    lose_rank(w, rank, text);
}

/* What no event tells: silence, and connections to be made again. */
static void tick(struct tt_watch *w)
{
    const uint64_t now = tt_now_ns(); /* after all that was accepted in this poll */

    drop_late_strangers(w, now);
    for (int rank = 0; rank < w->self.n_ranks; rank++) {
        struct watched *r = &w->ranks[rank];

        if (r->is_wanted && !r->is_over && !r->mine && !r->theirs)
            connect_to(w, rank);
        if (r->mine)
            look_at(w, r->mine, now);
        if (r->theirs)
            look_at(w, r->theirs, now);
    }
    w->next_tick_ns = now + TICK_NS;
}

static int is_shaking_hands(const struct tt_watch *w)
{
    int busy = w->n_strangers > 0;

    for (int rank = 0; rank < w->self.n_ranks && !busy; rank++) {
        const struct watched *r = &w->ranks[rank];

        busy =
            !r->is_over && (r->mine ? r->mine->state != TT_LINK_READY : r->is_wanted && !r->theirs);
    }
    return busy;
}

int tt_watch_poll(struct tt_watch *w)
{
    struct epoll_event events[MOST_EVENTS];
    int n, busy, knocks = 0;

    pthread_mutex_lock(&w->lock);
    n = epoll_wait(w->epoll_fd, events, MOST_EVENTS, 0);
    for (int i = 0; i < n; i++) {
        if (!events[i].data.ptr)
            knocks = 1;
        else if (!is_dead(w, events[i].data.ptr))
            step(w, events[i].data.ptr);
    }
    if (knocks)
        accept_strangers(w);
    if (tt_now_ns() >= w->next_tick_ns)
        tick(w);
    free_dead(w);
    busy = is_shaking_hands(w);
    pthread_mutex_unlock(&w->lock);
    return busy;
}

int tt_watch_is_ready(struct tt_watch *w, int rank)
{
    const struct watched *r = &w->ranks[rank];
    int is_ready;

    pthread_mutex_lock(&w->lock);
    is_ready = r->theirs || (r->mine && r->mine->state == TT_LINK_READY);
    pthread_mutex_unlock(&w->lock);
    return is_ready;
}

int tt_watch_is_watched(struct tt_watch *w, int rank)
{
    int is_watched;

    pthread_mutex_lock(&w->lock);
    is_watched = w->ranks[rank].theirs != NULL;
    pthread_mutex_unlock(&w->lock);
    return is_watched;
}

int tt_watch_fd(const struct tt_watch *w)
{
    return w->epoll_fd;
}

/* ---- telling ---- */

static void tell(struct tt_link *link, const struct tt_notice *notice)
{
    if (link)
        (void)tt_link_tell(link, notice); /* who cannot take it is found out by the next poll */
}

void tt_watch_tell(struct tt_watch *w, enum tt_notice_kind kind, int about)
{
    const struct tt_notice notice = {.kind = kind, .about = (uint32_t)about};

    pthread_mutex_lock(&w->lock);
    if (kind != TT_NOTICE_WAITS && !is_mute(w))
        w->said = notice;
    for (int rank = 0; rank < w->self.n_ranks; rank++) {
        tell(w->ranks[rank].mine, &notice);
        tell(w->ranks[rank].theirs, &notice);
    }
    pthread_mutex_unlock(&w->lock);
}

static int is_through(const struct tt_link *link)
{
    return !link || link->state != TT_LINK_READY || tt_link_is_through(link);
}

int tt_watch_is_told(struct tt_watch *w)
{
    int told = 1;

    pthread_mutex_lock(&w->lock);
    for (int rank = 0; rank < w->self.n_ranks && told; rank++)
        told = is_through(w->ranks[rank].mine) && is_through(w->ranks[rank].theirs);
    pthread_mutex_unlock(&w->lock);
    return told;
}

/* ---- open and close ---- */

static tutti_result open_door(struct tt_watch *w, const struct tt_boot_address *address)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    uint16_t port;

    TT_TRY(tt_boot_listen_ephemeral(address, &w->listen_fd, &port));
    tt_boot_address_resolve(address, port, &w->where, 1);
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll_fd < 0 || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->listen_fd, &event) != 0)
        return TT_FAIL_SYS("cannot watch the other ranks");
    return TUTTI_OK;
}

tutti_result tt_watch_open(const struct tt_watch_config *config, struct tt_watch **watch_out)
{
    static const char *const purposes[] = {"tutti watch connector", "tutti watch acceptor"};
    struct tt_watch *w = calloc(1, sizeof(*w));
    tutti_result result;

    if (w)
        w->ranks = calloc((size_t)config->n_ranks, sizeof(*w->ranks));
    if (!w || !w->ranks) {
        free(w);
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to watch %d ranks", config->n_ranks);
    }
    pthread_mutex_init(&w->lock, NULL);
    w->epoll_fd = w->listen_fd = -1;
    w->events = config->events;
    w->lost_ns = config->lost_ns;
    w->refused = config->refused;
    w->self.rank = config->rank;
    w->self.n_ranks = config->n_ranks;
    tt_hmac_sha256(config->key, 32, purposes[0], strlen(purposes[0]), w->self.key_connector);
    tt_hmac_sha256(config->key, 32, purposes[1], strlen(purposes[1]), w->self.key_acceptor);
    result = open_door(w, &config->address);
    if (result != TUTTI_OK) {
        tt_watch_close(w);
        return result;
    }
    *watch_out = w;
    return TUTTI_OK;
}

void tt_watch_where(const struct tt_watch *w, struct tt_boot_endpoint *out)
{
    *out = w->where;
}

void tt_watch_find(struct tt_watch *w, int rank, const struct tt_boot_endpoint *where)
{
    w->ranks[rank].where = *where;
}

void tt_watch_start(struct tt_watch *w, int rank)
{
    struct watched *r = &w->ranks[rank];

    pthread_mutex_lock(&w->lock);
    if (!r->is_wanted && !r->is_over && !r->mine && !r->theirs)
        connect_to(w, rank);
    r->is_wanted = 1;
    pthread_mutex_unlock(&w->lock);
}

void tt_watch_close(struct tt_watch *w)
{
    if (!w)
        return;
    tt_boot_listener_close(w->listen_fd);
    for (int rank = 0; rank < w->self.n_ranks; rank++) {
        if (w->epoll_fd >= 0)
            end_rank(w, rank);
    }
    while (w->strangers)
        drop_stranger(w, w->strangers);
    free_dead(w);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    pthread_mutex_destroy(&w->lock);
    free(w->ranks);
    explicit_bzero(w, sizeof(*w)); /* it held keys */
    free(w);
}
