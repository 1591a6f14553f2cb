/* A rank that destroys its communicator, or exits, while the others still need it: they are told. */
#include <unistd.h>

#include "support/proc.h"
#include "support/job.h"

enum { N = 3 };

static void check_left(struct t_rank *t, tutti_result result, const char *part)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_CHECK(result == TUTTI_E_PEER, "gave %s: %s", tutti_result_name(result), tutti_last_error());
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.peer == 1, "peer is %d", state.peer);
    T_CONTAINS(state.text, "rank 1");
    T_CONTAINS(state.text, part);
}

static void one_leaves(struct t_rank *t)
{
    int32_t x[4] = {0};
    const uint64_t start = t_now_ns();

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 1) {
        t_sleep_us(100000);
        tutti_comm_destroy(t->comm);
        t_sleep_us(500000); /* alive all the same */
        return;
    }
    check_left(t, tutti_all_reduce(t->comm, x, x, 4, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL),
               "destroyed");
    T_CHECK(t_now_ns() - start < (uint64_t)1000000000u * t_scale(), "took too long");
    tutti_comm_destroy(t->comm);
}

static void one_leaves_a_receiver(struct t_rank *t)
{
    int32_t x[4] = {0};

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 0)
        check_left(t, tutti_recv(t->comm, x, 4, TUTTI_DTYPE_I32, 1, NULL), "destroyed");
    tutti_comm_destroy(t->comm);
}

/* Exits without a word, by exit(): its communicator was never destroyed. */
static void one_exits(struct t_rank *t)
{
    int32_t x[4] = {0};

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 1) {
        t_sleep_us(100000);
        _exit(3);
    }
    check_left(t, tutti_all_reduce(t->comm, x, x, 4, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL), "");
    tutti_comm_destroy(t->comm);
}

/* All leave after their last call, at once: nobody needed anybody any more. */
static void everybody_leaves(struct t_rank *t)
{
    tutti_comm *comm;

    for (unsigned i = 0; i < 50; i++) {
        T_OK(t_comm_create(t, 10 + i, NULL, &comm));
        for (int k = 0; k < 3; k++)
            T_OK(tutti_barrier(comm, NULL));
        tutti_comm_destroy(comm);
    }
}

static void run(void (*body)(struct t_rank *))
{
    const struct t_job job = {.n_ranks = N, .body = body, .keep_comm = 1, .dies = 1 << 1};

    t_run(&job);
}

static void a_collective_with_a_rank_that_left(void **state)
{
    (void)state;
    run(one_leaves);
    setenv("TUTTI_CPU_WAIT", "sleep", 1);
    run(one_leaves);
    unsetenv("TUTTI_CPU_WAIT");
}

static void a_recv_from_a_rank_that_left(void **state)
{
    (void)state;
    run(one_leaves_a_receiver);
}

static void a_rank_that_exits_has_died(void **state)
{
    (void)state;
    run(one_exits);
}

static void leaving_after_the_last_call_harms_nobody(void **state)
{
    const struct t_job job = {.n_ranks = 4, .body = everybody_leaves};

    (void)state;
    t_run(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_collective_with_a_rank_that_left),
        cmocka_unit_test(a_recv_from_a_rank_that_left),
        cmocka_unit_test(a_rank_that_exits_has_died),
        cmocka_unit_test(leaving_after_the_last_call_harms_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
