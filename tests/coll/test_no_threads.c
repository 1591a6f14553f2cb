/* The library starts no thread for CPU ranks: a process has as many before its communicators, while they
 * are there, in every call, also one that waits for long, and afterwards. Across hosts UCX has one. */
#include <stdatomic.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/hosts.h"
#include "support/proc.h"

enum { N = 3, ROOM = 1 << 20, LATE = 1 };

static float buffer[4096];

static void count(size_t want, int pid, const char *when)
{
    const size_t n = t_count_threads(pid);

    T_CHECK(n == want || (t_has_hosts() && n == want + 1), "%s: %zu threads, not %zu", when, n,
            want);
}

/* All collectives, at random, through windows too. */
static void calls(struct t_rank *t, tutti_comm *comm, size_t want)
{
    struct t_rng rng = {5};
    struct t_stage s;

    t_stage_open(&s, t, comm, ROOM, 1);
    for (int i = 0; i < 40; i++) {
        struct t_case c = t_case_random_on(&s, &rng, 40000);

        c.team = 0; /* these would be threads of the test */
        t_case_run(&s, &c);
        count(want, 0, "after a call");
    }
    t_stage_close(&s);
}

/* Rank LATE looks at the others, who are in a call and wait for it, asleep by then. */
static void a_long_wait(struct t_rank *t, tutti_comm *comm)
{
    _Atomic int *pids = (_Atomic int *)(void *)t->shared;
    size_t *wants = (size_t *)(void *)(t->shared + 4096);

    wants[t->rank] = t_count_threads(0);
    atomic_store(&pids[t->rank], (int)getpid());
    t_meet(t);
    for (int r = 0; r < N && t->rank == LATE; r++) {
        tutti_stats stats = TUTTI_STATS_INIT;
        uint64_t before;

        T_OK(tutti_comm_stats(comm, r, &stats));
        for (before = stats.n_sleeps; r != LATE && stats.n_sleeps < before + 2;) {
            t_sleep_us(1000);
            T_OK(tutti_comm_stats(comm, r, &stats));
        }
        count(wants[r], pids[r], "in a call that waits");
    }
    T_OK(tutti_all_reduce(comm, buffer, buffer, 4096, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
}

static void no_more_than_before(struct t_rank *t)
{
    const size_t before = t_count_threads(0);
    tutti_comm *comm, *part;

    T_OK(t_comm_create(t, 1, NULL, &comm));
    count(before, 0, "with a communicator");
    T_OK(tutti_comm_split(comm, 0, t->rank, &part));
    count(before, 0, "with a part of it");
    calls(t, comm, before);
    if (!t_has_hosts()) /* the counters of other hosts' ranks are not known */
        a_long_wait(t, part);
    tutti_comm_destroy(part);
    tutti_comm_destroy(comm);
    count(before, 0, "when all is gone");
}

static void cpu_ranks_have_no_threads_but_their_own(void **state)
{
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = no_more_than_before};

    (void)state;
    t_run(&job);
}

static void across_hosts_only_ucx_has_one(void **state)
{
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = no_more_than_before};

    (void)state;
    setenv("T_NET", "ucx", 1); /* which has to be here */
    t_hosts("011");
    t_run(&job);
    t_hosts(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_ranks_have_no_threads_but_their_own),
        cmocka_unit_test(across_hosts_only_ucx_has_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
