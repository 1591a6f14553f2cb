/*
 * Passing file descriptors between the ranks of one host: a datagram socket per rank, bound to a
 * random abstract name. Every message is of fixed size and carries an HMAC over round, sender and
 * receiver, so others that find the name can only cost us a receive; the kernel adds the sender's
 * credentials. Nobody ever waits in a send: while a queue is full, or too many descriptors are under
 * way, a rank reads what has come for it, and so no two ranks can wait for each other.
 */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "boot/boot.h"
#include "boot/boot_wire.h"

#define NAME_BYTES       16
#define FULL_RETRY_MS    1  /* between attempts to send to a full queue */
#define PROBE_MS         20 /* between looks whether the peers that we wait for still exist */
#define MAX_RECEIVED_FDS 4
#define MAX_FOREIGN      1024

/* What ranks tell each other before the first datagram. */
struct card {
    unsigned char name[NAME_BYTES];
    uint32_t pid;
    uint32_t result; /* of the second exchange: 0, or the failure that this rank saw */
    uint32_t culprit;
    uint32_t zero;
};

/* An offer that arrived in an earlier round than ours: its sender is one round ahead, never two. */
struct early {
    int is_full;
    int fd;
    uint32_t type;
    uint64_t round;
};

struct tt_fd_mesh {
    int rank;
    int n_ranks;
    int fd;
    unsigned char key[32];
    uint32_t *pids; /* as the ranks gave them, for messages */
    unsigned char (*names)[NAME_BYTES];
    struct tt_peer_credentials *peers;
    struct early *early;
};

enum { UNREACHABLE = 1, OTHER_USER = 2 };

/* One collective round. */
struct round {
    struct tt_fd_mesh *mesh;
    uint32_t type;
    uint64_t number;
    int fd; /* my offer */
    int *fds_out;
    unsigned char *is_sent;
    unsigned char *is_here;
    unsigned char *is_gone; /* HELLO only: UNREACHABLE or OTHER_USER */
    int n_to_send;
    int n_to_come;
    int skip_gone;       /* a peer that is gone or foreign is noted, and is no failure */
    tutti_result failed; /* what the round will fail with, once the others are served */
    char failed_text[256];
    uint64_t probe_ns;
    uint64_t send_ns; /* not before: the queues were full when we last tried */
    unsigned char (*frames)[TT_WIRE_FD_BYTES];
};

static socklen_t fill_address(const unsigned char name[NAME_BYTES], struct sockaddr_un *out)
{
    static const char digits[] = "0123456789abcdef";
    char *p;

    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    p = out->sun_path + 1;
    memcpy(p, "tutti-", 6);
    p += 6;
    for (int i = 0; i < NAME_BYTES; i++) {
        *p++ = digits[name[i] >> 4];
        *p++ = digits[name[i] & 15];
    }
    return (socklen_t)(p - (char *)out);
}

static tutti_result bind_socket(struct tt_fd_mesh *mesh, unsigned char name[NAME_BYTES])
{
    struct sockaddr_un address;
    socklen_t bytes;
    int one = 1;

    TT_TRY(tt_random_bytes(name, NAME_BYTES));
    bytes = fill_address(name, &address);
    mesh->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (mesh->fd < 0)
        return TT_FAIL_SYS("cannot make a local socket");
    /* Before anybody can know the name, so that no message comes without credentials. */
    if (setsockopt(mesh->fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) != 0 ||
        bind(mesh->fd, (const struct sockaddr *)&address, bytes) != 0)
        return TT_FAIL_SYS("cannot bind a local socket");
    return TUTTI_OK;
}

static tutti_result peer_gone(const struct tt_fd_mesh *mesh, int rank)
{
    return TT_FAIL(TUTTI_E_PEER,
                   "rank %d (process %u) died or left while ranks were sharing memory", rank,
                   mesh->pids[rank]);
}

/* OK, IN_PROGRESS (try later), or a failure. */
static tutti_result send_one(const struct round *round, int to)
{
    struct tt_fd_mesh *mesh = round->mesh;
    struct sockaddr_un address;
    struct iovec iov = {.iov_base = round->frames[to], .iov_len = TT_WIRE_FD_BYTES};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];

    message.msg_name = &address;
    message.msg_namelen = fill_address(mesh->names[to], &address);
    if (round->fd >= 0) {
        memset(control, 0, sizeof(control));
        message.msg_control = control;
        message.msg_controllen = sizeof(control);

        struct cmsghdr *c = CMSG_FIRSTHDR(&message);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &round->fd, sizeof(int));
    }
    while (sendmsg(mesh->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        switch (errno) {
        case EINTR: continue;
        case EAGAIN:       /* its queue is full */
        case ENOBUFS:      /* ... or the kernel's memory for it */
        case ETOOMANYREFS: /* this user has too many descriptors under way */
            return TUTTI_IN_PROGRESS;
        case ECONNREFUSED: /* nobody has the name */
        case ENOENT:
        case EPIPE:
        case ECONNRESET: return peer_gone(mesh, to);
        case EBADF: return TT_FAIL(TUTTI_E_ARG, "%d is not an open descriptor", round->fd);
        default: return TT_FAIL_SYS("cannot send to rank %d", to);
        }
    }
    return TUTTI_OK;
}

struct received {
    struct tt_wire_fd frame;
    struct ucred sender;
    int has_sender;
    int n_fds;
    int fds[MAX_RECEIVED_FDS];
};

static void close_fds(struct received *r)
{
    for (int i = 0; i < r->n_fds; i++)
        close(r->fds[i]);
    r->n_fds = 0;
}

static void read_control(struct msghdr *message, struct received *out)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_len < CMSG_LEN(0))
            continue;

        size_t bytes = c->cmsg_len - CMSG_LEN(0);

        if (c->cmsg_type == SCM_CREDENTIALS && bytes >= sizeof(out->sender)) {
            memcpy(&out->sender, CMSG_DATA(c), sizeof(out->sender));
            out->has_sender = 1;
        } else if (c->cmsg_type == SCM_RIGHTS) {
            /* The kernel gives no more than fit in our buffer and closes the rest. */
            for (size_t at = 0; at + sizeof(int) <= bytes && out->n_fds < MAX_RECEIVED_FDS;
                 at += sizeof(int))
                memcpy(&out->fds[out->n_fds++], CMSG_DATA(c) + at, sizeof(int));
        }
    }
}

/* OK: one message of a rank. IN_PROGRESS: none here. Others' messages are dropped on the way, but
 * only so many at a time: a flood of them must not keep us from the deadline. */
static tutti_result receive_one(const struct tt_fd_mesh *mesh, struct received *out)
{
    for (int n_foreign = 0; n_foreign < MAX_FOREIGN; n_foreign++) {
        unsigned char bytes[TT_WIRE_FD_BYTES + 1];
        _Alignas(struct cmsghdr) char
            control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(MAX_RECEIVED_FDS * sizeof(int))];
        struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        memset(out, 0, sizeof(*out));

        ssize_t n = recvmsg(mesh->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return TUTTI_IN_PROGRESS;
        if (n < 0)
            return TT_FAIL_SYS("cannot receive from the other ranks");
        read_control(&message, out);
        if (tt_wire_parse_fd(mesh->key, bytes, (size_t)n, mesh->rank, mesh->n_ranks, &out->frame) ==
                0 &&
            out->has_sender && out->n_fds <= 1)
            return TUTTI_OK;
        close_fds(out);
    }
    return TUTTI_IN_PROGRESS;
}

static tutti_result fail_user(const struct tt_fd_mesh *mesh, int from)
{
    return TT_FAIL(TUTTI_E_AUTH,
                   "rank %d (process %u) runs as user %d, rank %d as user %d: ranks that share "
                   "memory must run as one user",
                   from, mesh->pids[from], mesh->peers[from].uid, mesh->rank, (int)getuid());
}

/* Failures that are about one peer wait until all others have been sent to and heard of: whoever left at once
 * would let those wait in vain for its own message, since it still exists. The first one counts. */
static void keep_failure(struct round *round, tutti_result result)
{
    if (round->failed != TUTTI_OK)
        return;
    round->failed = result;
    snprintf(round->failed_text, sizeof(round->failed_text), "%s", tt_error_text());
}

static void check_received(struct round *round, struct received *r)
{
    const struct tt_fd_mesh *mesh = round->mesh;
    int from = (int)r->frame.from;

    mesh->peers[from].pid = (int)r->sender.pid;
    mesh->peers[from].uid = (int)r->sender.uid;
    if (r->sender.uid != getuid() && round->skip_gone) {
        round->is_gone[from] = OTHER_USER;
    } else if (r->sender.uid != getuid()) {
        close_fds(r);
        keep_failure(round, fail_user(mesh, from));
    } else if ((int)r->frame.n_fds != r->n_fds) {
        close_fds(r);
        keep_failure(round,
                     TT_FAIL(TUTTI_E_SYSTEM,
                             "rank %d has no file descriptor left for the memory of rank %d: raise "
                             "the limit (ulimit -n)",
                             mesh->rank, from));
    }
}

static void keep_early(struct tt_fd_mesh *mesh, struct received *r)
{
    struct early *early = &mesh->early[r->frame.from];

    if (early->is_full && early->fd >= 0) /* of a round that failed: nobody will ask for it */
        close(early->fd);
    early->is_full = 1;
    early->type = r->frame.type;
    early->round = r->frame.round;
    early->fd = r->n_fds ? r->fds[0] : -1;
}

static void arrived(struct round *round, int from, int fd)
{
    if (round->is_here[from]) {
        if (fd >= 0)
            close(fd);
        return;
    }
    round->is_here[from] = 1;
    round->n_to_come--;
    if (round->fds_out)
        round->fds_out[from] = fd;
    else if (fd >= 0)
        close(fd);
}

static tutti_result receive_all(struct round *round, int *progress_out)
{
    struct tt_fd_mesh *mesh = round->mesh;
    struct received r;
    tutti_result result;

    while ((result = receive_one(mesh, &r)) == TUTTI_OK) {
        int from = (int)r.frame.from;

        check_received(round, &r);
        *progress_out = 1;
        if (r.frame.type == round->type && r.frame.round == round->number)
            arrived(round, from, r.n_fds ? r.fds[0] : -1);
        else
            keep_early(mesh, &r);
    }
    return result == TUTTI_IN_PROGRESS ? TUTTI_OK : result;
}

static void take_early(struct round *round)
{
    struct tt_fd_mesh *mesh = round->mesh;

    for (int i = 0; i < mesh->n_ranks; i++) {
        struct early *early = &mesh->early[i];

        if (!early->is_full || early->type != round->type || early->round != round->number)
            continue;
        early->is_full = 0;
        arrived(round, i, early->fd);
    }
}

/* A peer that cannot be reached, or has gone. In the HELLO round that is only noted, for all to get to know. */
static tutti_result lose(struct round *round, int rank, tutti_result result)
{
    if (result != TUTTI_E_PEER)
        return result;
    if (round->skip_gone)
        round->is_gone[rank] = UNREACHABLE;
    else
        keep_failure(round, result);
    if (!round->is_sent[rank]) {
        round->is_sent[rank] = 1;
        round->n_to_send--;
    }
    if (!round->is_here[rank]) {
        round->is_here[rank] = 1;
        round->n_to_come--;
    }
    return TUTTI_OK;
}

static tutti_result send_all(struct round *round, int *progress_out)
{
    const struct tt_fd_mesh *mesh = round->mesh;
    int n_before = round->n_to_send;

    if (n_before == 0 || tt_now_ns() < round->send_ns)
        return TUTTI_OK;
    /* Each begins after itself, so that not all crowd into the queue of rank 0. */
    for (int i = 1; i < mesh->n_ranks && round->n_to_send > 0; i++) {
        int to = (mesh->rank + i) % mesh->n_ranks;

        if (round->is_sent[to])
            continue;
        tutti_result result = send_one(round, to);

        if (result == TUTTI_OK) {
            round->is_sent[to] = 1;
            round->n_to_send--;
            *progress_out = 1;
        } else if (result < TUTTI_OK) {
            TT_TRY(lose(round, to, result));
        }
    }
    if (round->n_to_send == n_before) /* not after every message that we get meanwhile */
        round->send_ns = tt_now_ns() + FULL_RETRY_MS * UINT64_C(1000000);
    return TUTTI_OK;
}

/* 1 if somebody still has the name. Looks without putting anything in a queue. */
static int exists(const struct tt_fd_mesh *mesh, int rank)
{
    struct sockaddr_un address;
    socklen_t bytes = fill_address(mesh->names[rank], &address);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int is_there;

    if (fd < 0)
        return 1;
    is_there = connect(fd, (const struct sockaddr *)&address, bytes) == 0 || errno != ECONNREFUSED;
    close(fd);
    return is_there;
}

static tutti_result probe(struct round *round)
{
    const struct tt_fd_mesh *mesh = round->mesh;
    int progress = 0;

    if (tt_now_ns() < round->probe_ns)
        return TUTTI_OK;
    round->probe_ns = tt_now_ns() + PROBE_MS * UINT64_C(1000000);
    for (int i = 0; i < mesh->n_ranks; i++) {
        if (round->is_here[i] || exists(mesh, i))
            continue;
        /* It may have sent its offer and left since we last looked. */
        TT_TRY(receive_all(round, &progress));
        if (!round->is_here[i])
            TT_TRY(lose(round, i, peer_gone(mesh, i)));
    }
    return TUTTI_OK;
}

static tutti_result fail_late(const struct round *round)
{
    const struct tt_fd_mesh *mesh = round->mesh;

    for (int i = 0; i < mesh->n_ranks; i++) {
        if (!round->is_here[i] || !round->is_sent[i])
            return TT_FAIL(TUTTI_E_TIMEOUT,
                           "rank %d (process %u) did not share its memory before the deadline", i,
                           mesh->pids[i]);
    }
    return TT_FAIL(TUTTI_E_TIMEOUT, "ranks did not share their memory before the deadline");
}

static tutti_result run_round(struct round *round, uint64_t deadline_ns)
{
    take_early(round);
    while (round->n_to_send > 0 || round->n_to_come > 0) {
        int progress = 0;

        TT_TRY(send_all(round, &progress));
        TT_TRY(receive_all(round, &progress));
        if (progress)
            continue;
        if (tt_now_ns() >= deadline_ns && round->failed == TUTTI_OK)
            return fail_late(round);
        if (tt_now_ns() >= deadline_ns)
            break;
        TT_TRY(probe(round));

        struct pollfd wait = {.fd = round->mesh->fd, .events = POLLIN};

        if (poll(&wait, 1, round->n_to_send > 0 ? FULL_RETRY_MS : PROBE_MS) < 0 && errno != EINTR)
            return TT_FAIL_SYS("cannot wait for the other ranks");
    }
    return round->failed != TUTTI_OK ? TT_FAIL(round->failed, "%s", round->failed_text) : TUTTI_OK;
}

/* Every message once, however often it has to be tried. */
static void pack_frames(struct round *round)
{
    for (int to = 0; to < round->mesh->n_ranks; to++) {
        struct tt_wire_fd frame = {.type = round->type, .round = round->number};

        frame.from = (uint32_t)round->mesh->rank;
        frame.to = (uint32_t)to;
        frame.n_fds = round->fd >= 0;
        tt_wire_pack_fd(round->mesh->key, &frame, round->frames[to]);
    }
}

/* Run a round with its bookkeeping; `gone` is NULL or takes who could not be reached. */
static tutti_result do_round(struct round *round, unsigned char *gone, uint64_t deadline_ns)
{
    const struct tt_fd_mesh *mesh = round->mesh;
    size_t n = (size_t)mesh->n_ranks;
    tutti_result result;

    round->is_sent = calloc(n, 2);
    round->frames = calloc(n, TT_WIRE_FD_BYTES);
    if (!round->is_sent || !round->frames) {
        free(round->is_sent);
        free(round->frames);
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to share descriptors among %zu ranks", n);
    }
    pack_frames(round);
    round->is_here = round->is_sent + n;
    round->is_gone = gone;
    round->skip_gone = gone != NULL;
    round->is_sent[mesh->rank] = 1;
    round->is_here[mesh->rank] = 1;
    round->n_to_send = mesh->n_ranks - 1;
    round->n_to_come = mesh->n_ranks - 1;
    result = run_round(round, deadline_ns);
    free(round->is_sent);
    free(round->frames);
    return result;
}

tutti_result tt_fd_mesh_exchange(struct tt_fd_mesh *mesh, uint64_t round_number, int fd,
                                 int fds_out[], uint64_t deadline_ns)
{
    struct round round = {.mesh = mesh, .type = TT_WIRE_FD_OFFER, .number = round_number};
    tutti_result result;

    round.fd = fd;
    round.fds_out = fds_out;
    for (int i = 0; i < mesh->n_ranks; i++)
        fds_out[i] = -1;
    result = do_round(&round, NULL, deadline_ns);
    for (int i = 0; result != TUTTI_OK && i < mesh->n_ranks; i++) {
        if (fds_out[i] >= 0)
            close(fds_out[i]);
        fds_out[i] = -1;
    }
    return result;
}

/* Say hello to everybody, then compare notes, so that all ranks fail alike and name the same one. */
static tutti_result verify(struct tt_fd_mesh *mesh, const struct tt_exchange *exchange,
                           struct card *cards, struct card *mine)
{
    struct round hello = {.mesh = mesh, .type = TT_WIRE_FD_HELLO, .fd = -1};
    unsigned char *gone = calloc((size_t)mesh->n_ranks, 1);
    tutti_result result;

    if (!gone)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to share descriptors");
    result = do_round(&hello, gone, exchange->deadline_ns);
    for (int i = 0; result == TUTTI_OK && i < mesh->n_ranks; i++) {
        if (gone[i] == OTHER_USER) {
            mine->culprit = (uint32_t)i;
            result = fail_user(mesh, i);
        } else if (gone[i] == UNREACHABLE) {
            mine->culprit = (uint32_t)i;
            result = TT_FAIL(TUTTI_E_UNSUPPORTED,
                             "rank %d (process %u) cannot be reached by a local socket from rank "
                             "%d: another host, container or network namespace, or it died",
                             i, mesh->pids[i], mesh->rank);
        }
    }
    free(gone);
    mine->result = (uint32_t)result;
    TT_TRY(exchange->all_gather(exchange->context, mine, cards, sizeof(*mine)));
    if (result != TUTTI_OK) /* the text of what this rank saw itself is the better one */
        return TT_FAIL(result, "%s", tt_error_text());
    for (int i = 0; i < mesh->n_ranks; i++) {
        if (cards[i].result != 0)
            return TT_FAIL(tt_wire_parse_result(cards[i].result),
                           "rank %d cannot share memory with rank %u: %s", i, cards[i].culprit,
                           tt_result_text(tt_wire_parse_result(cards[i].result)));
    }
    return TUTTI_OK;
}

static tutti_result open_mesh(struct tt_fd_mesh *mesh, const struct tt_exchange *exchange)
{
    size_t n = (size_t)mesh->n_ranks;
    struct card mine = {.pid = (uint32_t)getpid()};
    struct card *cards = calloc(n, sizeof(*cards));
    tutti_result result;

    mesh->pids = calloc(n, sizeof(*mesh->pids));
    mesh->names = calloc(n, sizeof(*mesh->names));
    mesh->peers = calloc(n, sizeof(*mesh->peers));
    mesh->early = calloc(n, sizeof(*mesh->early));
    if (!cards || !mesh->pids || !mesh->names || !mesh->peers || !mesh->early)
        result = TT_FAIL(TUTTI_E_MEMORY, "no memory to share descriptors among %zu ranks", n);
    else
        result = bind_socket(mesh, mine.name);
    if (result == TUTTI_OK)
        result = exchange->all_gather(exchange->context, &mine, cards, sizeof(mine));
    if (result == TUTTI_OK) {
        for (size_t i = 0; i < n; i++) {
            memcpy(mesh->names[i], cards[i].name, NAME_BYTES);
            mesh->pids[i] = cards[i].pid;
        }
        mesh->peers[mesh->rank].pid = (int)getpid();
        mesh->peers[mesh->rank].uid = (int)getuid();
        result = verify(mesh, exchange, cards, &mine);
    }
    free(cards);
    return result;
}

tutti_result tt_fd_mesh_open(const struct tt_exchange *exchange, const unsigned char key[32],
                             struct tt_fd_mesh **mesh_out)
{
    struct tt_fd_mesh *mesh = calloc(1, sizeof(*mesh));
    tutti_result result;

    if (!mesh)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to share descriptors");
    mesh->fd = -1;
    mesh->rank = exchange->rank;
    mesh->n_ranks = exchange->n_ranks;
    memcpy(mesh->key, key, sizeof(mesh->key));
    result = open_mesh(mesh, exchange);
    if (result != TUTTI_OK) {
        tt_fd_mesh_close(mesh);
        return result;
    }
    *mesh_out = mesh;
    return TUTTI_OK;
}

const struct tt_peer_credentials *tt_fd_mesh_peer(const struct tt_fd_mesh *mesh, int rank)
{
    return &mesh->peers[rank];
}

void tt_fd_mesh_close(struct tt_fd_mesh *mesh)
{
    if (!mesh)
        return;
    for (int i = 0; mesh->early && i < mesh->n_ranks; i++) {
        if (mesh->early[i].is_full && mesh->early[i].fd >= 0)
            close(mesh->early[i].fd);
    }
    if (mesh->fd >= 0)
        close(mesh->fd);
    free(mesh->pids);
    free(mesh->names);
    free(mesh->peers);
    free(mesh->early);
    explicit_bzero(mesh->key, sizeof(mesh->key));
    free(mesh);
}
