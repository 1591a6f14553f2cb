/* ctest: tsan serial */
/* A thread that polls: all work is done, idle it costs next to nothing, a kick wakes it, it takes no
 * signals, and nothing is polled once it was stopped. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/proxy.h"

enum { PRODUCERS = 3, ITEMS = 20000, KICKS = 60 };

#define LONG_NAP UINT64_C(4000000000) /* no machine is that slow: only a kick ends it in time */

struct job {
    _Atomic uint64_t asked, done, polls, done_ns, cpu_ns;
    _Atomic int blocks_signals, n_cpus;
    char name[16];
};

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int poll_job(void *context)
{
    struct job *j = context;

    atomic_fetch_add(&j->polls, 1);
    tt_store_relaxed(&j->cpu_ns, thread_cpu_ns());
    if (tt_load_relaxed(&j->done) == tt_load_acquire(&j->asked))
        return 0;
    tt_store_relaxed(&j->done_ns, tt_now_ns());
    tt_store_release(&j->done, tt_load_relaxed(&j->done) + 1);
    return 1;
}

static struct tt_proxy *start(struct job *job, uint64_t nap_ns)
{
    const struct tt_proxy_config config = {
        .name = "tutti-test-7", .poll = poll_job, .context = job, .nap_ns = nap_ns};
    struct tt_proxy *proxy = NULL;

    assert_int_equal(tt_proxy_start(&config, &proxy), TUTTI_OK);
    assert_non_null(proxy);
    return proxy;
}

static void wait_done(struct job *job, uint64_t value)
{
    const uint64_t deadline = tt_now_ns() + UINT64_C(20000000000);

    while (tt_load_acquire(&job->done) < value) {
        assert_true(tt_now_ns() < deadline);
        sched_yield();
    }
}

struct producer {
    struct job *job;
    struct tt_proxy *proxy;
};

static void *produce(void *context)
{
    struct producer *p = context;

    for (int i = 0; i < ITEMS; i++) {
        atomic_fetch_add(&p->job->asked, 1);
        tt_proxy_kick(p->proxy);
        if (i % 4096 == 0)
            usleep(2000); /* let it fall asleep in between */
    }
    return NULL;
}

static void all_work_is_done(void **state)
{
    struct job job = {0};
    struct producer p = {&job, start(&job, LONG_NAP)};
    pthread_t threads[PRODUCERS];
    uint64_t polls;

    (void)state;
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &p), 0);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    wait_done(&job, (uint64_t)PRODUCERS * ITEMS);
    tt_proxy_stop(p.proxy);
    polls = tt_load_relaxed(&job.polls);
    usleep(20000);
    assert_int_equal(tt_load_relaxed(&job.polls), polls);
    tt_proxy_stop(NULL);
}

static void idle_costs_under_2_percent_of_a_core(void **state)
{
    struct job job = {0};
    struct tt_proxy *proxy = start(&job, 0);
    uint64_t cpu, wall;
    double share;

    (void)state;
    usleep(200000); /* naps have reached their bound */
    wall = tt_now_ns();
    cpu = tt_load_relaxed(&job.cpu_ns);
    usleep(1000000);
    cpu = tt_load_relaxed(&job.cpu_ns) - cpu;
    wall = tt_now_ns() - wall;
    share = 100.0 * (double)cpu / (double)wall;
    print_message("idle: %.2f %% of a core\n", share);
    tt_proxy_stop(proxy);
    assert_true(cpu > 0);
    assert_true(share < 2.0);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void a_kick_ends_a_nap(void **state)
{
    struct job job = {0};
    struct tt_proxy *proxy = start(&job, LONG_NAP);
    uint64_t ns[KICKS], from;

    (void)state;
    for (int i = 0; i < KICKS; i++) {
        usleep(17000 + (useconds_t)i * 100); /* asleep by then */
        from = tt_now_ns();
        atomic_fetch_add(&job.asked, 1);
        tt_proxy_kick(proxy);
        wait_done(&job, (uint64_t)i + 1);
        ns[i] = tt_load_relaxed(&job.done_ns) - from;
    }
    usleep(17000);
    from = tt_now_ns();
    tt_proxy_stop(proxy);
    assert_true(tt_now_ns() - from < LONG_NAP / 2);
    qsort(ns, KICKS, sizeof(ns[0]), by_value);
    print_message("from a kick to the work, asleep: median %llu ns\n",
                  (unsigned long long)ns[KICKS / 2]);
    assert_true(ns[KICKS - 1] < LONG_NAP / 2); /* all of them */
}

/* What the thread says of itself. */
static int poll_self(void *context)
{
    struct job *j = context;
    sigset_t set;
    cpu_set_t cpus;
    int all = 1;

    if (tt_load_relaxed(&j->done))
        return 0;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    for (int s = 1; s < SIGRTMAX; s++)
        if (s != SIGKILL && s != SIGSTOP && (s < SIGSYS + 1 || s >= SIGRTMIN))
            all &= sigismember(&set, s);
    atomic_store(&j->blocks_signals, all);
    sched_getaffinity(0, sizeof(cpus), &cpus);
    atomic_store(&j->n_cpus, CPU_COUNT(&cpus));
    prctl(PR_GET_NAME, j->name, 0, 0, 0);
    tt_store_release(&j->done, 1);
    return 1;
}

static void has_a_name_no_signals_and_the_cores_it_was_given(void **state)
{
    struct job job = {0}, nowhere = {0};
    struct tt_proxy_config config = {
        .name = "tutti-port-number-12", .poll = poll_self, .context = &job};
    struct tt_proxy *proxy = NULL;
    cpu_set_t one, none;
    sigset_t before, after;

    (void)state;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    sched_getaffinity(0, sizeof(one), &one);
    for (int i = 0, n = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &one) && n++ > 0)
            CPU_CLR(i, &one);
    config.cpus = (const unsigned long *)(const void *)&one;
    config.cpus_bytes = sizeof(one);
    assert_int_equal(tt_proxy_start(&config, &proxy), TUTTI_OK);
    wait_done(&job, 1);
    tt_proxy_stop(proxy);
    assert_int_equal(atomic_load(&job.blocks_signals), 1);
    assert_int_equal(atomic_load(&job.n_cpus), 1);
    assert_string_equal(job.name, "tutti-port-numb");
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGUSR1), sigismember(&after, SIGUSR1));

    CPU_ZERO(&none); /* cores that nobody can have: any will do */
    config.context = &nowhere;
    config.cpus = (const unsigned long *)(const void *)&none;
    assert_int_equal(tt_proxy_start(&config, &proxy), TUTTI_OK);
    wait_done(&nowhere, 1);
    tt_proxy_stop(proxy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_work_is_done),
        cmocka_unit_test(idle_costs_under_2_percent_of_a_core),
        cmocka_unit_test(a_kick_ends_a_nap),
        cmocka_unit_test(has_a_name_no_signals_and_the_cores_it_was_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
