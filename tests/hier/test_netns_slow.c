/* ctest: timeout=120 serial no-tsan no-asan */
/* Two hosts with a slow, a narrow and a lossy link between them: results are right, and times what the cost model
 * of docs/design/hierarchical.md says: one way for what is one exchange, and every byte once. */
#include "support/cases.h"
#include "support/hosts.h"
#include "support/netns.h"

enum { ROOM = 1 << 20 };

static const char *const four[] = {"10.77.0.1/24", "10.77.0.2/24"};
static const char *const none[] = {NULL, NULL};

static tutti_comm *create(struct t_rank *t)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm = NULL;

    t_netns_enter(t, four, none, 0);
    T_OK(t_comm_create(t, 7, &config, &comm));
    return comm;
}

static void calls(struct t_rank *t, tutti_comm *comm, int n, size_t most)
{
    struct t_rng rng = {77};
    struct t_stage s;

    t_stage_open(&s, t, comm, ROOM, 1);
    for (int i = 0; i < n; i++) {
        struct t_case c = t_case_random_on(&s, &rng, most);

        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

/* Of some batches the quickest, or the first that is quick enough: a machine that is shared makes many of them
 * late. Two calls each, since one is as much too short as the next is too long where a rank began late. */
static double quickest_ms(tutti_comm *comm, size_t bytes, double enough_ms)
{
    enum { BATCH = 2, MOST = 150 };
    float *x = calloc(1, bytes);
    double least = 1e9;

    T_CHECK(x != NULL, "no memory");
    for (int i = 0; i < MOST && least >= enough_ms; i++) {
        const uint64_t start = t_now_ns();

        for (int k = 0; k < BATCH; k++)
            T_OK(tutti_all_reduce(comm, x, x, bytes / 4, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        float ms = (float)(t_now_ns() - start) / 1e6f / BATCH;

        /* The slower rank's counts, so that both know when it is enough. */
        T_OK(tutti_all_reduce(comm, &ms, &ms, 1, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL));
        least = (double)ms < least ? (double)ms : least;
    }
    free(x);
    return least;
}

static void far_away(struct t_rank *t)
{
    tutti_comm *comm = create(t);
    const double small = quickest_ms(comm, 8, 1.3), middle = quickest_ms(comm, 60000, 1.8);

    printf("rank %d: 1 ms away, 8 bytes %.2f ms, 60000 bytes %.2f ms\n", t->rank, small, middle);
    T_CHECK(small > 0.9, "8 bytes in %.2f ms: the link has no delay", small);
    T_CHECK(small < 1.3, "8 bytes take %.2f ms: is there an answer to wait for?", small);
    T_CHECK(middle < 1.8, "60000 bytes take %.2f ms", middle);
    calls(t, comm, 60, 1 << 16);
    tutti_comm_destroy(comm);
}

static void narrow(struct t_rank *t)
{
    tutti_comm *comm = create(t);
    const size_t bytes = 256 << 10;
    const double model =
        0.1 + (double)bytes * 1514 / 1448 * 8 / 100e3; /* frames of 1448 bytes each */
    const double ms = quickest_ms(comm, bytes, 1.3 * model);

    printf("rank %d: 100 Mbit/s, %zu bytes %.1f ms (model: %.1f)\n", t->rank, bytes, ms, model);
    T_CHECK(ms < 1.3 * model && ms > model / 1.3, "%.1f ms, and the model says %.1f", ms, model);
    calls(t, comm, 40, 1 << 14);
    tutti_comm_destroy(comm);
}

static void lossy(struct t_rank *t)
{
    tutti_comm *comm = create(t);

    calls(t, comm, 100, 1 << 15);
    tutti_comm_destroy(comm);
}

static void run(void (*body)(struct t_rank *), unsigned delay_us, double loss, double mbit)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = body, .limit_s = 60};

    t_hosts("01");
    t_netns_link_is(delay_us, loss, mbit);
    t_run(&job);
    t_netns_link_is(0, 0, 0);
    t_hosts(NULL);
}

static void a_millisecond_away(void **state)
{
    (void)state;
    run(far_away, 1000, 0, 0);
}

static void a_hundred_megabits(void **state)
{
    (void)state;
    run(narrow, 0, 0, 100);
}

static void one_packet_in_a_hundred_is_lost(void **state)
{
    (void)state;
    run(lossy, 0, 0.01, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_millisecond_away),
        cmocka_unit_test(a_hundred_megabits),
        cmocka_unit_test(one_packet_in_a_hundred_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
