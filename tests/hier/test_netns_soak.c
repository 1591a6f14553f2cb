/* ctest: timeout=120 serial no-tsan args=6 */
/* ctest: long timeout=400 serial no-tsan as=longer args=240 */
/*
 * Random collectives between four ranks on two hosts, of all kinds, dtypes and sizes, every element checked, while the
 * cable between them is pulled and put back again and again, or is a slow link that loses packets. For some seconds;
 * for half an hour:   ucx_netns_soak 1800 [seed]
 */
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/hosts.h"
#include "support/netns.h"

enum { ROOM = 1 << 21, CALLS = 20, ROUNDS = 12 };

static const char *const four[] = {"10.77.0.1/24", "10.77.0.2/24"};
static const char *const none[] = {NULL, NULL};

struct plan {
    double seconds;
    uint64_t seed;
    int flaps;
};

struct score { /* in the shared area */
    _Atomic int stop, n_flaps;
    _Atomic int is_down, keep_up; /* devices are looked for when a communicator is created */
    _Atomic long n_calls, n_comms;
};

/* A process beside rank 0 that pulls the plug for up to 0.7 s, every few seconds: the other end's kernel takes up to
 * a second to notice that it is back, and a link that is out most of the time is lost in the end. */
static void start_flapping(struct score *score, uint64_t seed)
{
    const pid_t parent = getpid();
    struct t_rng rng = {seed};
    const pid_t pid = fork();

    T_SYS(pid);
    if (pid > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (;;) {
        t_sleep_us(1500000 + (unsigned)t_random_below(&rng, 2000000));
        atomic_store(&score->is_down, 1);
        if (!atomic_load(&score->keep_up)) {
            t_netns_link("host0", 0);
            t_sleep_us(10000 + (unsigned)t_random_below(&rng, 700000));
            t_netns_link("host0", 1);
            atomic_fetch_add(&score->n_flaps, 1);
        }
        atomic_store(&score->is_down, 0);
    }
}

/* Rank 0 sees to it that the cable is in, from the first of these calls to the second. */
static void keep_up(struct t_rank *t, int is_on)
{
    struct score *score = (struct score *)(void *)t->shared;

    t_meet(t);
    if (t->rank == 0)
        atomic_store(&score->keep_up, is_on);
    while (is_on && t->rank == 0 && atomic_load(&score->is_down))
        t_sleep_us(1000);
    t_meet(t);
    if (is_on)
        t_netns_wait_up("host0");
    t_meet(t);
}

static void calls(struct t_rank *t, tutti_comm *comm, uint64_t seed)
{
    struct t_rng rng = {seed}, own = {t_hash(seed, (uint64_t)t->rank + 1)};
    struct t_stage s;

    t_stage_open(&s, t, comm, ROOM, 1);
    for (int i = 0; i < CALLS; i++) {
        const size_t most = t_random_below(&rng, 4) ? 1 << 12 : 1 << 18;
        struct t_case c = t_case_random_on(&s, &rng, most);

        if (t_random_below(&own, 4) == 0)
            t_sleep_us((unsigned)t_random_below(&own, t_random_below(&own, 10) ? 2000 : 60000));
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

/* The ranks of both hosts in the order turned around. */
static void in_a_split(struct t_rank *t, tutti_comm *comm)
{
    tutti_comm *child = NULL;
    float x = (float)t->rank;

    keep_up(t, 1);
    T_OK(tutti_comm_split(comm, 0, -t->rank, &child));
    keep_up(t, 0);
    T_OK(tutti_all_reduce(child, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    T_CHECK(x == (float)(t->n_ranks * (t->n_ranks - 1) / 2), "%g", (double)x);
    tutti_comm_destroy(child);
}

static void soak(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    struct score *score = (struct score *)(void *)t->shared;
    const uint64_t end = t_now_ns() + (uint64_t)(plan->seconds * 1e9);
    uint64_t key = 100;

    t_netns_enter(t, four, none, 0);
    if (plan->flaps && t->rank == 0)
        start_flapping(score, plan->seed);
    while (!atomic_load(&score->stop)) {
        tutti_comm *comm = NULL;

        keep_up(t, 1);
        T_OK(t_comm_create(t, key++, NULL, &comm));
        keep_up(t, 0);
        for (int round = 0; round < ROUNDS && !atomic_load(&score->stop); round++) {
            calls(t, comm, t_hash(plan->seed, key * ROUNDS + (uint64_t)round));
            t_meet(t);
            if (t->rank == 0) {
                atomic_fetch_add(&score->n_calls, CALLS);
                atomic_store(&score->stop, t_now_ns() > end);
            }
            t_meet(t);
        }
        in_a_split(t, comm);
        tutti_comm_destroy(comm);
        if (t->rank == 0)
            atomic_fetch_add(&score->n_comms, 1);
    }
    if (t->rank == 0)
        printf("%ld calls on %ld communicators, the cable pulled %d times, seed %llu\n",
               atomic_load(&score->n_calls), atomic_load(&score->n_comms),
               atomic_load(&score->n_flaps), (unsigned long long)plan->seed);
    t_meet(t);
    if (plan->flaps && plan->seconds >= 5)
        T_CHECK(atomic_load(&score->n_flaps) > 0, "the cable was never pulled");
}

static struct plan plan = {.seconds = 6, .seed = 1};

static void run(double seconds, int flaps)
{
    plan.flaps = flaps;
    plan.seconds = seconds;
    const struct t_job job = {
        .n_ranks = 4, .no_comm = 1, .body = soak, .arg = &plan, .limit_s = (unsigned)seconds + 90};

    t_hosts("0101");
    t_run(&job);
    t_hosts(NULL);
}

static double all_seconds = 6;

static void a_cable_that_is_pulled_and_put_back(void **state)
{
    (void)state;
    run(all_seconds * 2 / 3, 1);
}

static void a_slow_link_that_loses_packets(void **state)
{
    (void)state;
    t_netns_link_is(200, 0.001, 0);
    run(all_seconds / 3, 0);
    t_netns_link_is(0, 0, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cable_that_is_pulled_and_put_back),
        cmocka_unit_test(a_slow_link_that_loses_packets),
    };

    if (argc > 1)
        all_seconds = strtod(argv[1], NULL);
    plan.seed = argc > 2 ? strtoull(argv[2], NULL, 10) : all_seconds > 10 ? t_now_ns() : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
