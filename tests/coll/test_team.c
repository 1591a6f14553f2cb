/* ctest: timeout=120 tsan */
/* Calls by teams of threads: persistent teams of unlike sizes, all five calls, small and large, with
 * ordinary calls in between. */
#include <pthread.h>

#include "support/cases.h"
#include "support/team.h"

enum { CALLS = 200, MAX = 20000 };

/* Teams that stay together for many calls, as an engine's pool does. */
struct pool {
    struct t_rank *t;
    pthread_barrier_t barrier;
    int32_t *send, *recv;
};

static size_t count_of(int call)
{
    static const size_t counts[] = {0, 1, 5, 64, 1000, 4097, 3, MAX};

    return counts[(unsigned)call % T_LEN(counts)];
}

static int32_t value(int call, int rank, size_t i)
{
    return (int32_t)(call * 1000 + rank * 100000 + (int)i);
}

static tutti_result make(struct pool *p, int call, int i, int n)
{
    const size_t count = count_of(call), blocks = (size_t)p->t->n_ranks;
    tutti_comm *c = p->t->comm;

    switch (call % 5) {
    case 0:
        return tutti_all_reduce_team(c, p->send, p->recv, count, TUTTI_DTYPE_I32, TUTTI_OP_SUM, i,
                                     n);
    case 1:
        return tutti_reduce_scatter_team(c, p->send, p->recv, count / blocks, TUTTI_DTYPE_I32,
                                         TUTTI_OP_MAX, i, n);
    case 2:
        return tutti_all_gather_team(c, p->send, p->recv, count / blocks, TUTTI_DTYPE_I32, i, n);
    case 3:
        return tutti_all_to_all_team(c, p->send, p->recv, count / blocks, TUTTI_DTYPE_I32, i, n);
    default:
        return tutti_broadcast_team(c, p->send, count, TUTTI_DTYPE_I32, call % (int)blocks, i, n);
    }
}

static int32_t expected(const struct pool *p, int call, size_t i)
{
    const int n = p->t->n_ranks, me = p->t->rank;
    const size_t block = count_of(call) / (size_t)n;
    int32_t sum = 0;

    switch (call % 5) {
    case 0:
        for (int r = 0; r < n; r++)
            sum += value(call, r, i);
        return sum;
    case 1: return value(call, n - 1, (size_t)me * block + i);
    case 2: return value(call, (int)(i / block), i % block);
    case 3: return value(call, (int)(i / block), (size_t)me * block + i % block);
    default: return value(call, call % n, i);
    }
}

static size_t length_of(const struct pool *p, int call)
{
    const size_t block = count_of(call) / (size_t)p->t->n_ranks;

    if (call % 5 == 0 || call % 5 == 4)
        return count_of(call);
    return call % 5 == 1 ? block : block * (size_t)p->t->n_ranks;
}

static void check(const struct pool *p, int call)
{
    const int32_t *got = call % 5 == 4 ? p->send : p->recv;

    for (size_t i = 0; i < length_of(p, call); i++)
        T_CHECK(got[i] == expected(p, call, i), "call %d rank %d element %zu is %d, want %d", call,
                p->t->rank, i, got[i], expected(p, call, i));
}

static tutti_result member(void *context, int i, int n)
{
    struct pool *p = context;

    for (int call = 0; call < CALLS; call++) {
        if (i == 0)
            for (size_t k = 0; k < count_of(call); k++)
                p->send[k] = value(call, p->t->rank, k);
        pthread_barrier_wait(&p->barrier);
        T_OK(make(p, call, i, n));
        pthread_barrier_wait(&p->barrier);
        if (i == 0) {
            check(p, call);
            if (call % 7 == 0)
                T_OK(tutti_barrier(p->t->comm, NULL));
        }
    }
    return TUTTI_OK;
}

static void run_pool(struct t_rank *t, int size)
{
    struct pool p = {.t = t};

    p.send = malloc((MAX + 8) * sizeof(*p.send));
    p.recv = malloc((MAX + 8) * sizeof(*p.recv));
    pthread_barrier_init(&p.barrier, NULL, (unsigned)size);
    T_OK(t_team_run(t, size, member, &p));
    pthread_barrier_destroy(&p.barrier);
    free(p.send);
    free(p.recv);
}

T_RANKS(teams_of_one_size, 2)
{
    for (int size = 1; size <= 4; size++)
        run_pool(t, size);
}

T_RANKS(teams_of_unlike_sizes, 3)
{
    run_pool(t, 1 + t->rank);
    run_pool(t, 3 - t->rank);
}

T_RANKS(a_team_of_more_threads_than_cores, 2)
{
    run_pool(t, t->rank == 0 ? 9 : 2);
}

/* Random calls by random teams, of any dtype and size, in windows and not. */
T_RANKS(random_team_calls, 3)
{
    struct t_rng rng = {5};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, 2 << 20, 1);
    for (unsigned i = 0; i < t_times(250, 3000); i++) {
        struct t_case c = t_case_random_on(&s, &rng, 200000);

        c.team = t_colls[c.coll].has_team ? 1 + (int)(c.seed % 5) : 0;
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

T_RANKS(an_impossible_thread_number_is_refused, 1)
{
    int x = 3;

    T_IS(TUTTI_E_ARG,
         tutti_all_reduce_team(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, 2, 2));
    T_IS(TUTTI_E_ARG,
         tutti_all_reduce_team(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, -1, 2));
    T_IS(TUTTI_E_ARG,
         tutti_all_reduce_team(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, 0, 0));
    T_OK(tutti_all_reduce_team(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, 0, 1));
    T_CHECK(x == 3, "x is %d", x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(teams_of_one_size),
        cmocka_unit_test(teams_of_unlike_sizes),
        cmocka_unit_test(a_team_of_more_threads_than_cores),
        cmocka_unit_test(random_team_calls),
        cmocka_unit_test(an_impossible_thread_number_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
