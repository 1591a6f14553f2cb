/* Bad arguments: refused with a text that names the value, on the rank that made the call alone, and
 * the communicator stays usable. */
#include <limits.h>

#include "support/job.h"

enum { N = 2 };

static int32_t send_buf[64], recv_buf[64];
static const size_t counts[N] = {4, 4}, displs[N] = {0, 4};

#define F32       TUTTI_DTYPE_F32
#define SUM       TUTTI_OP_SUM
#define BAD_DTYPE ((tutti_dtype)99)
#define BAD_OP    ((tutti_op)77)

static void still_good(struct t_rank *t)
{
    int32_t x = 1;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_OK, "status is %s", tutti_result_name(state.result));
    T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, SUM, NULL));
    T_CHECK(x == t->n_ranks, "sum is %d", x);
}

/* The call is refused, and the text contains `part`. */
#define REFUSED(part, call)                                                                        \
    do {                                                                                           \
        T_IS(TUTTI_E_ARG, call);                                                                   \
        T_CONTAINS(tutti_last_error(), part);                                                      \
    } while (0)

T_RANKS(unknown_dtypes_and_operations, N)
{
    tutti_comm *c = t->comm;
    void *s = send_buf, *r = recv_buf;

    REFUSED("99", tutti_all_reduce(c, s, r, 4, BAD_DTYPE, SUM, NULL));
    REFUSED("77", tutti_all_reduce(c, s, r, 4, F32, BAD_OP, NULL));
    REFUSED("99", tutti_reduce_scatter(c, s, r, 4, BAD_DTYPE, SUM, NULL));
    REFUSED("77", tutti_reduce_scatter(c, s, r, 4, F32, BAD_OP, NULL));
    REFUSED("99", tutti_reduce_scatterv(c, s, r, counts, BAD_DTYPE, SUM, NULL));
    REFUSED("99", tutti_all_gather(c, s, r, 4, BAD_DTYPE, NULL));
    REFUSED("99", tutti_all_gatherv(c, s, r, counts, BAD_DTYPE, NULL));
    REFUSED("99", tutti_all_to_all(c, s, r, 4, BAD_DTYPE, NULL));
    REFUSED("99", tutti_all_to_allv(c, s, counts, displs, r, counts, displs, BAD_DTYPE, NULL));
    REFUSED("99", tutti_broadcast(c, s, 4, BAD_DTYPE, 0, NULL));
    REFUSED("99", tutti_reduce(c, s, r, 4, BAD_DTYPE, SUM, 0, NULL));
    REFUSED("77", tutti_reduce(c, s, r, 4, F32, BAD_OP, 0, NULL));
    REFUSED("99", tutti_gather(c, s, r, 4, BAD_DTYPE, 0, NULL));
    REFUSED("99", tutti_scatter(c, s, r, 4, BAD_DTYPE, 0, NULL));
    REFUSED("99", tutti_send(c, s, 4, BAD_DTYPE, 1 - t->rank, NULL));
    REFUSED("99", tutti_recv(c, s, 4, BAD_DTYPE, 1 - t->rank, NULL));
    REFUSED("dtype", tutti_all_reduce(c, s, r, 4, (tutti_dtype)-1, SUM, NULL));
    still_good(t);
}

T_RANKS(roots_and_peers_that_do_not_exist, N)
{
    tutti_comm *c = t->comm;
    void *s = send_buf, *r = recv_buf;

    REFUSED("root is 2", tutti_broadcast(c, s, 4, F32, N, NULL));
    REFUSED("root is -1", tutti_broadcast(c, s, 4, F32, -1, NULL));
    REFUSED("root is 2", tutti_reduce(c, s, r, 4, F32, SUM, N, NULL));
    REFUSED("root is 2", tutti_gather(c, s, r, 4, F32, N, NULL));
    REFUSED("root is 2", tutti_scatter(c, s, r, 4, F32, N, NULL));
    REFUSED("5", tutti_send(c, s, 4, F32, 5, NULL));
    REFUSED("-1", tutti_recv(c, s, 4, F32, -1, NULL));
    still_good(t);
}

T_RANKS(missing_buffers_and_arrays, N)
{
    tutti_comm *c = t->comm;
    void *s = send_buf, *r = recv_buf;

    REFUSED("send", tutti_all_reduce(c, NULL, r, 4, F32, SUM, NULL));
    REFUSED("recv", tutti_all_reduce(c, s, NULL, 4, F32, SUM, NULL));
    REFUSED("send", tutti_reduce_scatter(c, NULL, r, 4, F32, SUM, NULL));
    REFUSED("counts", tutti_reduce_scatterv(c, s, r, NULL, F32, SUM, NULL));
    REFUSED("recv", tutti_all_gather(c, s, NULL, 4, F32, NULL));
    REFUSED("counts", tutti_all_gatherv(c, s, r, NULL, F32, NULL));
    REFUSED("parts", tutti_all_gatherv_rows(c, NULL, 0, NULL, NULL));
    REFUSED("send", tutti_all_to_all(c, NULL, r, 4, F32, NULL));
    REFUSED("counts", tutti_all_to_allv(c, s, NULL, displs, r, counts, displs, F32, NULL));
    REFUSED("displacements", tutti_all_to_allv(c, s, counts, NULL, r, counts, displs, F32, NULL));
    REFUSED("NULL", tutti_broadcast(c, NULL, 4, F32, 0, NULL));
    REFUSED("NULL", tutti_send(c, NULL, 4, F32, 1 - t->rank, NULL));
    if (t->rank == 0) {
        REFUSED("recv", tutti_reduce(c, s, NULL, 4, F32, SUM, 0, NULL));
        REFUSED("recv", tutti_gather(c, s, NULL, 4, F32, 0, NULL));
        REFUSED("send", tutti_scatter(c, NULL, r, 4, F32, 0, NULL));
    }
    still_good(t);
}

/* Element-aligned is what tutti.h asks for; less is slower or refused, never wrong. */
T_RANKS(misaligned_buffers, N)
{
    unsigned char *send = (unsigned char *)send_buf + 1, *recv = (unsigned char *)recv_buf + 3;
    const float x[3] = {1, 2, 3};
    float y[3] = {0};

    memcpy(send, x, sizeof(x));
    const tutti_result r = tutti_all_reduce(t->comm, send, recv, 3, F32, SUM, NULL);
    T_CHECK(r == TUTTI_OK || r == TUTTI_E_ARG, "%s", tutti_result_name(r));
    memcpy(y, recv, sizeof(y));
    T_CHECK(r == TUTTI_E_ARG || (y[0] == 2 && y[1] == 4 && y[2] == 6), "%g %g %g", (double)y[0],
            (double)y[1], (double)y[2]);
    still_good(t);
}

T_RANKS(overlapping_buffers, N)
{
    const tutti_rows over_own[] = {{send_buf, send_buf + 1, 4}, {send_buf + 8, recv_buf, 4}};
    const tutti_rows over_other[] = {{send_buf, recv_buf, 4}, {recv_buf + 1, send_buf + 8, 4}};
    const size_t rows[N] = {2, 2};
    tutti_comm *c = t->comm;

    REFUSED("overlap", tutti_all_reduce(c, send_buf, send_buf + 1, 4, F32, SUM, NULL));
    REFUSED("overlap", tutti_all_reduce(c, send_buf + 3, send_buf, 4, F32, SUM, NULL));
    REFUSED("overlap", tutti_all_to_all(c, send_buf, send_buf + 4, 4, F32, NULL));
    REFUSED("overlap", tutti_all_gather(c, send_buf + 1, send_buf, 4, F32, NULL));
    REFUSED("overlap", tutti_reduce_scatter(c, send_buf, send_buf + 1, 4, F32, SUM, NULL));
    REFUSED("in place",
            tutti_all_to_allv(c, send_buf, counts, displs, send_buf, counts, displs, F32, NULL));
    REFUSED("overlap", tutti_all_gatherv_rows(c, over_own, 2, rows, NULL));
    REFUSED("overlap", tutti_all_gatherv_rows(c, over_other, 2, rows, NULL));
    still_good(t);
}

T_RANKS(counts_too_large_to_be_true, N)
{
    const size_t most[N] = {SIZE_MAX, SIZE_MAX}, ones[N] = {1, 1};
    const size_t near[N] = {0, 1}, far[N] = {0, SIZE_MAX / 4 + 2}; /* which wraps to 4 bytes */
    tutti_comm *c = t->comm;
    void *s = send_buf, *r = recv_buf;

    T_IS(TUTTI_E_ARG, tutti_all_reduce(c, s, r, SIZE_MAX, F32, SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_reduce(c, s, r, SIZE_MAX / 4 + 1, F32, SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_gather(c, s, r, SIZE_MAX / 4, F32, NULL));
    T_IS(TUTTI_E_ARG, tutti_reduce_scatter(c, s, r, SIZE_MAX / 8 + 1, F32, SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_gatherv(c, s, r, most, F32, NULL));
    T_IS(TUTTI_E_ARG, tutti_reduce_scatterv(c, s, r, most, F32, SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_to_allv(c, s, ones, far, r, ones, near, F32, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_to_allv(c, s, ones, near, r, ones, far, F32, NULL));
    still_good(t);
}

T_RANKS(a_stream_for_host_memory, N)
{
    tutti_stream stream = (tutti_stream)(void *)send_buf;
    const tutti_result r = tutti_all_reduce(t->comm, send_buf, recv_buf, 4, F32, SUM, stream);

    T_CHECK(r == TUTTI_E_ARG || r == TUTTI_E_UNSUPPORTED, "%s", tutti_result_name(r));
    T_CONTAINS(tutti_last_error(), "stream");
    still_good(t);
}

static void no_communicator(void **state)
{
    int x = 0;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm_state status = TUTTI_COMM_STATE_INIT;

    (void)state;
    REFUSED("comm", tutti_all_reduce(NULL, &x, &x, 1, TUTTI_DTYPE_I32, SUM, NULL));
    REFUSED("comm", tutti_barrier(NULL, NULL));
    REFUSED("comm", tutti_send(NULL, &x, 1, TUTTI_DTYPE_I32, 0, NULL));
    REFUSED("comm", tutti_group_begin(NULL));
    REFUSED("comm", tutti_group_end(NULL));
    REFUSED("comm", tutti_comm_query(NULL, &info));
    REFUSED("comm", tutti_comm_status(NULL, &status));
    tutti_comm_destroy(NULL);
}

T_RANKS(sizes_of_output_structs_are_checked, 1)
{
    tutti_comm_info info = {0};
    tutti_comm_state state = {0};
    tutti_stats stats = {0};

    T_IS(TUTTI_E_ARG, tutti_comm_query(t->comm, &info));
    T_IS(TUTTI_E_ARG, tutti_comm_status(t->comm, &state));
    T_IS(TUTTI_E_ARG, tutti_comm_stats(t->comm, 0, &stats));
    T_IS(TUTTI_E_ARG, tutti_comm_query(t->comm, NULL));
    stats.size = sizeof(stats);
    T_IS(TUTTI_E_ARG, tutti_comm_stats(t->comm, 1, &stats));
    T_IS(TUTTI_E_ARG, tutti_comm_stats(t->comm, -1, &stats));
    T_OK(tutti_comm_stats(t->comm, 0, &stats));
    T_IS(TUTTI_E_ARG, tutti_comm_split(t->comm, 0, 0, NULL));
}

static int count_visits(void *context, const tutti_live_comm *comm, const tutti_stats stats[])
{
    (void)comm;
    (void)stats;
    ++*(int *)context;
    return 0;
}

T_RANKS(processes_that_do_not_exist_are_not_visited, 1)
{
    int n_visits = 0;

    T_IS(TUTTI_E_ARG, tutti_live_visit(-1, count_visits, &n_visits));
    T_IS(TUTTI_E_ARG, tutti_live_visit(0, NULL, NULL));
    T_OK(tutti_live_visit(INT_MAX, count_visits, &n_visits));
    T_CHECK(n_visits == 0 && t->comm, "%d communicators", n_visits);
}

static void names_of_what_does_not_exist(void **state)
{
    (void)state;
    assert_string_equal(tutti_dtype_name(BAD_DTYPE), "?");
    assert_string_equal(tutti_op_name(BAD_OP), "?");
    assert_int_equal(tutti_dtype_bytes(BAD_DTYPE), 0);
    assert_int_equal(tutti_dtype_bytes((tutti_dtype)-1), 0);
    assert_non_null(tutti_result_name((tutti_result)-99));
    assert_non_null(tutti_result_text((tutti_result)99));
    assert_string_equal(tutti_result_name(TUTTI_E_PEER), "TUTTI_E_PEER");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_dtypes_and_operations),
        cmocka_unit_test(roots_and_peers_that_do_not_exist),
        cmocka_unit_test(missing_buffers_and_arrays),
        cmocka_unit_test(misaligned_buffers),
        cmocka_unit_test(overlapping_buffers),
        cmocka_unit_test(counts_too_large_to_be_true),
        cmocka_unit_test(a_stream_for_host_memory),
        cmocka_unit_test(no_communicator),
        cmocka_unit_test(sizes_of_output_structs_are_checked),
        cmocka_unit_test(processes_that_do_not_exist_are_not_visited),
        cmocka_unit_test(names_of_what_does_not_exist),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
