/* all_gatherv_rows: any number of parts of any width, rows that are missing on some ranks. */
#include "support/job.h"

enum { N = 3, MAX_ROWS = 40 };

static unsigned char byte_of(int call, int rank, size_t part, size_t i)
{
    return (unsigned char)(call * 31 + rank * 101 + (int)part * 17 + (int)i);
}

static size_t width(int call, size_t part)
{
    static const size_t widths[] = {1, 2, 3, 4, 7, 8, 16, 56, 64, 100, 256, 896, 4, 4096, 5, 12};

    return widths[(part + (size_t)call) % T_LEN(widths)];
}

static void one_call(struct t_rank *t, tutti_comm *comm, int call, size_t n_parts)
{
    tutti_rows parts[TUTTI_MAX_ROW_PARTS];
    size_t rows[N], total = 0, first = 0;

    for (int r = 0; r < N; r++) {
        rows[r] = (t_hash((uint64_t)call, (uint64_t)r) & 3) == 0
                      ? 0
                      : t_hash((uint64_t)call, (uint64_t)r) % MAX_ROWS;
        total += rows[r];
        first += r < t->rank ? rows[r] : 0;
    }
    for (size_t p = 0; p < n_parts; p++) {
        const size_t w = width(call, p), bytes = rows[t->rank] * w;
        unsigned char *recv = malloc(total * w + 1), *send = malloc(bytes + 1);

        recv[total * w] = 0xEE;
        if (call % 3 == 0) { /* in place */
            free(send);
            send = recv + first * w;
        }
        for (size_t i = 0; i < bytes; i++)
            send[i] = byte_of(call, t->rank, p, i);
        parts[p] = (tutti_rows){send, recv, w};
    }
    T_OK(tutti_all_gatherv_rows(comm, parts, n_parts, rows, NULL));
    for (size_t p = 0; p < n_parts; p++) {
        const unsigned char *got = parts[p].recv;

        for (int r = 0; r < N; r++)
            for (size_t i = 0; i < rows[r] * parts[p].row_bytes; i++)
                T_CHECK(*got++ == byte_of(call, r, p, i), "call %d part %zu rank %d byte %zu", call,
                        p, r, i);
        T_CHECK(*got == 0xEE, "call %d part %zu: a byte too many", call, p);
        if (call % 3 != 0)
            free((void *)(uintptr_t)parts[p].send);
        free(parts[p].recv);
    }
}

T_RANKS(every_number_of_parts, N)
{
    for (int call = 0; call < 200; call++)
        one_call(t, t->comm, call, 1 + (size_t)call % TUTTI_MAX_ROW_PARTS);
}

T_RANKS(they_go_across_memories, N)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm;
    tutti_result res;

    config.algorithm = "xmem";
    res = t_comm_create(t, 2, &config, &comm);
    if (res == TUTTI_E_UNSUPPORTED)
        t_skip("%s", tutti_last_error());
    T_OK(res);
    for (int call = 0; call < 200; call++)
        one_call(t, comm, call, 1 + (size_t)call % TUTTI_MAX_ROW_PARTS);
    tutti_comm_destroy(comm);
}

T_RANKS(no_rows_are_fine_and_no_parts_are_refused, N)
{
    const size_t none[N] = {0, 0, 0};
    const tutti_rows part = {NULL, NULL, 8};

    T_OK(tutti_all_gatherv_rows(t->comm, &part, 1, none, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_rows(t->comm, NULL, 0, none, NULL));
    T_OK(tutti_barrier(t->comm, NULL));
}

T_RANKS(too_many_parts_are_refused, N)
{
    const size_t rows[N] = {1, 1, 1};
    tutti_rows parts[TUTTI_MAX_ROW_PARTS + 1];
    unsigned char send[8] = {0}, recv[8 * N];

    for (size_t p = 0; p < T_LEN(parts); p++)
        parts[p] = (tutti_rows){send, recv, 8};
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_rows(t->comm, parts, T_LEN(parts), rows, NULL));
    T_CONTAINS(tutti_last_error(), "17");
    T_OK(tutti_barrier(t->comm, NULL));
}

/* Whatever the widths are: {a, b} and {a + 1, b - 31} among them. */
T_RANKS(other_widths_are_a_mismatch, N)
{
    enum { ROWS = 512, ROOM = N * ROWS * 128 };
    const size_t rows[N] = {ROWS, ROWS, ROWS};
    unsigned char *send = calloc(2, ROOM), *recv = malloc(2 * ROOM);
    const size_t first = t->rank == 1 ? 65 : 64, second = t->rank == 1 ? 69 : 100;
    const tutti_rows parts[2] = {{send, recv, first}, {send + ROOM, recv + ROOM, second}};
    tutti_result res;

    T_CHECK(send && recv, "no memory");
    memset(recv, 0xEE, 2 * ROOM);
    res = tutti_all_gatherv_rows(t->comm, parts, 2, rows, NULL);
    t_meet(t); /* nobody leaves before all have it */
    T_IS(TUTTI_E_MISMATCH, res);
    for (size_t i = N * ROWS * first; i < ROOM; i++)
        T_CHECK(recv[i] == 0xEE, "byte %zu of the first part's rest was written", i);
    for (size_t i = N * ROWS * second; i < ROOM; i++)
        T_CHECK(recv[ROOM + i] == 0xEE, "byte %zu of the second part's rest was written", i);
    free(send);
    free(recv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_parts),
        cmocka_unit_test(they_go_across_memories),
        cmocka_unit_test(no_rows_are_fine_and_no_parts_are_refused),
        cmocka_unit_test(too_many_parts_are_refused),
        cmocka_unit_test(other_widths_are_a_mismatch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
