/* Listening, connecting, sending and receiving. */
#include "boot/boot_socket.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define BACKLOG       4096
#define ABORT_POLL_MS 20
#define BIND_RETRY_MS 20

int tt_boot_is_aborted(const atomic_int *abort)
{
    return abort && atomic_load_explicit(abort, memory_order_relaxed) != 0;
}

int tt_boot_poll_ms(uint64_t deadline_ns, const atomic_int *abort, int most)
{
    uint64_t now = tt_now_ns();
    uint64_t left = deadline_ns > now ? (deadline_ns - now) / 1000000 + 1 : 0;

    if (abort && most > ABORT_POLL_MS)
        most = ABORT_POLL_MS;
    return left < (uint64_t)most ? (int)left : most;
}

static int set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value));
}

/* 0 or an errno. */
static int listen_at(const struct tt_boot_endpoint *endpoint, int both_families, int *fd_out)
{
    int family = endpoint->address.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return errno;
    /* A port that the last communicator has just left is free to take. */
    if (family != AF_UNIX)
        (void)set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (family == AF_INET6)
        (void)set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, !both_families);
    if (bind(fd, (const struct sockaddr *)&endpoint->address, endpoint->bytes) != 0 ||
        listen(fd, BACKLOG) != 0) {
        int error = errno;

        close(fd);
        return error;
    }
    *fd_out = fd;
    return 0;
}

static int listen_any(uint16_t port, int *fd_out)
{
    struct tt_boot_address any = {.kind = TT_BOOT_IP6};
    struct tt_boot_endpoint endpoint;

    tt_boot_address_resolve(&any, port, &endpoint, 1);
    int error = listen_at(&endpoint, 1, fd_out);

    if (error == 0 || error == EADDRINUSE)
        return error;
    any.kind = TT_BOOT_IP4; /* a host without IPv6 */
    tt_boot_address_resolve(&any, port, &endpoint, 1);
    return listen_at(&endpoint, 0, fd_out);
}

static int bound_port(int fd, uint16_t *port_out)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);

    memset(&address, 0, sizeof(address));
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        return -1;
    if (address.ss_family == AF_INET)
        *port_out = ntohs(((const struct sockaddr_in *)(const void *)&address)->sin_port);
    else if (address.ss_family == AF_INET6)
        *port_out = ntohs(((const struct sockaddr_in6 *)(const void *)&address)->sin6_port);
    else
        return -1;
    return 0;
}

tutti_result tt_boot_listen_ephemeral(const struct tt_boot_address *address, int *fd_out,
                                      uint16_t *port_out)
{
    struct tt_boot_endpoint endpoint;
    int fd = -1;
    int error;

    if (address) {
        tt_boot_address_resolve(address, 0, &endpoint, 1);
        error = listen_at(&endpoint, 0, &fd);
    } else {
        error = listen_any(0, &fd);
    }
    if (error == 0 && bound_port(fd, port_out) != 0) {
        error = errno;
        close(fd);
    }
    errno = error;
    if (error)
        return TT_FAIL_SYS("cannot listen for the other ranks");
    *fd_out = fd;
    return TUTTI_OK;
}

int tt_boot_listener_of(const struct tt_boot_id *id)
{
    uint16_t port = 0;
    int listens = 0;
    socklen_t bytes = sizeof(listens);
    int fd = id->fd <= INT_MAX ? (int)id->fd : -1;

    if (!id->is_listening || id->pid != (uint32_t)getpid() ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || !listens ||
        bound_port(fd, &port) != 0 || port != id->port)
        return -1;
    return fd;
}

static tutti_result take_over(const struct tt_boot_id *id, int *fd_out)
{
    const int fd = tt_boot_listener_of(id);

    if (id->pid != (uint32_t)getpid())
        return TT_FAIL(TUTTI_E_ARG,
                       "the id was made by process %u, but rank 0 is process %d: make the id in "
                       "the process that is rank 0",
                       id->pid, (int)getpid());
    if (fd < 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "nothing listens for this id any more: an id makes one communicator; make "
                       "another for the next");
    *fd_out = fd;
    return TUTTI_OK;
}

/* 0 or an errno. */
static int listen_known(const struct tt_boot_id *id, int *fd_out)
{
    struct tt_boot_endpoint endpoint;

    if (id->bind_any)
        return listen_any(id->port, fd_out);
    if (tt_boot_address_resolve(&id->addresses[0], id->port, &endpoint, 1) != 1)
        return EADDRNOTAVAIL;
    int error = listen_at(&endpoint, 0, fd_out);

    /* The address of a load balancer or a container's host, which leads here all the same. */
    if (error == EADDRNOTAVAIL && id->addresses[0].kind != TT_BOOT_UNIX)
        error = listen_any(id->port, fd_out);
    return error;
}

tutti_result tt_boot_listen(const struct tt_boot_id *id, uint64_t deadline_ns,
                            const atomic_int *abort, int *fd_out)
{
    char where[TT_BOOT_TEXT_BYTES];
    int error;

    if (id->is_listening)
        return take_over(id, fd_out);
    while ((error = listen_known(id, fd_out)) == EADDRINUSE) {
        int ms = tt_boot_poll_ms(deadline_ns, abort, BIND_RETRY_MS);

        if (tt_boot_is_aborted(abort))
            return TT_FAIL(TUTTI_E_ABORTED, "aborted while waiting for the rendezvous address");
        if (ms == 0)
            break;
        poll(NULL, 0, ms);
    }
    if (error == 0)
        return TUTTI_OK;

    tt_boot_id_where(id, where, sizeof(where));
    errno = error;
    if (error == EADDRINUSE)
        return TT_FAIL(TUTTI_E_TIMEOUT,
                       "rank 0 cannot listen on %s, which was in use until the deadline: another "
                       "job's? set TUTTI_BOOT_ADDR to a free address",
                       where);
    return TT_FAIL_SYS("rank 0 cannot listen on %s", where);
}

const char *tt_boot_listen_doubt(const struct tt_boot_id *id)
{
    struct tt_boot_endpoint found[8];
    int n, fd = -1;

    if (id->is_listening || id->addresses[0].kind == TT_BOOT_UNIX)
        return "";
    n = tt_boot_address_resolve(&id->addresses[0], 0, found, (int)TT_LEN(found));
    if (n == 0)
        return " (this name is not known here)";
    for (int i = 0; i < n; i++) {
        const int error = listen_at(&found[i], 0, &fd);

        if (error == 0)
            close(fd);
        if (error != EADDRNOTAVAIL)
            return "";
    }
    return " (it is no address of this host)";
}

void tt_boot_listener_close(int fd)
{
    if (fd < 0)
        return;
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

/* On a port of the ephemeral range a connect may meet itself, which would also keep rank 0 out. */
static int is_self(int fd)
{
    struct sockaddr_storage mine;
    struct sockaddr_storage theirs;
    socklen_t n_mine = sizeof(mine);
    socklen_t n_theirs = sizeof(theirs);

    memset(&mine, 0, sizeof(mine));
    memset(&theirs, 0, sizeof(theirs));
    if (getsockname(fd, (struct sockaddr *)&mine, &n_mine) != 0 ||
        getpeername(fd, (struct sockaddr *)&theirs, &n_theirs) != 0)
        return 0;
    return mine.ss_family != AF_UNIX && n_mine == n_theirs && memcmp(&mine, &theirs, n_mine) == 0;
}

int tt_boot_connect_finish(int fd)
{
    int error = 0;
    socklen_t bytes = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
        return errno;
    if (error == 0 && is_self(fd)) {
        struct linger now = {.l_onoff = 1};

        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        error = ECONNREFUSED;
    }
    return error;
}

int tt_boot_connect(const struct tt_boot_endpoint *endpoint, int *fd_out)
{
    int fd = socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;

    *fd_out = -1;
    if (fd < 0)
        return errno;
    if (endpoint->address.ss_family != AF_UNIX)
        (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (connect(fd, (const struct sockaddr *)&endpoint->address, endpoint->bytes) != 0)
        error = errno == EINTR ? EINPROGRESS : errno;
    else
        error = tt_boot_connect_finish(fd);
    if (error && error != EINPROGRESS) {
        close(fd);
        return error;
    }
    *fd_out = fd;
    return error;
}

int tt_boot_check_user(int fd, int *uid_out)
{
    struct ucred peer = {.uid = (uid_t)-1};
    int domain = 0;
    socklen_t bytes = sizeof(domain);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) != 0)
        return -1;
    if (domain != AF_UNIX)
        return 0;
    bytes = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
        return -1;
    *uid_out = (int)peer.uid;
    return peer.uid == geteuid() ? 0 : -1;
}

long tt_boot_send_some(int fd, const void *data, size_t bytes)
{
    for (;;) {
        ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0)
            return (long)n;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return -1;
    }
}

long tt_boot_recv_some(int fd, void *data, size_t bytes)
{
    for (;;) {
        ssize_t n = recv(fd, data, bytes, MSG_DONTWAIT);

        if (n > 0)
            return (long)n;
        if (n == 0) {
            errno = 0;
            return -1;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return -1;
    }
}
