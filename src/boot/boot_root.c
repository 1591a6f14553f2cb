/*
 * Rank 0 while the others join: one epoll loop over the listener, a bounded number of strangers and
 * the ranks. A stranger has HANDSHAKE_MS to prove that it knows the secret and costs one slot of a
 * fixed table and no memory of its own; when the table is full the oldest stranger goes.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot_parts.h"
#include "boot/boot_socket.h"

#define MAX_STRANGERS     256
#define HANDSHAKE_MS      2000
#define SWEEP_MS          50
#define COME_BACK_MS      500 /* for one that was let in, and went; a joiner waits 0.3 s at most */
#define PATIENCE_NS       UINT64_C(200000000) /* of a new connection when descriptors run out */
#define LATE_MS           300 /* for ranks that come when one has died, to be told */
#define ACCEPTS_PER_ROUND 64
#define EVENTS_PER_ROUND  256
#define REMIND_S          10

/* Kinds of an epoll event: the upper half of its data; the lower is an index. */
enum watch { WATCH_LISTENER, WATCH_STRANGER, WATCH_PEER };

struct stranger {
    int fd; /* -1: free */
    uint64_t since_ns;
    size_t n_in;
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES];
    unsigned char in[TT_WIRE_PROOF_BYTES];
};

struct join {
    struct tt_boot *boot;
    int listener;
    int n_joined;
    uint64_t swept_ns;
    uint64_t remind_ns;
    struct stranger strangers[MAX_STRANGERS];
};

static int watch(struct join *join, int operation, int fd, enum watch kind, int index)
{
    struct epoll_event event = {.events = EPOLLIN};

    event.data.u64 = (uint64_t)kind << 32 | (uint32_t)index;
    return epoll_ctl(join->boot->epoll_fd, operation, fd, &event);
}

/* epoll forgets a descriptor at close only if no forked child holds it too. */
static void unwatch(const struct tt_boot *boot, int fd)
{
    (void)epoll_ctl(boot->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void drop(struct join *join, struct stranger *stranger)
{
    unwatch(join->boot, stranger->fd);
    close(stranger->fd);
    stranger->fd = -1;
}

static void drop_stranger(struct join *join, struct stranger *stranger)
{
    join->boot->n_stranger++;
    drop(join, stranger);
}

static struct stranger *oldest(struct join *join)
{
    struct stranger *found = NULL;

    for (int i = 0; i < MAX_STRANGERS; i++) {
        struct stranger *s = &join->strangers[i];

        if (s->fd >= 0 && (!found || s->since_ns < found->since_ns))
            found = s;
    }
    return found;
}

static struct stranger *free_slot(struct join *join)
{
    for (int i = 0; i < MAX_STRANGERS; i++) {
        if (join->strangers[i].fd < 0)
            return &join->strangers[i];
    }
    struct stranger *s = oldest(join);

    drop_stranger(join, s);
    return s;
}

static tutti_result greet(struct join *join, int fd)
{
    struct tt_wire_challenge challenge = {.version = TT_WIRE_VERSION};
    struct stranger *s;
    int one = 1;
    int uid;

    if (tt_boot_check_user(fd, &uid) != 0) {
        join->boot->n_stranger++;
        close(fd);
        return TUTTI_OK;
    }
    tutti_result result = tt_random_bytes(challenge.nonce, sizeof(challenge.nonce));

    if (result != TUTTI_OK) {
        close(fd);
        return result;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    s = free_slot(join);
    s->fd = fd;
    s->since_ns = tt_now_ns();
    s->n_in = 0;
    tt_wire_pack_challenge(&challenge, s->challenge);
    if (tt_boot_send_some(fd, s->challenge, sizeof(s->challenge)) != sizeof(s->challenge) ||
        watch(join, EPOLL_CTL_ADD, fd, WATCH_STRANGER, (int)(s - join->strangers)) != 0)
        drop_stranger(join, s);
    return TUTTI_OK;
}

static tutti_result fail_descriptors(const struct join *join)
{
    struct rlimit limit = {0};

    getrlimit(RLIMIT_NOFILE, &limit);
    return TT_FAIL(TUTTI_E_SYSTEM,
                   "rank 0 ran out of file descriptors after %d of %d ranks had joined (limit "
                   "%llu): raise it (ulimit -n %d)",
                   join->n_joined + 1, join->boot->n_ranks, (unsigned long long)limit.rlim_cur,
                   join->boot->n_ranks + 1024);
}

static tutti_result accept_some(struct join *join)
{
    for (int i = 0; i < ACCEPTS_PER_ROUND; i++) {
        int fd = accept4(join->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            TT_TRY(greet(join, fd));
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return TUTTI_OK;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            struct stranger *s = oldest(join);

            if (!s)
                return fail_descriptors(join);
            if (tt_now_ns() - s->since_ns < PATIENCE_NS) { /* it may be a rank about to prove it */
                poll(NULL, 0, 1);
                return TUTTI_OK;
            }
            drop_stranger(join, s);
        } else if (errno == EINVAL || errno == EBADF || errno == ENOTSOCK) {
            return TT_FAIL_SYS("rank 0's listening socket was closed by somebody else");
        } /* else: that connection broke before it was ours; the next one may be good */
    }
    return TUTTI_OK;
}

/* Answer a proof. The tag covers both nonces, so that no other connection can use the answer. */
static void welcome(const struct tt_boot *boot, const struct stranger *s, uint32_t status,
                    uint32_t pid)
{
    unsigned char out[TT_WIRE_WELCOME_BYTES];
    struct tt_wire_welcome frame = {.version = TT_WIRE_VERSION, .status = status, .pid = pid};

    frame.n_ranks = (uint32_t)boot->n_ranks;
    tt_wire_pack_welcome(&frame, out);
    if (status != TT_WIRE_BAD_SECRET) {
        tt_wire_tag_welcome(boot->root_key, s->challenge, s->in, out, frame.tag);
        tt_wire_pack_welcome(&frame, out);
    }
    /* Fits in the empty buffer of a new connection; if not, that joiner comes again. */
    (void)tt_boot_send_some(s->fd, out, sizeof(out));
}

/* A process that knows the secret asks for what cannot be: the job cannot start, and both sides
 * are told why. */
static tutti_result refuse(struct join *join, const struct stranger *s,
                           const struct tt_wire_proof *proof, uint32_t status)
{
    const struct tt_boot *boot = join->boot;
    uint32_t first_pid =
        status == TT_WIRE_DUPLICATE
            ? (proof->rank == 0 ? (uint32_t)getpid() : boot->peers[proof->rank].pid)
            : (uint32_t)getpid();

    welcome(boot, s, status, first_pid);
    switch (status) {
    case TT_WIRE_BAD_VERSION:
        return TT_FAIL(
            TUTTI_E_VERSION,
            "rank %u (process %u) speaks version %u of the rendezvous, rank 0 version %d: "
            "use one version of tutti in all ranks",
            proof->rank, proof->pid, proof->version, TT_WIRE_VERSION);
    case TT_WIRE_BAD_N_RANKS:
        return TT_FAIL(
            TUTTI_E_ARG,
            "rank %u (process %u) was told n_ranks %u, rank 0 n_ranks %d: give all ranks "
            "the same number",
            proof->rank, proof->pid, proof->n_ranks, boot->n_ranks);
    case TT_WIRE_BAD_RANK:
        return TT_FAIL(TUTTI_E_ARG, "process %u claims rank %u, which is not in 0 .. %d",
                       proof->pid, proof->rank, boot->n_ranks - 1);
    default:
        return TT_FAIL(TUTTI_E_ARG, "processes %u and %u both claim rank %u: give each its own",
                       first_pid, proof->pid, proof->rank);
    }
}

static uint32_t judge(const struct tt_boot *boot, const struct tt_wire_proof *proof)
{
    if (proof->version != TT_WIRE_VERSION)
        return TT_WIRE_BAD_VERSION;
    if (proof->n_ranks != (uint32_t)boot->n_ranks)
        return TT_WIRE_BAD_N_RANKS;
    if (proof->rank >= (uint32_t)boot->n_ranks)
        return TT_WIRE_BAD_RANK;

    const struct tt_boot_peer *peer = &boot->peers[proof->rank];

    /* A joiner that lost its connection before it knew that it had joined comes back as itself. */
    if (proof->rank == 0 || peer->state == TT_BOOT_JOINED ||
        (peer->state == TT_BOOT_PROVEN && peer->instance != proof->instance))
        return TT_WIRE_DUPLICATE;
    return TT_WIRE_JOINED;
}

static tutti_result admit(struct join *join, struct stranger *s)
{
    struct tt_boot *boot = join->boot;
    struct tt_wire_proof proof;
    unsigned char tag[TT_WIRE_TAG_BYTES];

    if (tt_wire_parse_proof(s->in, sizeof(s->in), &proof) != 0) {
        drop_stranger(join, s);
        return TUTTI_OK;
    }
    tt_wire_tag_proof(boot->join_key, s->challenge, s->in, tag);
    if (!tt_equal_secret(tag, proof.tag, sizeof(tag))) {
        if (boot->n_bad_secret++ == 0)
            TT_LOG(TUTTI_LOG_WARN, 0, boot->n_ranks,
                   "a process with another secret wanted to join %s: a leftover of another job?",
                   boot->where);
        welcome(boot, s, TT_WIRE_BAD_SECRET, 0);
        drop(join, s);
        return TUTTI_OK;
    }

    uint32_t status = judge(boot, &proof);

    if (status != TT_WIRE_JOINED) {
        tutti_result result = refuse(join, s, &proof, status);

        drop(join, s);
        return result;
    }

    struct tt_boot_peer *peer = &boot->peers[proof.rank];

    if (peer->fd >= 0) {
        unwatch(boot, peer->fd);
        close(peer->fd);
    }
    memset(peer, 0, sizeof(*peer));
    peer->fd = s->fd;
    peer->state = TT_BOOT_PROVEN;
    peer->pid = proof.pid;
    peer->instance = proof.instance;
    welcome(boot, s, TT_WIRE_JOINED, (uint32_t)getpid());
    s->fd = -1;
    if (watch(join, EPOLL_CTL_MOD, peer->fd, WATCH_PEER, (int)proof.rank) != 0)
        return TT_FAIL_SYS("rank 0 cannot watch rank %u", proof.rank);
    return TUTTI_OK;
}

static tutti_result read_stranger(struct join *join, struct stranger *s)
{
    if (s->fd < 0)
        return TUTTI_OK;
    long n = tt_boot_recv_some(s->fd, s->in + s->n_in, sizeof(s->in) - s->n_in);

    if (n == 0)
        return TUTTI_OK;
    if (n > 0)
        s->n_in += (size_t)n;
    if (n < 0 || !tt_wire_is_proof_prefix(s->in, s->n_in)) {
        drop_stranger(join, s);
        return TUTTI_OK;
    }
    return s->n_in == sizeof(s->in) ? admit(join, s) : TUTTI_OK;
}

static tutti_result peer_left(struct join *join, int rank)
{
    struct tt_boot_peer *peer = &join->boot->peers[rank];

    if (peer->state == TT_BOOT_PROVEN) { /* it does not know that it had joined, and may retry */
        unwatch(join->boot, peer->fd);
        close(peer->fd);
        peer->fd = -1;
        peer->state = TT_BOOT_ABSENT;
        peer->went_ns = tt_now_ns();
        return TUTTI_OK;
    }
    return tt_boot_root_lost(join->boot, rank, "while the ranks were joining");
}

static int is_missing(const struct tt_boot_peer *peer)
{
    return peer->state != TT_BOOT_JOINED;
}

static tutti_result fail_missing(struct tt_boot *boot, const char *who)
{
    const double waited_s = tt_boot_waited_s(boot);
    const char *doubt = tt_boot_listen_doubt(&boot->id);
    char list[TT_BOOT_LIST_BYTES];
    char turned_away[96] = "";

    tt_boot_rank_list(boot, is_missing, list, sizeof(list));
    if (boot->n_bad_secret + boot->n_stranger > 0)
        snprintf(turned_away, sizeof(turned_away),
                 "; turned away: %u connections with another secret, %u of strangers",
                 boot->n_bad_secret, boot->n_stranger);
    return TT_FAIL(TUTTI_E_TIMEOUT,
                   "%s of %d did not join %s within %.3g s%s: did they start, and can they reach "
                   "this address?%s%s",
                   list, boot->n_ranks, boot->where, waited_s, who, doubt, turned_away);
}

static tutti_result read_peer(struct join *join, int rank)
{
    struct tt_boot_peer *peer = &join->boot->peers[rank];
    struct tt_wire_header header;

    if (peer->fd < 0)
        return TUTTI_OK;
    long n = tt_boot_recv_some(peer->fd, peer->header + peer->n_header,
                               sizeof(peer->header) - peer->n_header);
    if (n < 0)
        return peer_left(join, rank);
    peer->n_header += (size_t)n;
    if (peer->n_header < sizeof(peer->header))
        return TUTTI_OK;
    peer->n_header = 0;
    if (tt_wire_parse_header(peer->header, sizeof(peer->header), 0, 1, &header) != 0)
        return TT_FAIL(TUTTI_E_INTERNAL, "rank %d sent what is no message", rank);
    if (header.type == TT_WIRE_READY && peer->state == TT_BOOT_PROVEN) {
        peer->state = TT_BOOT_JOINED;
        join->n_joined++;
        return TUTTI_OK;
    }
    if (header.type != TT_WIRE_GIVE_UP)
        return TT_FAIL(TUTTI_E_INTERNAL, "rank %d sent message %u while joining", rank,
                       header.type);

    tutti_result result = tt_boot_root_gave_up(join->boot, rank, &header);

    return result == TUTTI_IN_PROGRESS ? fail_missing(join->boot, " (the earliest deadline)")
                                       : result;
}

static tutti_result sweep(struct join *join)
{
    const struct tt_boot_peer *peers = join->boot->peers;
    uint64_t now = tt_now_ns();

    if (now - join->swept_ns < SWEEP_MS * UINT64_C(1000000))
        return TUTTI_OK;
    join->swept_ns = now;
    for (int i = 0; i < MAX_STRANGERS; i++) {
        struct stranger *s = &join->strangers[i];

        if (s->fd >= 0 && now - s->since_ns > HANDSHAKE_MS * UINT64_C(1000000))
            drop_stranger(join, s);
    }
    for (int r = 1; r < join->boot->n_ranks; r++) {
        if (peers[r].went_ns != 0 && now - peers[r].went_ns > COME_BACK_MS * UINT64_C(1000000))
            return TT_FAIL(TUTTI_E_PEER,
                           "rank %d (process %u) died or left while the ranks were joining: it was "
                           "let in, went and did not come back",
                           r, peers[r].pid);
    }
    if (now < join->remind_ns)
        return TUTTI_OK;
    join->remind_ns = now + REMIND_S * UINT64_C(1000000000);
    TT_LOG(TUTTI_LOG_INFO, 0, join->boot->n_ranks, "%d of %d ranks have joined %s after %.0f s",
           join->n_joined + 1, join->boot->n_ranks, join->boot->where,
           tt_boot_waited_s(join->boot));
    return TUTTI_OK;
}

static tutti_result handle(struct join *join, const struct epoll_event *event)
{
    int index = (int)(uint32_t)event->data.u64;

    switch ((enum watch)(event->data.u64 >> 32)) {
    case WATCH_STRANGER: return read_stranger(join, &join->strangers[index]);
    case WATCH_PEER: return read_peer(join, index);
    case WATCH_LISTENER: break;
    }
    return TUTTI_OK;
}

static tutti_result join_round(struct join *join)
{
    struct epoll_event events[EVENTS_PER_ROUND];
    struct tt_boot *boot = join->boot;
    int can_accept = 0;
    int ms = tt_boot_poll_ms(boot->deadline_ns, boot->abort, SWEEP_MS);

    if (tt_boot_is_aborted(boot->abort))
        return TT_FAIL(TUTTI_E_ABORTED, "rank 0 aborted while the ranks were joining");
    if (ms == 0)
        return fail_missing(boot, "");
    int n = epoll_wait(boot->epoll_fd, events, EVENTS_PER_ROUND, ms);

    if (n < 0 && errno != EINTR)
        return TT_FAIL_SYS("rank 0 cannot wait for the ranks");
    /* New connections last: they may take the slots of strangers that have an event here. */
    for (int i = 0; i < n; i++) {
        can_accept |= events[i].data.u64 >> 32 == WATCH_LISTENER;
        TT_TRY(handle(join, &events[i]));
    }
    if (can_accept)
        TT_TRY(accept_some(join));
    return sweep(join);
}

static int n_absent(const struct tt_boot *boot)
{
    int n = 0;

    for (int r = 1; r < boot->n_ranks; r++)
        n += boot->peers[r].state == TT_BOOT_ABSENT;
    return n;
}

/* A rank died while others were on their way. Those who are here are told, and those who come soon let in and told:
 * else they would only find that nobody listens. */
static tutti_result tell_late(struct join *join, tutti_result result)
{
    struct tt_boot *boot = join->boot;
    const uint64_t end = tt_now_ns() + LATE_MS * UINT64_C(1000000);
    char why[TT_WIRE_MAX_TEXT + 1];

    snprintf(why, sizeof(why), "%s", tt_error_text());
    (void)tt_boot_root_fail(boot, result);
    while (n_absent(boot) > 0 && tt_now_ns() < end && !tt_boot_is_aborted(boot->abort)) {
        struct epoll_event events[EVENTS_PER_ROUND];
        int n = epoll_wait(boot->epoll_fd, events, EVENTS_PER_ROUND, SWEEP_MS);

        for (int i = 0; i < n; i++) {
            int index = (int)(uint32_t)events[i].data.u64;

            if (events[i].data.u64 >> 32 == WATCH_STRANGER)
                (void)read_stranger(join, &join->strangers[index]);
            else if (events[i].data.u64 >> 32 == WATCH_PEER) /* what it says is no news any more */
                unwatch(boot, boot->peers[index].fd);
            else
                (void)accept_some(join);
        }
        (void)TT_FAIL(result, "%s", why);
        (void)tt_boot_root_fail(boot, result); /* who has been told already hears nothing */
    }
    return TT_FAIL(result, "%s", why);
}

static tutti_result start_all(struct tt_boot *boot)
{
    unsigned char out[TT_WIRE_HEADER_BYTES];
    struct tt_wire_header start = {.type = TT_WIRE_START, .value = (uint32_t)boot->n_ranks};

    tt_wire_pack_header(&start, out);
    for (int i = 1; i < boot->n_ranks; i++) {
        if (tt_boot_send_some(boot->peers[i].fd, out, sizeof(out)) != sizeof(out))
            return tt_boot_root_lost(boot, i, "after it had joined");
    }
    return TUTTI_OK;
}

static tutti_result join_all(struct join *join)
{
    struct tt_boot *boot = join->boot;

    boot->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (boot->epoll_fd < 0)
        return TT_FAIL_SYS("rank 0 cannot make an epoll descriptor");
    if (watch(join, EPOLL_CTL_ADD, join->listener, WATCH_LISTENER, 0) != 0)
        return TT_FAIL_SYS("rank 0 cannot watch its listening socket");
    while (join->n_joined < boot->n_ranks - 1)
        TT_TRY(join_round(join));
    return TUTTI_OK;
}

tutti_result tt_boot_root_join(struct tt_boot *boot)
{
    struct join *join;
    tutti_result result;

    if (boot->n_ranks == 1 && !boot->id.is_listening)
        return TUTTI_OK;
    join = calloc(1, sizeof(*join));
    if (!join)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the rendezvous");
    join->boot = boot;
    join->swept_ns = tt_now_ns();
    join->remind_ns = join->swept_ns + REMIND_S * UINT64_C(1000000000);
    for (int i = 0; i < MAX_STRANGERS; i++)
        join->strangers[i].fd = -1;

    result = tt_boot_listen(&boot->id, boot->deadline_ns, boot->abort, &join->listener);
    if (result == TUTTI_OK) {
        result = join_all(join);
        if (result == TUTTI_E_PEER)
            result = tell_late(join, result);
        for (int i = 0; i < MAX_STRANGERS; i++) {
            if (join->strangers[i].fd >= 0)
                drop(join, &join->strangers[i]);
        }
        if (boot->epoll_fd >= 0)
            unwatch(boot, join->listener);
        /* Before anybody may go on: the next communicator's joiners must not meet this listener. */
        tt_boot_listener_close(join->listener);
    }
    if (result == TUTTI_OK)
        result = start_all(boot);
    free(join);
    return result == TUTTI_OK ? TUTTI_OK : tt_boot_root_fail(boot, result);
}
