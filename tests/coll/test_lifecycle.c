/* ctest: timeout=180 */
/* ctest: long as=many args=full timeout=1200 */
/* Communicators made and destroyed again and again: no descriptor, mapping or memory is lost. */
#include "support/proc.h"
#include "support/job.h"

static void cycle(struct t_rank *t, uint64_t key)
{
    tutti_window *w = NULL;
    tutti_comm *comm;
    int x = 1;
    void *p;

    T_OK(t_comm_create(t, key, NULL, &comm));
    if (key % 3 == 0) {
        T_OK(tutti_mem_alloc(comm, 10000, &p));
        T_OK(tutti_window_register(comm, p, 10000, &w));
    }
    T_OK(tutti_all_reduce(comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    T_CHECK(x == t->n_ranks, "sum %d", x);
    if (key % 3 == 0) {
        T_OK(tutti_window_deregister(comm, w));
        T_OK(tutti_mem_free(comm, p));
    }
    if (key % 2 == 0) /* else those who are done leave at once */
        T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

static void cycles(struct t_rank *t)
{
    const unsigned n = t_times(250, 10000);
    struct t_holdings before = {0};
    size_t rss_before = 0, rss;
    const int measures = !t->job->threads || t->rank == 0; /* counting opens a descriptor itself */

    for (unsigned i = 0; i < n; i++) {
        cycle(t, i + 1);
        if (i == 60) {
            t_meet(t); /* ranks may be threads of one process */
            if (measures)
                before = t_holdings_now();
            t_meet(t); /* this opens a descriptor too: not while the other one counts */
            rss_before = t_memory_kib("/proc/self/status", "VmRSS:");
        }
        if (i > 60 && (i % 500 == 0 || i == n - 1)) {
            t_meet(t);
            if (measures)
                t_check_holdings(&before, 4, "after cycles");
            t_meet(t);
        }
    }
    rss = t_memory_kib("/proc/self/status", "VmRSS:");
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    rss = 0; /* quarantines and shadows grow */
#endif
    T_CHECK(rss < rss_before + 1024, "%zu KiB resident, were %zu after 60 cycles", rss, rss_before);
}

static void processes_make_and_destroy_communicators(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = cycles, .limit_s = 900};

    (void)state;
    t_run(&job);
}

static void threads_make_and_destroy_communicators(void **state)
{
    const struct t_job job = {
        .n_ranks = 2, .no_comm = 1, .body = cycles, .threads = 1, .limit_s = 900};

    (void)state;
    t_run(&job);
}

/* Made, and destroyed with its windows still registered, by the exchange callback. */
static void forgotten_windows(struct t_rank *t)
{
    struct t_holdings before = {0};
    int32_t *x = calloc(10000, sizeof(*x));

    for (unsigned i = 0; i < 40; i++) {
        tutti_window *w;
        tutti_comm *comm;

        T_OK(t_comm_create(t, i + 1, NULL, &comm));
        T_OK(tutti_window_register(comm, x, 40000, &w));
        T_OK(tutti_barrier(comm, NULL));
        tutti_comm_destroy(comm);
        if (i == 10)
            before = t_holdings_now();
    }
    t_meet(t);
    t_check_holdings(&before, 4, "after windows that nobody deregistered");
    free(x);
}

static void destroying_frees_the_windows(void **state)
{
    const struct t_job job = {
        .n_ranks = 2, .no_comm = 1, .body = forgotten_windows, .boot = T_BOOT_EXCHANGE};

    (void)state;
    t_run(&job);
}

static void ids_that_nobody_used(void **state)
{
    const size_t before = t_count_fds();

    (void)state;
    for (int i = 0; i < 5; i++) {
        tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
        tutti_unique_id id;
        tutti_comm *comm;

        T_OK(tutti_unique_id_create(&id));
        config.id = &id;
        config.n_ranks = 1; /* alone: takes the listening socket over, and needs nobody */
        T_OK(tutti_comm_create(&config, &comm));
        tutti_comm_destroy(comm);
    }
    assert_int_equal(t_count_fds(), before);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_make_and_destroy_communicators),
        cmocka_unit_test(threads_make_and_destroy_communicators),
        cmocka_unit_test(destroying_frees_the_windows),
        cmocka_unit_test(ids_that_nobody_used),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
