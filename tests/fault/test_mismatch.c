/* Calls that do not match: TUTTI_E_MISMATCH on every rank, at once, with both calls in the text. */
#include "support/job.h"

static int32_t send_buf[4096], recv_buf[4096];

typedef tutti_result (*call_fn)(tutti_comm *comm);

#define CALL(name, call)                                                                           \
    static tutti_result name(tutti_comm *c)                                                        \
    {                                                                                              \
        return call;                                                                               \
    }
#define I32 TUTTI_DTYPE_I32
#define SUM TUTTI_OP_SUM
static const size_t counts_a[3] = {1, 2, 3}, counts_b[3] = {1, 3, 3}, displs[3] = {0, 10, 20};

CALL(reduce_16, tutti_all_reduce(c, send_buf, recv_buf, 16, I32, SUM, NULL))
CALL(reduce_17, tutti_all_reduce(c, send_buf, recv_buf, 17, I32, SUM, NULL))
CALL(reduce_4096, tutti_all_reduce(c, send_buf, recv_buf, 4096, I32, SUM, NULL))
CALL(reduce_u32, tutti_all_reduce(c, send_buf, recv_buf, 16, TUTTI_DTYPE_U32, SUM, NULL))
CALL(reduce_max, tutti_all_reduce(c, send_buf, recv_buf, 16, I32, TUTTI_OP_MAX, NULL))
CALL(barrier, tutti_barrier(c, NULL))
CALL(gather_16, tutti_all_gather(c, send_buf, recv_buf, 16, I32, NULL))
CALL(gather_1000, tutti_all_gather(c, send_buf, recv_buf, 1000, I32, NULL))
CALL(gatherv_a, tutti_all_gatherv(c, send_buf, recv_buf, counts_a, I32, NULL))
CALL(gatherv_b, tutti_all_gatherv(c, send_buf, recv_buf, counts_b, I32, NULL))
CALL(scatter_16, tutti_reduce_scatter(c, send_buf, recv_buf, 16, I32, SUM, NULL))
CALL(scatterv_a, tutti_reduce_scatterv(c, send_buf, recv_buf, counts_a, I32, SUM, NULL))
CALL(scatterv_b, tutti_reduce_scatterv(c, send_buf, recv_buf, counts_b, I32, SUM, NULL))
CALL(to_all_16, tutti_all_to_all(c, send_buf, recv_buf, 16, I32, NULL))
CALL(to_allv_a,
     tutti_all_to_allv(c, send_buf, counts_a, displs, recv_buf, counts_a, displs, I32, NULL))
CALL(to_allv_b,
     tutti_all_to_allv(c, send_buf, counts_b, displs, recv_buf, counts_b, displs, I32, NULL))
CALL(broadcast_0, tutti_broadcast(c, send_buf, 16, I32, 0, NULL))
CALL(broadcast_1, tutti_broadcast(c, send_buf, 16, I32, 1, NULL))
CALL(broadcast_17, tutti_broadcast(c, send_buf, 17, I32, 0, NULL))
CALL(reduce_to_0, tutti_reduce(c, send_buf, recv_buf, 16, I32, SUM, 0, NULL))
CALL(reduce_to_1, tutti_reduce(c, send_buf, recv_buf, 16, I32, SUM, 1, NULL))
CALL(gather_to_0, tutti_gather(c, send_buf, recv_buf, 16, I32, 0, NULL))
CALL(gather_to_1, tutti_gather(c, send_buf, recv_buf, 16, I32, 1, NULL))
CALL(scatter_from_0, tutti_scatter(c, send_buf, recv_buf, 16, I32, 0, NULL))
CALL(scatter_of_17, tutti_scatter(c, send_buf, recv_buf, 17, I32, 0, NULL))
CALL(reduce_team, tutti_all_reduce_team(c, send_buf, recv_buf, 16, I32, SUM, 0, 1))
CALL(gather_team, tutti_all_gather_team(c, send_buf, recv_buf, 16, I32, 0, 1))

static tutti_result rows(tutti_comm *c, size_t row_bytes, size_t n_parts)
{
    const tutti_rows parts[2] = {{send_buf, recv_buf, row_bytes},
                                 {send_buf + 100, recv_buf + 1000, 8}};

    return tutti_all_gatherv_rows(c, parts, n_parts, counts_a, NULL);
}
CALL(rows_of_8, rows(c, 8, 2))
CALL(rows_of_12, rows(c, 12, 2))
CALL(one_part, rows(c, 8, 1))

/* What the library tells in these looks like an all_gather of bytes. */
static tutti_result split(tutti_comm *c)
{
    tutti_comm *part;

    return tutti_comm_split(c, -1, 0, &part);
}
CALL(deregister, tutti_window_deregister(c, NULL))
CALL(gather_bytes_4, tutti_all_gather(c, send_buf, recv_buf, 4, TUTTI_DTYPE_U8, NULL))
CALL(gather_bytes_12, tutti_all_gather(c, send_buf, recv_buf, 12, TUTTI_DTYPE_U8, NULL))

static const struct {
    const char *text;
    call_fn rank_1, others;
} pairs[] = {
    {"count", reduce_16, reduce_17},
    {"count, another size class", reduce_16, reduce_4096},
    {"dtype", reduce_16, reduce_u32},
    {"operation", reduce_16, reduce_max},
    {"order: all_reduce and barrier", reduce_16, barrier},
    {"order: all_reduce and all_gather", reduce_16, gather_16},
    {"order: all_gather and all_to_all", gather_16, to_all_16},
    {"order: reduce_scatter and all_reduce", scatter_16, reduce_16},
    {"order: broadcast and barrier", broadcast_0, barrier},
    {"order: broadcast and reduce", broadcast_0, reduce_to_0},
    {"all_gather's count", gather_16, gather_1000},
    {"all_gatherv's counts", gatherv_a, gatherv_b},
    {"reduce_scatterv's counts", scatterv_a, scatterv_b},
    {"all_to_allv's counts", to_allv_a, to_allv_b},
    {"broadcast's root", broadcast_0, broadcast_1},
    {"broadcast's count", broadcast_0, broadcast_17},
    {"reduce's root", reduce_to_0, reduce_to_1},
    {"gather's root", gather_to_0, gather_to_1},
    {"scatter's count", scatter_from_0, scatter_of_17},
    {"order: comm_split and all_gather", split, gather_bytes_12},
    {"order: window_deregister and all_gather", deregister, gather_bytes_4},
    {"gather and scatter", gather_to_0, scatter_from_0},
    {"row bytes", rows_of_8, rows_of_12},
    {"parts", rows_of_8, one_part},
    {"team calls", reduce_team, gather_team},
};

static void unlike_calls(struct t_rank *t)
{
    const size_t i = *(const size_t *)t->arg;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    for (int k = 0; k < 5; k++)
        T_OK(tutti_barrier(t->comm, NULL));
    t_meet(t);
    const struct t_time from = t_time_of(0);
    const tutti_result r = t->rank == 1 ? pairs[i].rank_1(t->comm) : pairs[i].others(t->comm);
    char text[512];

    snprintf(text, sizeof(text), "%s", tutti_last_error());
    const uint64_t ms = t_meet_ms(t, t_time_from(from, t_time_of(0)));
    T_CHECK(r == TUTTI_E_MISMATCH, "%s: rank %d got %s: %s", pairs[i].text, t->rank,
            tutti_result_name(r), text);
    T_CHECK(ms < 500 * t_scale(), "%s: took %llu ms", pairs[i].text, (unsigned long long)ms);
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_E_MISMATCH, "%s: status %s", pairs[i].text,
            tutti_result_name(state.result));
    T_CONTAINS(state.text, "rank");
    T_IS(TUTTI_E_MISMATCH, tutti_barrier(t->comm, NULL)); /* for good */
}

static void run_pairs(int n_ranks)
{
    static char report[8192];
    static char all[16384];

    all[0] = 0;
    for (size_t i = 0; i < T_LEN(pairs); i++) {
        size_t index = i;
        const struct t_job job = {
            .n_ranks = n_ranks, .body = unlike_calls, .arg = &index, .limit_s = 20};

        if (t_run_quietly(&job, report, sizeof(report)) && strlen(all) < 12000)
            snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s:\n%s", pairs[i].text,
                     report);
    }
    if (all[0] != 0)
        T_FAIL("%s", all);
}

static void two_ranks_learn_of_unlike_calls(void **state)
{
    (void)state;
    run_pairs(2);
}

static void three_ranks_learn_of_unlike_calls(void **state)
{
    (void)state;
    run_pairs(3);
}

/* A rank that is a call behind makes the same call with older arguments: seen, not hung. */
T_RANKS(a_rank_that_skipped_a_call, 3)
{
    if (t->rank != 2)
        T_IS(TUTTI_E_MISMATCH, reduce_16(t->comm));
    else
        T_IS(TUTTI_E_MISMATCH, reduce_17(t->comm));
    T_IS(TUTTI_E_MISMATCH, reduce_17(t->comm));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_learn_of_unlike_calls),
        cmocka_unit_test(three_ranks_learn_of_unlike_calls),
        cmocka_unit_test(a_rank_that_skipped_a_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
