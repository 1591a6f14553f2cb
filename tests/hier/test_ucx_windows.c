/* Windows of a communicator on several hosts are registered with the network when they are made, for whatever is sent
 * from them, and no longer than they live. */
/* ctest: timeout=120 */
/* ctest: timeout=120 as=rma args=rma */
#include "coll/comm.h"
#include "coll/hier_parts.h"
#include "coll/wire_parts.h"
#include "net/net_parts.h"
#include "support/hosts.h"
#include "support/job.h"

enum { N = 300000, BYTES = N * 4 + 4096 };

static int is_registered(const struct t_rank *t, const void *at, uint64_t bytes)
{
    return tt_net_memory_of(t->comm->control->wire->net, at, bytes) != NULL;
}

static void compute(struct t_rank *t, float *x)
{
    for (size_t count = 100; count <= N; count += N - 100) {
        for (size_t i = 0; i < count; i++)
            x[i] = (float)((t->rank + 1) * (int)(i % 1000));
        T_OK(tutti_all_reduce(t->comm, x, x, count, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        for (size_t i = 0; i < count; i++)
            T_CHECK(x[i] == (float)(t->n_ranks * (t->n_ranks + 1) / 2 * (int)(i % 1000)),
                    "element %zu of %zu is %g", i, count, (double)x[i]);
    }
}

static void windows(struct t_rank *t)
{
    tutti_window *first = NULL, *second = NULL;
    void *memory, *other;
    unsigned char *a, *b;

    T_OK(tutti_mem_alloc(t->comm, BYTES, &memory));
    T_OK(tutti_mem_alloc(t->comm, BYTES, &other));
    a = memory;
    b = other;
    T_CHECK(!is_registered(t, a, BYTES), "it is no window yet");
    T_OK(tutti_window_register(t->comm, a, BYTES, &first));
    T_OK(tutti_window_register(t->comm, b, BYTES, &second));
    T_CHECK(is_registered(t, a, BYTES) && is_registered(t, a + 4, BYTES - 8) &&
                is_registered(t, b, BYTES),
            "a window is not registered");
    T_CHECK(!is_registered(t, a, BYTES + (1 << 30)), "more than the window is registered");
    compute(t, memory);
    compute(t, other);
    T_OK(tutti_window_deregister(t->comm, first));
    T_CHECK(!is_registered(t, a, 4) && is_registered(t, b, BYTES), "the wrong one is given back");
    compute(t, memory);
    compute(t, other);
    T_OK(tutti_window_register(t->comm, a, BYTES, &first));
    T_CHECK(is_registered(t, a, BYTES), "a second time it is not registered");
    compute(t, memory);

    t_meet(t);
    if (getenv(
            "TUTTI_NET_PUTS")) { /* UCX's emulation of puts may end the process after a failure */
        tutti_comm_destroy(t->comm);
        return;
    }
    /* After a failure windows can be given back, or left to the end of the communicator. */
    if (t->rank == 0)
        tutti_comm_abort(t->comm);
    while (tutti_barrier(t->comm, NULL) == TUTTI_OK)
        ;
    (void)tutti_window_deregister(t->comm, first);
    T_CHECK(!is_registered(t, a, 4), "it stays registered after a failure");
    tutti_comm_destroy(t->comm);
}

static void test_windows(void **state)
{
    static const char *const layouts[] = {"01", "0011"};

    (void)state;
    for (size_t i = 0; i < T_LEN(layouts); i++) {
        const struct t_job job = {
            .n_ranks = (int)strlen(layouts[i]), .keep_comm = 1, .body = windows};

        t_hosts(layouts[i]);
        t_run(&job);
        t_hosts(NULL);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_windows)};

    if (argc > 1) /* "rma": registered memory is what UCX puts from */
        setenv("TUTTI_NET_PUTS", argv[1], 1);
    t_hosts("01");
    if (*tt_net_missing()) {
        printf("skipped: %s\n", tt_net_missing());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
