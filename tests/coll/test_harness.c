/* The harness itself: a rank that fails, hangs, crashes or writes too far is noticed and named, and
 * the reference gives the bits that were worked out by hand. */
#include <signal.h>
#include <unistd.h>

#include "support/cases.h"

static char report[8192];

static int fails(void (*body)(struct t_rank *), int threads, unsigned limit_s)
{
    const struct t_job job = {
        .n_ranks = 3, .body = body, .no_comm = 1, .threads = threads, .limit_s = limit_s};

    return t_run_quietly(&job, report, sizeof(report));
}

static void one_checks_wrong(struct t_rank *t)
{
    T_CHECK(t->rank != 1, "five is %d", 5);
}

static void one_hangs(struct t_rank *t)
{
    t_at("somewhere.c", 7, "wait_for_godot()");
    if (t->rank == 2)
        for (;;)
            pause();
}

static void one_crashes(struct t_rank *t)
{
    if (t->rank == 1)
        raise(SIGKILL);
}

static void one_writes_past_the_end(struct t_rank *t)
{
    const struct t_memory m = t_memory_new(4096);

    memset(m.base, 0, m.bytes + (size_t)(t->rank == 0));
}

static void one_touches_a_canary(struct t_rank *t)
{
    const struct t_memory m = t_memory_new(9000);
    unsigned char *p = t_place(&m, T_ALIGNED, 100, 4);

    t_poison(&m, p, 100);
    p[100] ^= (unsigned char)(t->rank == 2);
    t_check_canaries(&m, p, 100, "the buffer");
}

static void all_is_well(struct t_rank *t)
{
    t_meet(t);
    t->shared[t->rank] = 1;
    t_meet(t);
    T_CHECK(t->shared[0] + t->shared[1] + t->shared[2] == 3, "not all met");
}

static void a_failed_check_is_reported(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        assert_true(fails(one_checks_wrong, threads, 10));
        T_CONTAINS(report, "rank 1 of 3: tests/coll/test_harness.c");
        T_CONTAINS(report, "five is 5");
    }
}

static void a_hang_is_reported_with_the_last_call(void **state)
{
    (void)state;
    assert_true(fails(one_hangs, 0, 1));
    T_CONTAINS(report, "rank 2 of 3: hung at somewhere.c:7 wait_for_godot()");
}

static void a_crash_is_reported(void **state)
{
    (void)state;
    assert_true(fails(one_crashes, 0, 10));
    T_CONTAINS(report, "rank 1 of 3: died of signal 9");
    assert_true(fails(one_writes_past_the_end, 0, 10));
    T_CONTAINS(report, "rank 0 of 3: died of signal 11");
}

static void a_canary_is_reported(void **state)
{
    (void)state;
    assert_true(fails(one_touches_a_canary, 0, 10));
    T_CONTAINS(report, "rank 2 of 3");
    T_CONTAINS(report, "byte 0 after the buffer was written");
}

static void a_good_job_passes(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++)
        if (fails(all_is_well, threads, 10))
            T_FAIL("%s", report);
}

/* --- the reference --- */

static uint64_t reduce2(tutti_dtype dtype, tutti_op op, uint64_t a, uint64_t b)
{
    const void *src[] = {&a, &b};
    uint64_t result = 0;

    t_reference_reduce(&result, src, 2, 1, dtype, op);
    return result;
}

static void the_reference_gives_known_bits(void **state)
{
    static const struct {
        tutti_dtype dtype;
        tutti_op op;
        uint64_t a, b, want;
    } rows[] = {
        {TUTTI_DTYPE_F32, TUTTI_OP_SUM, 0x3f800000, 0x40000000, 0x40400000},
        {TUTTI_DTYPE_F32, TUTTI_OP_SUM, 1, 1, 2}, /* denormals */
        {TUTTI_DTYPE_F32, TUTTI_OP_SUM, 0x7f800000, 0xff800000, 0x7fc00000},
        {TUTTI_DTYPE_F32, TUTTI_OP_SUM, 0xffc12345, 0x3f800000, 0x7fc00000},
        {TUTTI_DTYPE_F32, TUTTI_OP_MAX, 0x80000000, 0, 0},
        {TUTTI_DTYPE_F32, TUTTI_OP_MIN, 0, 0x80000000, 0x80000000},
        {TUTTI_DTYPE_F32, TUTTI_OP_MAX, 0x3f800000, 0x7f800001, 0x7fc00000},
        {TUTTI_DTYPE_F32, TUTTI_OP_AVG, 0x3f800000, 0x40000000, 0x3fc00000},
        {TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 0x3f80, 0x3b80, 0x3f80}, /* 1 + 2^-8: tie to even */
        {TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 0x3f81, 0x3b80, 0x3f82}, /* tie to even, upwards */
        {TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 0x7f7f, 0x7f7f, 0x7f80},
        {TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 0x0001, 0x0001, 0x0002},
        {TUTTI_DTYPE_F16, TUTTI_OP_SUM, 0x3c00, 0x1000, 0x3c00}, /* 1 + 2^-11: tie */
        {TUTTI_DTYPE_F16, TUTTI_OP_SUM, 0x7bff, 0x7bff, 0x7c00},
        {TUTTI_DTYPE_F16, TUTTI_OP_SUM, 0x03ff, 0x0001, 0x0400},
        {TUTTI_DTYPE_F16, TUTTI_OP_PROD, 0xbc00, 0x0001, 0x8001},
        {TUTTI_DTYPE_F16, TUTTI_OP_SUM, 0xfe01, 0, 0x7e00},
        {TUTTI_DTYPE_E4M3, TUTTI_OP_SUM, 0x7e, 0x7e, 0x7e}, /* saturates */
        {TUTTI_DTYPE_E4M3, TUTTI_OP_SUM, 0xfe, 0xfe, 0xfe},
        {TUTTI_DTYPE_E4M3, TUTTI_OP_SUM, 0xff, 0x38, 0x7f},
        {TUTTI_DTYPE_E4M3, TUTTI_OP_SUM, 0x38, 0x38, 0x40},
        {TUTTI_DTYPE_E4M3, TUTTI_OP_SUM, 0x07, 0x01, 0x08},
        {TUTTI_DTYPE_E5M2, TUTTI_OP_SUM, 0x7c, 0x3c, 0x7b}, /* infinity saturates too */
        {TUTTI_DTYPE_E5M2, TUTTI_OP_SUM, 0xfc, 0x3c, 0xfb},
        {TUTTI_DTYPE_E5M2, TUTTI_OP_SUM, 0x7c, 0xfc, 0x7f},
        {TUTTI_DTYPE_E5M2, TUTTI_OP_MAX, 0x7b, 0x3c, 0x7b},
        {TUTTI_DTYPE_F64, TUTTI_OP_SUM, 0x7ff0000000000001, 0, 0x7ff8000000000000},
        {TUTTI_DTYPE_I8, TUTTI_OP_SUM, 0x7f, 0x01, 0x80},
        {TUTTI_DTYPE_I8, TUTTI_OP_AVG, 0xff, 0xfe, 0xff}, /* -3 / 2 = -1 */
        {TUTTI_DTYPE_U8, TUTTI_OP_MAX, 0x80, 0x01, 0x80},
        {TUTTI_DTYPE_I8, TUTTI_OP_MAX, 0x80, 0x01, 0x01},
        {TUTTI_DTYPE_I32, TUTTI_OP_SUM, 0x7fffffff, 1, 0x80000000},
        {TUTTI_DTYPE_I32, TUTTI_OP_AVG, 0x7fffffff, 0x7fffffff, 0x7fffffff}, /* no wrap */
        {TUTTI_DTYPE_U64, TUTTI_OP_AVG, 7, 8, 7},
        {TUTTI_DTYPE_U64, TUTTI_OP_AVG, UINT64_MAX, 3, 1},
        {TUTTI_DTYPE_I64, TUTTI_OP_PROD, UINT64_MAX, 5, (uint64_t)-5},
    };

    (void)state;
    for (size_t i = 0; i < T_LEN(rows); i++) {
        const uint64_t got = reduce2(rows[i].dtype, rows[i].op, rows[i].a, rows[i].b);

        T_CHECK(got == rows[i].want, "row %zu, %s %s: %#llx, want %#llx", i,
                tutti_dtype_name(rows[i].dtype), tutti_op_name(rows[i].op), (unsigned long long)got,
                (unsigned long long)rows[i].want);
    }
}

/* Decoding and encoding again is the identity for every 16-bit and 8-bit float that is no NaN. */
static void the_reference_round_trips_small_floats(void **state)
{
    static const tutti_dtype dtypes[] = {TUTTI_DTYPE_F16, TUTTI_DTYPE_BF16, TUTTI_DTYPE_E4M3,
                                         TUTTI_DTYPE_E5M2};

    (void)state;
    for (size_t d = 0; d < T_LEN(dtypes); d++)
        for (uint32_t code = 0; code < 1u << (8 * tutti_dtype_bytes(dtypes[d])); code++) {
            const double value = t_value(&code, dtypes[d]);
            uint32_t back = 0;

            t_round(value, dtypes[d], &back);
            if (value != value || (dtypes[d] == TUTTI_DTYPE_E5M2 && (code & 0x7f) == 0x7c))
                continue;
            T_CHECK(back == code, "%s %#x became %#x", tutti_dtype_name(dtypes[d]), code, back);
        }
}

static void create_by_id_and_by_exchange_work(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;

    T_OK(tutti_comm_query(t->comm, &info));
    T_CHECK(info.rank == t->rank && info.n_ranks == t->n_ranks, "rank %d of %d", info.rank,
            info.n_ranks);
    T_OK(tutti_barrier(t->comm, NULL));
}

static void ranks_find_each_other_by_id_and_by_exchange(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        const struct t_job job = {.n_ranks = 3,
                                  .body = create_by_id_and_by_exchange_work,
                                  .threads = how & 1,
                                  .boot = (how & 2) != 0 ? T_BOOT_EXCHANGE : T_BOOT_ID};

        t_run(&job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_check_is_reported),
        cmocka_unit_test(a_hang_is_reported_with_the_last_call),
        cmocka_unit_test(a_crash_is_reported),
        cmocka_unit_test(a_canary_is_reported),
        cmocka_unit_test(a_good_job_passes),
        cmocka_unit_test(the_reference_gives_known_bits),
        cmocka_unit_test(the_reference_round_trips_small_floats),
        cmocka_unit_test(ranks_find_each_other_by_id_and_by_exchange),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
