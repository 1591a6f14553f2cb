/*
 * The network beside a raw socket, in one run and interleaved: latency of a put and a signal (half of a
 * ping-pong), bandwidth of puts that have arrived. Two processes, each on a core of its own where there are
 * two, over the loopback; or, with the name of a network namespace and this one's address on the way there,
 * between the two (scripts/net_check.sh makes some).
 *     net_bench [rounds [namespace address]]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "boot/boot.h"
#include "net/net.h"

#define MIB        ((size_t)1 << 20)
#define MOST       (4 * MIB)
#define FLAG_AT    (MOST + 64) /* behind what the socket receives */
#define N_SIZES    5
#define MOST_TIMES 1000

static const size_t sizes[N_SIZES] = {8, 4096, 65536, MIB, MOST};

struct shared { /* between the two processes */
    _Atomic int arrived, round;
    unsigned char record[2][8192];
};

static struct shared *shared;
static int rank;
static pid_t child; /* rank 0's: rank 1 */
static const char *namespace, *address = "127.0.0.1";
static unsigned char *mine, *src;

#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != TUTTI_OK) {                                                                  \
            fprintf(stderr, "net_bench: rank %d: %s\n", rank, tt_error_text());                    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void fail(const char *what)
{
    fprintf(stderr, "net_bench: rank %d: %s: %s\n", rank, what, strerror(errno));
    exit(1);
}

static void meet(void)
{
    const int round = atomic_load(&shared->round);

    if (atomic_fetch_add(&shared->arrived, 1) == 1) {
        atomic_store(&shared->arrived, 0);
        atomic_store(&shared->round, round + 1);
    }
    while (atomic_load(&shared->round) == round) {
        if (rank == 0 && waitpid(child, NULL, WNOHANG) == child)
            exit(1); /* it has said why */
        usleep(100);
    }
}

static tutti_result gather(void *context, const void *send, void *recv, size_t bytes)
{
    (void)context;
    meet();
    memcpy(shared->record[rank], send, bytes);
    meet();
    for (int r = 0; r < 2; r++)
        memcpy((char *)recv + (size_t)r * bytes, shared->record[r], bytes);
    return TUTTI_OK;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), by_value);
    return values[n / 2];
}

/* ---- the socket ---- */

static int connected(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(address)};
    socklen_t bytes = sizeof(at);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0), other = fd;

    if (fd < 0)
        fail("socket");
    if (rank == 0) {
        if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 1) != 0 ||
            getsockname(fd, (struct sockaddr *)&at, &bytes) != 0)
            fail("listen");
        memcpy(shared->record[0], &at, sizeof(at));
        meet();
        other = accept(fd, NULL, NULL);
    } else {
        meet();
        memcpy(&at, shared->record[0], sizeof(at));
        if (connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
            fail("connect");
    }
    setsockopt(other, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return other;
}

static void send_all(int fd, const void *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = send(fd, data, bytes, MSG_DONTWAIT);

        if (n < 0 && errno != EAGAIN && errno != EINTR)
            fail("send");
        n = n < 0 ? 0 : n;
        data = (const char *)data + n;
        bytes -= (size_t)n;
    }
}

static void recv_all(int fd, void *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = recv(fd, data, bytes, MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            fail("recv");
        n = n < 0 ? 0 : n;
        data = (char *)data + n;
        bytes -= (size_t)n;
    }
}

/* Medians of single round trips: a machine that is shared moves the mean. */
static double socket_latency(int fd, size_t bytes, int times)
{
    static double us[MOST_TIMES];

    for (int i = 0; i < times; i++) { /* the payload and eight bytes of signal in one stream */
        const uint64_t start = tt_now_ns();

        if (rank == 0)
            send_all(fd, src, bytes + 8);
        recv_all(fd, mine, bytes + 8);
        if (rank == 1)
            send_all(fd, src, bytes + 8);
        us[i] = (double)(tt_now_ns() - start) / 2e3;
    }
    return median(us, times);
}

static double socket_bandwidth(int fd, size_t bytes, int times)
{
    const uint64_t start = tt_now_ns();
    char done = 0;

    for (int i = 0; i < times; i++) {
        if (rank == 0)
            send_all(fd, src, bytes);
        else
            recv_all(fd, mine, bytes);
    }
    if (rank == 0)
        recv_all(fd, &done, 1);
    else
        send_all(fd, &done, 1);
    return (double)bytes * times / (double)(tt_now_ns() - start);
}

/* ---- the network ---- */

struct end {
    struct tt_net *net;
    struct tt_net_region *region;
    uint64_t sent, seen;
};

static void wait_flag(struct end *e)
{
    const _Atomic uint64_t *flag = (const void *)(mine + FLAG_AT);

    e->seen++;
    while (tt_load_acquire(flag) < e->seen)
        MUST(tt_net_progress(e->net));
}

static void put_and_signal(struct end *e, size_t bytes)
{
    MUST(tt_net_put(e->net, 1 - rank, src, bytes, e->region, 0));
    MUST(tt_net_signal(e->net, 1 - rank, e->region, FLAG_AT, ++e->sent));
}

static double net_latency(struct end *e, size_t bytes, int times)
{
    static double us[MOST_TIMES];

    for (int i = 0; i < times; i++) {
        const uint64_t start = tt_now_ns();

        if (rank == 0)
            put_and_signal(e, bytes);
        wait_flag(e);
        if (rank == 1)
            put_and_signal(e, bytes);
        us[i] = (double)(tt_now_ns() - start) / 2e3;
    }
    while (tt_net_sent(e->net, 1 - rank) < tt_net_posted(e->net, 1 - rank))
        MUST(tt_net_progress(e->net));
    return median(us, times);
}

static double net_bandwidth(struct end *e, size_t bytes, int times)
{
    const uint64_t start = tt_now_ns();

    if (rank == 0) {
        for (int i = 0; i < times; i++)
            MUST(tt_net_put(e->net, 1, src, bytes, e->region, 0));
        put_and_signal(e, 8);
        wait_flag(e);
    } else {
        wait_flag(e);
        put_and_signal(e, 8);
        while (tt_net_sent(e->net, 0) < tt_net_posted(e->net, 0))
            MUST(tt_net_progress(e->net));
    }
    return (double)bytes * times / (double)(tt_now_ns() - start);
}

/* ---- both ---- */

static void measure(struct end *e, int fd, int rounds)
{
    double *v = calloc((size_t)rounds * 4, sizeof(*v));

    if (rank == 0)
        printf("%s\n%9s | %21s | %21s | %12s\n%9s | %10s %10s | %10s %10s |\n",
               tt_net_details(e->net), "bytes", "one way, us", "bandwidth, GB/s", "net : socket",
               "", "socket", "net", "socket", "net");
    for (int k = 0; k < N_SIZES; k++) {
        const size_t bytes = sizes[k];
        const int times = bytes < 65536 ? 1000 : bytes < MIB ? 300 : 40;
        double *sl = v, *nl = v + rounds, *sb = v + 2 * rounds, *nb = v + 3 * rounds;

        for (int i = 0; i < rounds; i++) {
            meet();
            sl[i] = socket_latency(fd, bytes, times);
            meet();
            nl[i] = net_latency(e, bytes, times);
            meet();
            sb[i] = socket_bandwidth(fd, bytes, 4 * times);
            meet();
            nb[i] = net_bandwidth(e, bytes, 4 * times);
        }
        if (rank != 0)
            continue;
        printf("%9zu | %10.2f %10.2f | %10.3f %10.3f | %5.2f %5.2f\n", bytes, median(sl, rounds),
               median(nl, rounds), median(sb, rounds), median(nb, rounds),
               median(nl, rounds) / median(sl, rounds), median(nb, rounds) / median(sb, rounds));
        fflush(stdout);
    }
    free(v);
}

/* With a /sys of its own, where UCX looks for devices. */
static void enter(const char *name)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "/run/netns/%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("sysfs", "/sys", "sysfs", 0, NULL) != 0)
        fail(path);
    close(fd);
}

static int be_rank(int rounds)
{
    static const unsigned char key[32] = "a key";
    const int host_of[2] = {0, namespace != NULL};
    const struct tt_exchange x = {.rank = rank, .n_ranks = 2, .all_gather = gather};
    const struct tt_net_config config = {.rank = rank,
                                         .n_ranks = 2,
                                         .host_of = host_of,
                                         .timeout_ns = UINT64_C(30000000000),
                                         .key = key,
                                         .exchange = &x};
    struct end e = {0};
    cpu_set_t set;
    int fd;

    CPU_ZERO(&set);
    CPU_SET((unsigned)rank, &set);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
        (void)sched_setaffinity(0, sizeof(set), &set);
    mine = aligned_alloc(4096, MOST + 4096);
    src = aligned_alloc(4096, MOST + 4096);
    memset(mine, 0, MOST + 4096);
    memset(src, 1, MOST + 4096);
    fd = connected();
    MUST(tt_net_create(&config, &e.net));
    MUST(tt_net_expose(e.net, &x, mine, MOST + 4096, &e.region));
    (void)net_latency(&e, 8, 200); /* wires up */
    measure(&e, fd, rounds);
    meet();
    tt_net_hide(e.region);
    tt_net_destroy(e.net);
    return 0;
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 5;
    int status = 0;

    if (argc > 3) {
        namespace = argv[2];
        address = argv[3];
    }
    if (*tt_net_missing()) {
        printf("net_bench: %s\n", tt_net_missing());
        return 0;
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    child = fork();
    rank = child == 0;
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (namespace)
            enter(namespace);
        return be_rank(rounds > 0 ? rounds : 1);
    }
    status = be_rank(rounds > 0 ? rounds : 1);
    waitpid(child, NULL, 0);
    return status;
}
