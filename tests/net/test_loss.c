/* Ranks that die, leave or abort: who is told what, and how soon. */
/* ctest: timeout=120 serial no-tsan */
/* ctest: long timeout=120 serial no-tsan as=rma args=rma */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/nets.h"

#define MIB     ((size_t)1 << 20)
#define BYTES   (2 * MIB)
#define FLAG_AT (BYTES - 64)
#define TIMEOUT 20000
#define WAIT_S  20

/* All know each other. */
static void greet_all(struct t_rank *t, struct t_net_world *w, uint64_t value)
{
    for (int r = 0; r < t->n_ranks; r++) {
        if (r != t->rank)
            T_OK(tt_net_signal(w->net, r, w->region, FLAG_AT - 64 * (size_t)(t->rank + 1), value));
    }
    for (int r = 0; r < t->n_ranks; r++) {
        if (r != t->rank)
            t_net_wait(w->net, w->mine + FLAG_AT - 64 * (size_t)(r + 1), value, WAIT_S);
    }
}

/* And nobody goes on before everybody does. */
static void meet_all(struct t_rank *t, struct t_net_world *w, uint64_t value)
{
    greet_all(t, w, value);
    for (int r = 0; r < t->n_ranks; r++) {
        while (tt_net_sent(w->net, r) < tt_net_posted(w->net, r))
            T_OK(tt_net_progress(w->net));
    }
    t_meet(t);
}

/* Progress until it fails, or `limit_ms`. */
static tutti_result until_failed(struct tt_net *net, unsigned limit_ms, double *seconds_out)
{
    const uint64_t start = tt_now_ns();
    tutti_result result = TUTTI_OK;

    while (result == TUTTI_OK && tt_now_ns() - start < (uint64_t)limit_ms * t_scale() * 1000000)
        result = tt_net_progress(net);
    *seconds_out = (double)(tt_now_ns() - start) / 1e9;
    return result;
}

/* ---- death ---- */

static void check_death(struct t_rank *t, struct t_net_world *w, double limit)
{
    double seconds = 0;
    const tutti_result result = until_failed(w->net, 10000, &seconds);

    T_CHECK(result == TUTTI_E_PEER, "%s after %.2f s: %s", tutti_result_name(result), seconds,
            tutti_last_error());
    T_CONTAINS(tutti_last_error(), "rank 1 on ");
    T_CHECK(seconds < limit * t_scale(), "rank %d knew after %.2f s only", t->rank, seconds);
    /* The net says so again and again, and its memory is not touched any more. */
    T_IS(TUTTI_E_PEER, tt_net_put(w->net, t->rank == 0 ? 2 : 0, w->mine, 8, w->region, 0));
    printf("rank %d knew after %.3f s: %s\n", t->rank, seconds, tutti_last_error());
}

static void die_idle(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    meet_all(t, &w, 1);
    if (t->rank == 1)
        raise(SIGKILL);
    check_death(t, &w, 2);
    t_net_end(&w);
}

static void die_mid_put(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    uint64_t start;

    meet_all(t, &w, 1);
    start = tt_now_ns();
    if (t->rank == 1) {
        while (tt_now_ns() - start < 200000000)
            (void)tt_net_progress(w.net);
        raise(SIGKILL);
    }
    if (t->rank == 0) {
        tutti_result result = TUTTI_OK;
        const unsigned limit = 10 * t_scale();

        while (result == TUTTI_OK && tt_now_ns() - start < limit * UINT64_C(1000000000))
            result = tt_net_put(w.net, 1, w.mine, MIB, w.region, 0);
        T_CHECK(result == TUTTI_E_PEER, "%s: %s", tutti_result_name(result), tutti_last_error());
        T_CHECK(tt_net_sent(w.net, 1) < tt_net_posted(w.net, 1), "all was sent to a dead rank");
    }
    check_death(t, &w, 3);
    t_net_end(&w);
}

/* A process that exits without a word has died as well. */
static void exit_silently(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    meet_all(t, &w, 1);
    if (t->rank == 1)
        _exit(0);
    check_death(t, &w, 2);
    t_net_end(&w);
}

/* Asleep, not in progress: the sleep ends. */
static void die_while_others_sleep(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    tutti_result result = TUTTI_OK;
    uint64_t start;

    meet_all(t, &w, 1);
    start = tt_now_ns();
    if (t->rank == 1) {
        usleep(300000);
        raise(SIGKILL);
    }
    while (result == TUTTI_OK && tt_now_ns() - start < UINT64_C(10000000000)) {
        tt_net_sleep(w.net, tt_now_ns() + UINT64_C(5000000000));
        result = tt_net_progress(w.net);
    }
    T_CHECK(result == TUTTI_E_PEER, "%s", tutti_result_name(result));
    T_CHECK(tt_now_ns() - start < UINT64_C(2300000000) * t_scale(), "the sleep was too deep");
    t_net_end(&w);
}

static void run(void (*body)(struct t_rank *), int n_ranks, uint64_t dies)
{
    const struct t_job job = {.n_ranks = n_ranks, .no_comm = 1, .body = body, .dies = dies};

    t_run(&job);
}

static void test_deaths(void **state)
{
    (void)state;
    run(die_idle, 3, 2);
    run(die_mid_put, 3, 2);
    run(exit_silently, 3, 2);
    run(die_while_others_sleep, 3, 2);
}

/* ---- stopped ---- */

/* A stopped process is no dead one: nothing is claimed of it before the deadline. */
static void be_stopped(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    double seconds;

    *(volatile pid_t *)(void *)(t->shared + 8 * t->rank) = getpid();
    meet_all(t, &w, 1);
    if (t->rank == 0) {
        const pid_t other = *(volatile pid_t *)(void *)(t->shared + 8);

        kill(other, SIGSTOP);
        T_OK(tt_net_put(w.net, 1, w.mine, 64, w.region, 0));
        T_OK(until_failed(w.net, 4000, &seconds)); /* TUTTI_NET_LOST is less */
        kill(other, SIGCONT);
    }
    greet_all(t, &w, 2);
    t_net_end(&w);
}

static void test_stopped(void **state)
{
    (void)state;
    setenv("TUTTI_NET_LOST", "2500ms", 1);
    run(be_stopped, 2, 0);
    unsetenv("TUTTI_NET_LOST");
}

/* ---- leaving ---- */

/* Rank 1 leaves early. The others go on with each other; who asks for rank 1 is told. */
static void leave(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    meet_all(t, &w, 1);
    if (t->rank == 1) {
        T_OK(tt_net_signal(w.net, 0, w.region, FLAG_AT, 77));
        t_net_end(&w);
        return;
    }
    T_IS(TUTTI_E_PEER, t_net_wait_result(w.net, 1, w.mine + FLAG_AT, 100, WAIT_S));
    T_CONTAINS(tutti_last_error(), "rank 1 on ");
    T_CONTAINS(tutti_last_error(), "left");
    if (t->rank == 0) /* what it sent before it left is here */
        T_CHECK(*(uint64_t *)(void *)(w.mine + FLAG_AT) == 77, "its last signal is lost");
    T_OK(tt_net_put(w.net, 1, w.mine, MIB, w.region, 0));
    T_CHECK(tt_net_sent(w.net, 1) == tt_net_posted(w.net, 1), "a put to nobody is under way");

    const int other = 2 - t->rank;

    T_OK(tt_net_signal(w.net, other, w.region, 0, 5));
    t_net_wait(w.net, w.mine, 5, WAIT_S);
    t_net_end(&w);
}

/* All leave at once, again and again: nobody takes it for a death. */
static void leave_together(struct t_rank *t)
{
    for (uint64_t i = 0; i < 20; i++) {
        struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

        if (i % 2)
            greet_all(t, &w, 1);
        greet_all(t, &w, 2 + i);
        t_net_end(&w);
    }
}

/* Rank 0 has sent and goes; rank 1 comes to look much later. */
static void leave_before_anybody_looks(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    if (t->rank == 0) {
        t_net_fill(w.mine, MIB, 3);
        T_OK(tt_net_put(w.net, 1, w.mine, MIB, w.region, 0));
        T_OK(tt_net_signal(w.net, 1, w.region, FLAG_AT, 1));
    } else {
        usleep(700000);
        T_OK(t_net_wait_result(w.net, 0, w.mine + FLAG_AT, 1, WAIT_S));
        T_CHECK(t_net_find_wrong(w.mine, MIB, 3) == MIB, "the data of a rank that left is wrong");
    }
    t_net_end(&w);
}

/* What a rank has posted is in the other's memory before it leaves: it waits for who is busy. */
static void leave_slowly(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    uint64_t start;

    meet_all(t, &w, 1);
    start = tt_now_ns();
    if (t->rank == 0) {
        T_OK(tt_net_put(w.net, 1, w.mine, 64, w.region, 0));
        T_OK(tt_net_signal(w.net, 1, w.region, FLAG_AT, 1));
        tt_net_destroy(w.net);
        T_CHECK(tt_now_ns() - start > 400000000, "it left before its signal was seen");
        return;
    }
    usleep(700000);
    T_IS(TUTTI_E_PEER, t_net_wait_result(w.net, 0, w.mine + FLAG_AT, 2, WAIT_S));
    T_CHECK(*(uint64_t *)(void *)(w.mine + FLAG_AT) == 1, "its last signal is lost");
    t_net_end(&w);
}

/* Who does not call is waited for once, not for every region and for the net again; and who comes late meanwhile has
 * all that was sent to it. */
static void leave_the_busy(struct t_rank *t)
{
    const struct tt_exchange x = t_net_exchange(t);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    struct tt_net_region *more;
    uint64_t start;

    T_OK(tt_net_expose(w.net, &x, NULL, 0, &more));
    meet_all(t, &w, 1);
    start = tt_now_ns();
    if (t->rank == 0) {
        t_net_fill(w.mine, MIB, 3);
        for (int r = 1; r < 3; r++) {
            T_OK(tt_net_put(w.net, r, w.mine, MIB, w.region, 0));
            T_OK(tt_net_signal(w.net, r, w.region, FLAG_AT, 1));
        }
        tt_net_hide(more);
        t_net_end(&w);
        T_CHECK(tt_now_ns() - start > 4900 * UINT64_C(1000000), "it did not wait");
        T_CHECK(tt_now_ns() - start < 9000 * UINT64_C(1000000) * t_scale(), "it waited %.1f s",
                (double)(tt_now_ns() - start) / 1e9);
    } else if (t->rank == 2) {
        usleep(500000);
        t_net_wait(w.net, w.mine + FLAG_AT, 1, WAIT_S);
        T_CHECK(t_net_find_wrong(w.mine, MIB, 3) == MIB, "the data of a rank that left is wrong");
    }
    t_meet(t);
    if (t->rank > 0) {
        tt_net_hide(more);
        t_net_end(&w);
    }
}

static void test_leaving(void **state)
{
    (void)state;
    run(leave_the_busy, 3, 0);
    run(leave, 3, 0);
    run(leave_together, 3, 0);
    run(leave_before_anybody_looks, 2, 0);
    run(leave_slowly, 2, 0);
}

/* ---- abort ---- */

static void *abort_soon(void *arg)
{
    struct t_net_world *w = arg;

    usleep(300000);
    const struct t_time from = t_time_of(0);

    tt_net_abort(w->net);
    *(uint64_t *)(void *)w->mine = t_time_left_ms(t_time_from(from, t_time_of(0)), 0);
    return NULL;
}

/* Rank 0 aborts from another thread while its own thread is busy elsewhere. Rank 2 exchanges with rank 1
 * only, and hears of it all the same. */
static void abort_all(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    pthread_t thread;
    double seconds;

    for (int r = t->rank - 1; r <= t->rank + 1; r += 2) {
        if (r >= 0 && r < t->n_ranks)
            T_OK(tt_net_signal(w.net, r, w.region, FLAG_AT - 64 * (size_t)(t->rank + 1), 1));
    }
    for (int r = t->rank - 1; r <= t->rank + 1; r += 2) {
        if (r >= 0 && r < t->n_ranks)
            t_net_wait(w.net, w.mine + FLAG_AT - 64 * (size_t)(r + 1), 1, WAIT_S);
    }
    for (int i = 0; i < 50; i++) { /* handshakes */
        T_OK(tt_net_progress(w.net));
        usleep(1000);
    }
    t_meet(t);
    if (t->rank == 0) {
        T_CHECK(pthread_create(&thread, NULL, abort_soon, &w) == 0, "no thread");
        usleep(600000);
        T_IS(TUTTI_E_ABORTED, tt_net_progress(w.net));
        pthread_join(thread, NULL);
        T_CHECK(*(uint64_t *)(void *)w.mine < 100, "abort took %d ms",
                (int)*(uint64_t *)(void *)w.mine);
        T_IS(TUTTI_E_ABORTED, tt_net_put(w.net, 1, w.mine, 8, w.region, 0));
    } else {
        T_IS(TUTTI_E_ABORTED, until_failed(w.net, 5000, &seconds));
        T_CHECK(seconds < 0.45 * t_scale(), "rank %d knew after %.3f s only", t->rank, seconds);
    }
    t_net_end(&w);
}

/* Whether this rank, which waits for `peer`, hears of an abort. */
static int hears_abort(struct tt_net *net, int peer)
{
    double seconds;

    tt_net_watch(net, peer);
    return until_failed(net, 1500, &seconds) == TUTTI_E_ABORTED;
}

/* None has met another. Rank 0 aborts, rank 1 waits for it, and rank 2 for rank 3, which is in no call. A machine that
 * is busy may be late once, not always. */
static void abort_unmet(struct t_rank *t)
{
    int n_heard = 0;

    for (int i = 0; i < 3; i++) {
        struct tt_net *net = t_net_new(t, NULL, TIMEOUT);

        t_meet(t);
        if (t->rank == 0) {
            usleep(100000);
            tt_net_abort(net);
        } else if (t->rank < 3) {
            n_heard += hears_abort(net, t->rank == 1 ? 0 : 3);
        }
        t_meet(t);
        tt_net_destroy(net);
    }
    T_CHECK(n_heard > 0 || t->rank == 0 || t->rank == 3, "rank %d never heard of it", t->rank);
}

/* Rank 1 comes when rank 0 has aborted and tells nobody more. It hears of it when that one ends its net. */
static void abort_before(struct t_rank *t)
{
    int n_heard = 0;

    for (int i = 0; i < 3; i++) {
        struct tt_net *net = t_net_new(t, NULL, TIMEOUT);

        if (t->rank == 0)
            tt_net_abort(net);
        t_meet(t);
        if (t->rank == 0)
            usleep(200000);
        else
            n_heard += hears_abort(net, 0);
        tt_net_destroy(net);
    }
    T_CHECK(n_heard > 0 || t->rank == 0, "rank %d never heard of it", t->rank);
}

static void test_abort(void **state)
{
    (void)state;
    run(abort_all, 3, 0);
    run(abort_unmet, 4, 0);
    run(abort_before, 2, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deaths),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_abort),
    };

    if (argc > 1) /* "rma": as over a card, carried out by UCX */
        setenv("TUTTI_NET_PUTS", argv[1], 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
