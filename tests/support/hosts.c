/* Ranks of one machine as if they were on several hosts: see hosts.h. */
#include "support/hosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What is missing for the network, into `to`; nothing if it is here. */
static void ask_for_network(int to)
{
    tutti_capability c = TUTTI_CAPABILITY_INIT;

    for (size_t i = 0; tutti_capability_describe(i, &c) == TUTTI_OK; i++)
        if (strcmp(c.name, "network library") == 0 && c.good != 1)
            dprintf(to, "%s", c.remedy);
}

/* Where the network is the real one, it has to be here. Asked in a process of its own: others are forked from
 * this one, and CUDA, which UCX may load, does not survive that. */
static void need_network(void)
{
    static int is_here; /* not to be asked again */
    const char *net = getenv("T_NET");
    char missing[512];
    ssize_t n;
    int ends[2];
    pid_t pid;

    if (is_here || net == NULL || strcmp(net, "ucx") != 0)
        return;
    T_CHECK(pipe(ends) == 0 && (pid = fork()) >= 0, "cannot fork");
    if (pid == 0) {
        ask_for_network(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    n = read(ends[0], missing, sizeof(missing) - 1);
    close(ends[0]);
    waitpid(pid, NULL, 0);
    if (n > 0)
        t_skip("%.*s", (int)n, missing);
    is_here = 1;
}

void t_hosts(const char *letters)
{
    if (letters != NULL) {
        need_network();
        setenv("T_HOSTS", letters, 1);
    } else {
        unsetenv("T_HOSTS");
    }
}

int t_has_hosts(void)
{
    return getenv("T_HOSTS") != NULL;
}

static char letter_of(int rank)
{
    const char *letters = getenv("T_HOSTS");

    return letters != NULL && letters[0] != 0 ? letters[(size_t)rank % strlen(letters)] : '0';
}

int t_host_of(int rank)
{
    int n = 0;

    for (int r = 0;; r++) {
        int q = 0;

        while (letter_of(q) != letter_of(r))
            q++;
        if (letter_of(r) == letter_of(rank)) {
            for (int k = 0; k < q; k++) { /* how many hosts came before */
                int first = 1;

                for (int j = 0; j < k; j++)
                    first &= letter_of(j) != letter_of(k);
                n += first;
            }
            return n;
        }
    }
}

void t_host_enter(int rank)
{
    const char name[] = {'h', 'o', 's', 't', '-', letter_of(rank), 0};

    if (t_has_hosts())
        setenv("TUTTI_HOST", name, 1);
}

/* Partial results of 8-bit floats round too much; averages of integers and f16 may overflow before they
 * are divided. */
static int is_flat(tutti_dtype dtype, tutti_op op)
{
    const int is_int64 = dtype == TUTTI_DTYPE_I64 || dtype == TUTTI_DTYPE_U64;
    const int is_wide =
        dtype == TUTTI_DTYPE_F32 || dtype == TUTTI_DTYPE_F64 || dtype == TUTTI_DTYPE_BF16;

    if (op == TUTTI_OP_MAX || op == TUTTI_OP_MIN)
        return 0;
    if (dtype == TUTTI_DTYPE_E4M3 || dtype == TUTTI_DTYPE_E5M2)
        return 1;
    return op == TUTTI_OP_AVG && !is_wide && !is_int64;
}

/* Averages divide by the number of sources, so there are as many as ranks: the rest are minus zero, or 0
 * for integers, which changes no sum. */
static void average(struct t_pattern *p, const struct t_pattern partials[], int n_hosts, int n,
                    size_t count, tutti_dtype dtype)
{
    static struct t_pattern all[64];

    memcpy(all, partials, (size_t)n_hosts * sizeof(all[0]));
    for (int r = n_hosts; r < n; r++) {
        const uint64_t one = dtype == TUTTI_DTYPE_I64 || dtype == TUTTI_DTYPE_U64 ? 0 : 1;
        const size_t size = tutti_dtype_bytes(dtype);

        all[r] = (struct t_pattern){.element = size};
        for (size_t i = size - 1; one && i < sizeof(all[r].bytes); i += size)
            all[r].bytes[i] = 0x80;
    }
    t_pattern_reduce(p, all, n, count, dtype, TUTTI_OP_AVG);
}

void t_hosts_reduce(struct t_pattern *p, const struct t_pattern sources[], int n, size_t count,
                    tutti_dtype dtype, tutti_op op, int flat)
{
    static struct t_pattern partials[64], members[64];
    int n_hosts = 0;

    if (!t_has_hosts() || flat || is_flat(dtype, op)) {
        t_pattern_reduce(p, sources, n, count, dtype, op);
        return;
    }
    for (int r = 0; r < n; r++)
        n_hosts = t_host_of(r) >= n_hosts ? t_host_of(r) + 1 : n_hosts;
    for (int h = 0; h < n_hosts; h++) {
        int n_members = 0;

        for (int r = 0; r < n; r++)
            if (t_host_of(r) == h)
                members[n_members++] = sources[r];
        t_pattern_reduce(&partials[h], members, n_members, count, dtype,
                         op == TUTTI_OP_AVG ? TUTTI_OP_SUM : op);
    }
    if (op == TUTTI_OP_AVG)
        average(p, partials, n_hosts, n, count, dtype);
    else
        t_pattern_reduce(p, partials, n_hosts, count, dtype, op);
}
