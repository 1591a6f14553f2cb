#include "support/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/relay.h"

static struct relay slow_link; /* or, with zeros, a cable */

/* What the ranks of a job and their relay share. */
struct shared {
    volatile pid_t pids[2];
    volatile int is_cut;
};

static struct shared *shared_of(struct t_rank *t)
{
    _Static_assert(sizeof(struct shared) <= 64, "");
    return (struct shared *)(void *)(t->shared + T_SHARED_BYTES - 64);
}

void t_netns_link_is(unsigned delay_us, double loss, double mbit)
{
    slow_link = (struct relay){.delay_us = delay_us, .loss = loss, .mbit = mbit};
}

/* Runs a command; its exit status. */
static int run(const char *const words[])
{
    int status = 0;
    const pid_t pid = fork();

    if (pid == 0) {
        const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execvp(words[0], (char *const *)(uintptr_t)words);
        _exit(127);
    }
    T_SYS(pid);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

static void must(int status, const char *what)
{
    if (status != 0)
        t_skip("%s is not possible here (status %d)", what, status);
}

/* A /sys of our own shows our own devices, which is where UCX looks. */
static void leave_the_host(void)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0)
        t_skip("no namespace of our own: %s", strerror(errno));
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("sysfs", "/sys", "sysfs", 0, NULL) != 0)
        t_skip("no /sys of our own: %s", strerror(errno));
    must(RUN("ip", "link", "set", "lo", "up"), "`ip link`");
}

/* Into the namespaces of a rank that has left the host. */
static void follow(pid_t pid)
{
    static const char *const kinds[] = {"net", "mnt"};
    char path[64];

    for (size_t i = 0; i < T_LEN(kinds); i++) {
        snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kinds[i]);
        const int fd = open(path, O_RDONLY | O_CLOEXEC);

        T_SYS(fd);
        T_SYS(setns(fd, 0));
        close(fd);
    }
}

/* A TAP has no state that it tells; "unknown" is how it looks when it is there. */
static int is_up(const char *state)
{
    return strncmp(state, "up", 2) == 0 || strncmp(state, "unknown", 7) == 0;
}

void t_netns_wait_up(const char *name)
{
    const uint64_t end = tt_now_ns() + UINT64_C(5000000000) * t_scale();
    char path[64], state[16] = "";

    snprintf(path, sizeof(path), "/sys/class/net/%s/operstate", name);
    while (tt_now_ns() < end && !is_up(state)) {
        FILE *file = fopen(path, "r");

        if (!file || !fgets(state, sizeof(state), file))
            state[0] = 0;
        if (file)
            fclose(file);
        usleep(5000);
    }
    T_CHECK(is_up(state), "%s does not come up: %s", name, state);
}

/* A process of rank 0's, and it goes with it, that carries the packets of both hosts. */
static void start_relay(const struct shared *shared)
{
    const pid_t parent = getpid();
    struct relay relay = slow_link;
    char paths[2][64], ready = 0;
    int ends[2], fds[2];

    T_SYS(pipe2(ends, O_CLOEXEC));
    const pid_t pid = fork();

    T_SYS(pid);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        snprintf(paths[0], sizeof(paths[0]), "/proc/%d/ns/net", (int)shared->pids[0]);
        snprintf(paths[1], sizeof(paths[1]), "/proc/%d/ns/net", (int)shared->pids[1]);
        relay.net[0] = paths[0];
        relay.net[1] = paths[1];
        relay.name = "host0";
        relay.is_cut = &shared->is_cut;
        ready = relay_open(&relay, fds) == 0;
        if (write(ends[1], &ready, 1) == 1 && ready)
            relay_run(&relay, fds);
        _exit(0);
    }
    close(ends[1]);
    if (read(ends[0], &ready, 1) != 1 || !ready)
        t_skip("no TAP here");
    close(ends[0]);
}

void t_netns_add(const char *name, const char *ip4, const char *label)
{
    must(RUN("ip", "addr", "add", ip4, "dev", name, "label", label ? label : name),
         "`ip addr add`");
}

static void plug(struct t_rank *t, const char *name, const char *ip4, const char *ip6)
{
    (void)t;
    if (ip4)
        t_netns_add(name, ip4, NULL);
    if (ip6)
        must(RUN("ip", "-6", "addr", "add", ip6, "dev", name, "nodad"), "`ip -6 addr add`");
    must(RUN("ip", "link", "set", name, "up"), "`ip link set up`");
}

static void add_cable(const char *name, const char *other)
{
    must(RUN("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", other),
         "a virtual cable (veth)");
}

void t_netns_enter(struct t_rank *t, const char *const ip4[2], const char *const ip6[2], int more)
{
    static const char *const second[] = {"10.78.0.1/24", "10.78.0.2/24"};
    static const char *const decoy[] = {"10.79.0.1/24", "10.79.0.2/24"};
    struct shared *shared = shared_of(t);
    const int two_cables = (more & T_NETNS_SECOND) != 0;
    char other[16];

    if (t->rank < 2) {
        leave_the_host();
        shared->pids[t->rank] = getpid();
    }
    if (t->rank < 2 && more & T_NETNS_DECOY) {
        must(RUN("ip", "link", "add", "decoy0", "type", "veth", "peer", "name", "decoy1"),
             "a virtual cable (veth)");
        must(RUN("ip", "link", "set", "decoy1", "up"), "`ip link set up`");
        plug(t, "decoy0", decoy[t->rank], NULL);
    }
    t_meet(t);
    if (t->rank >= 2)
        follow(shared->pids[t->rank % 2]);
    snprintf(other, sizeof(other), "%d", (int)shared->pids[1]);
    if (t->rank == 0 && (slow_link.delay_us || slow_link.loss > 0 || slow_link.mbit > 0))
        start_relay(shared);
    else if (t->rank == 0)
        add_cable("host0", other);
    if (t->rank == 0 && two_cables)
        add_cable("host1", other);
    t_meet(t);
    if (t->rank < 2)
        plug(t, "host0", ip4[t->rank], ip6[t->rank]);
    if (t->rank < 2 && two_cables)
        plug(t, "host1", second[t->rank], NULL);
    t_meet(t);
    t_netns_wait_up("host0");
    if (two_cables)
        t_netns_wait_up("host1");
    if (more & T_NETNS_DECOY)
        t_netns_wait_up("decoy0");
    t_meet(t);
}

void t_netns_cut(struct t_rank *t, int is_cut)
{
    shared_of(t)->is_cut = is_cut;
}

void t_netns_link(const char *name, int up)
{
    T_CHECK(RUN("ip", "link", "set", name, up ? "up" : "down") == 0, "ip link set %s failed", name);
}

static int count_in(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    int n = 0;

    while (file && fgets(line, sizeof(line), file)) {
        char address[40];
        unsigned port, state;

        if (sscanf(line, " %*d: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x", address, &port, &state) != 3 ||
            state != 0x0a)
            continue;
        T_CHECK(strspn(address, "0") != strlen(address), "port %u listens on all addresses", port);
        n++;
    }
    if (file)
        fclose(file);
    return n;
}

int t_netns_count_listeners(void)
{
    return count_in("/proc/self/net/tcp") + count_in("/proc/self/net/tcp6");
}
