/* What tutti_comm_stats() counts: calls and bytes exactly; times as far as they can be known from
 * outside. A rank that is late waits until it has seen the others in the call, so that the least they
 * wait is certain, however loaded the machine is. */
#include "support/job.h"

enum { N = 3, COUNT = 100, LARGE = 1 << 18, LATE = 1, LATE_US = 40000 };

static float in[N * LARGE], out[N * LARGE];

static tutti_stats stats_of(const tutti_comm *comm, int rank)
{
    tutti_stats stats = TUTTI_STATS_INIT;

    T_OK(tutti_comm_stats(comm, rank, &stats));
    return stats;
}

/* --- calls and bytes --- */

/* Since the last look: so many calls and bytes, the last of which was `what`. */
static void counted(struct t_rank *t, uint64_t n_calls, uint64_t n_bytes, const char *what)
{
    static tutti_stats before;
    const tutti_stats now = stats_of(t->comm, t->rank);
    const uint64_t sequences = strcmp(what, "send_recv") == 0 ? 0 : n_calls;

    T_CHECK(now.n_calls == before.n_calls + n_calls && now.n_bytes == before.n_bytes + n_bytes,
            "%s: %llu calls of %llu bytes, not %llu of %llu", what,
            (unsigned long long)(now.n_calls - before.n_calls),
            (unsigned long long)(now.n_bytes - before.n_bytes), (unsigned long long)n_calls,
            (unsigned long long)n_bytes);
    T_CHECK(now.sequence == before.sequence + sequences, "%s: the %lluth collective", what,
            (unsigned long long)now.sequence);
    T_CHECK(strcmp(now.last_call, what) == 0, "%s, not %s", now.last_call, what);
    before = now;
}

static void even_calls(struct t_rank *t)
{
    tutti_comm *comm = t->comm;
    const tutti_dtype f32 = TUTTI_DTYPE_F32;

    T_CHECK(strcmp(stats_of(comm, t->rank).last_call, "-") == 0, "there was a call");
    T_OK(tutti_barrier(comm, NULL));
    counted(t, 1, 0, "barrier");
    T_OK(tutti_all_reduce(comm, in, out, COUNT, f32, TUTTI_OP_MAX, NULL));
    counted(t, 1, 4 * COUNT, "all_reduce f32 max");
    T_OK(tutti_all_reduce(comm, in, out, LARGE, f32, TUTTI_OP_SUM, NULL));
    counted(t, 1, 4 * LARGE, "all_reduce f32 sum");
    T_OK(tutti_reduce(comm, in, out, COUNT, f32, TUTTI_OP_SUM, 1, NULL));
    counted(t, 1, 4 * COUNT, "reduce f32 sum root 1");
    T_OK(tutti_broadcast(comm, in, COUNT, TUTTI_DTYPE_U8, 2, NULL));
    counted(t, 1, COUNT, "broadcast u8 root 2");
    T_OK(tutti_reduce_scatter(comm, in, out, COUNT, f32, TUTTI_OP_SUM, NULL));
    counted(t, 1, 4 * N * COUNT, "reduce_scatter f32 sum");
    T_OK(tutti_all_gather(comm, in, out, COUNT, f32, NULL));
    counted(t, 1, 4 * N * COUNT, "all_gather f32");
    T_OK(tutti_all_to_all(comm, in, out, LARGE, f32, NULL));
    counted(t, 1, 4 * N * LARGE, "all_to_all f32");
    T_OK(tutti_gather(comm, in, out, COUNT, f32, 0, NULL));
    counted(t, 1, 4 * N * COUNT, "gather f32 root 0");
    T_OK(tutti_scatter(comm, in, out, COUNT, f32, 0, NULL));
    counted(t, 1, 4 * N * COUNT, "scatter f32 root 0");
    T_OK(tutti_all_reduce_team(comm, in, out, LARGE, f32, TUTTI_OP_SUM, 0, 1));
    counted(t, 1, 4 * LARGE, "all_reduce f32 sum");
}

static void uneven_calls(struct t_rank *t)
{
    const size_t counts[N] = {COUNT, 0, 7}, mine = (size_t)t->rank + 1;
    const size_t sent[N] = {mine, mine, mine}, received[N] = {1, 2, 3}, at[N] = {0, 10, 20};
    const size_t next = (size_t)(t->rank + 1) % N, last = (size_t)(t->rank + N - 1) % N;
    const tutti_dtype f32 = TUTTI_DTYPE_F32;
    tutti_comm *comm = t->comm;

    T_OK(tutti_all_gatherv(comm, in, out, counts, f32, NULL));
    counted(t, 1, 4 * (COUNT + 7), "all_gather f32");
    T_OK(tutti_reduce_scatterv(comm, in, out, counts, f32, TUTTI_OP_SUM, NULL));
    counted(t, 1, 4 * (COUNT + 7), "reduce_scatter f32 sum");
    T_OK(tutti_all_to_allv(comm, in, sent, at, out, received, at, f32, NULL));
    counted(t, 1, 4 * (t->rank == 2 ? 9 : 6), "all_to_all f32");
    T_OK(tutti_group_begin(comm));
    T_OK(tutti_all_gather(comm, in, out, COUNT, f32, NULL));
    T_OK(tutti_all_reduce(comm, in, in, COUNT, f32, TUTTI_OP_SUM, NULL));
    T_OK(tutti_group_end(comm));
    counted(t, 2, 4 * (N + 1) * COUNT, "all_reduce f32 sum");
    T_OK(tutti_group_begin(comm));
    T_OK(tutti_send(comm, in, COUNT, f32, (int)next, NULL));
    T_OK(tutti_recv(comm, out, COUNT, f32, (int)last, NULL));
    T_OK(tutti_group_end(comm));
    counted(t, 2, 4 * 2 * COUNT, "send_recv");
}

T_RANKS(calls_and_bytes, N)
{
    even_calls(t);
    uneven_calls(t);
    t_meet(t); /* the others' are as they are now */
    for (int r = 0; r < N; r++)
        T_CHECK(stats_of(t->comm, r).n_calls == 18 && stats_of(t->comm, r).rank == r,
                "rank %d made %llu calls", r, (unsigned long long)stats_of(t->comm, r).n_calls);
}

/* --- times --- */

static uint64_t sum_of(const tutti_stats *s)
{
    return s->wait_ns + s->copy_ns + s->reduce_ns + s->sync_ns;
}

/* Until all others have begun the call that this rank is about to make. */
static void come_late(struct t_rank *t, unsigned us)
{
    const uint64_t next = stats_of(t->comm, t->rank).sequence + 1;

    for (int r = 0; r < N; r++)
        while (r != t->rank && stats_of(t->comm, r).sequence < next)
            t_sleep_us(100);
    t_sleep_us(us);
}

/* However long they look and yield first on a busy machine. */
static void let_them_sleep(struct t_rank *t)
{
    uint64_t sleeps[N];

    for (int r = 0; r < N; r++)
        sleeps[r] = stats_of(t->comm, r).n_sleeps;
    for (int r = 0; r < N; r++)
        while (r != t->rank && stats_of(t->comm, r).n_sleeps == sleeps[r])
            t_sleep_us(100);
}

static void one_is_late(struct t_rank *t, int gathers)
{
    const tutti_stats before = stats_of(t->comm, t->rank);
    uint64_t start, elapsed, waited;
    tutti_stats now;

    if (t->rank == LATE) {
        come_late(t, LATE_US);
        let_them_sleep(t);
    }
    start = t_now_ns();
    if (gathers)
        T_OK(tutti_all_gather(t->comm, in, out, LARGE, TUTTI_DTYPE_F32, NULL));
    else
        T_OK(tutti_all_reduce(t->comm, in, out, LARGE, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    elapsed = t_now_ns() - start;
    now = stats_of(t->comm, t->rank);
    waited = now.wait_ns - before.wait_ns;
    T_CHECK(sum_of(&now) - sum_of(&before) <= elapsed + elapsed / 20 + 100000,
            "%llu us counted in a call of %llu us",
            (unsigned long long)(sum_of(&now) - sum_of(&before)) / 1000,
            (unsigned long long)elapsed / 1000);
    if (t->rank == LATE)
        return;
    T_CHECK(waited >= LATE_US * 950u, "%llu us for a rank that was %d us late",
            (unsigned long long)waited / 1000, LATE_US);
    T_CHECK(now.n_sleeps > before.n_sleeps, "it did not sleep");
}

/* The rank that the others wait for is the one that waits least. */
T_RANKS(who_waits_for_whom, N)
{
    for (int i = 0; i < 5; i++)
        one_is_late(t, i % 2);
    t_meet(t);
    for (int r = 0; r < N; r++)
        T_CHECK(r == LATE || stats_of(t->comm, LATE).wait_ns < stats_of(t->comm, r).wait_ns / 2,
                "rank %d waited %llu us, rank %d, which was late, %llu us", r,
                (unsigned long long)stats_of(t->comm, r).wait_ns / 1000, LATE,
                (unsigned long long)stats_of(t->comm, LATE).wait_ns / 1000);
}

/* One small call in 16 is timed and counts for all of them. */
T_RANKS(small_calls_are_sampled, N)
{
    enum { CALLS = 160, US = 500 };
    float x = 1;

    for (int i = 0; i < CALLS; i++) {
        if (t->rank == LATE)
            come_late(t, US);
        T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL));
    }
    T_CHECK(t->rank == LATE || stats_of(t->comm, t->rank).wait_ns >= (uint64_t)CALLS * US * 950,
            "%llu us in %d calls for a rank that was %d us late",
            (unsigned long long)stats_of(t->comm, t->rank).wait_ns / 1000, CALLS, US);
}

/* Who copies and who reduces; and little of a call's time is not counted. */
static void copies_and_reductions(struct t_rank *t)
{
    uint64_t elapsed = t_now_ns();
    tutti_stats last, now;

    for (int i = 0; i < 10; i++)
        T_OK(tutti_all_gather(t->comm, in, out, LARGE, TUTTI_DTYPE_F32, NULL));
    last = stats_of(t->comm, t->rank);
    T_CHECK(last.copy_ns > 0 && last.reduce_ns == 0, "all_gather: copy %llu ns, reduce %llu ns",
            (unsigned long long)last.copy_ns, (unsigned long long)last.reduce_ns);
    for (int i = 0; i < 10; i++)
        T_OK(tutti_all_reduce(t->comm, in, out, LARGE, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    now = stats_of(t->comm, t->rank);
    elapsed = t_now_ns() - elapsed;
    T_CHECK(now.copy_ns > last.copy_ns && now.reduce_ns > 0,
            "all_reduce: copy %llu ns, reduce %llu ns",
            (unsigned long long)(now.copy_ns - last.copy_ns), (unsigned long long)now.reduce_ns);
    T_CHECK(sum_of(&now) >= elapsed / 2 && sum_of(&now) <= elapsed + elapsed / 20 + 100000,
            "%llu us are counted of %llu", (unsigned long long)sum_of(&now) / 1000,
            (unsigned long long)elapsed / 1000);
}

static void what_the_time_goes_to(void **state)
{
    static const char *const algorithms[] = {"one_shot", "two_shot"};
    struct t_job job = {.n_ranks = N, .body = copies_and_reductions};

    (void)state;
    for (size_t i = 0; i < T_LEN(algorithms); i++) {
        job.config = (tutti_comm_config)TUTTI_COMM_CONFIG_INIT;
        job.config.algorithm = algorithms[i];
        t_run(&job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_and_bytes),
        cmocka_unit_test(who_waits_for_whom),
        cmocka_unit_test(small_calls_are_sampled),
        cmocka_unit_test(what_the_time_goes_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
