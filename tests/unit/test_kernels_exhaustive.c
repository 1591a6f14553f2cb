/* ctest: quick timeout=120 */
/* Every 8-bit pair, every 16-bit value, and masses of 16-bit pairs through every set of kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "kernels_reference.h"

#define N           65536
#define MAX_SOURCES 4

static uint64_t codes[MAX_SOURCES][N];
static char arrays[MAX_SOURCES][N * 8];
static char result[N * 8];
static char expected[N * 8];

static void fail_at(const struct tt_kernels *set, tutti_dtype dtype, int op, int n_src, size_t k)
{
    print_message("%s %s %s, element %zu:", set->isa, tutti_dtype_name(dtype),
                  tutti_op_name((tutti_op)op), k);
    for (int r = 0; r < n_src; r++)
        print_message(" %#llx", (unsigned long long)codes[r][k]);
    fail_msg(" gave %#llx, not %#llx", (unsigned long long)ref_get(dtype, result, k),
             (unsigned long long)ref_get(dtype, expected, k));
}

/* All sets against the reference on codes[0 .. n_src)[0 .. N). */
static void check_all_sets(tutti_dtype dtype, int op, int n_src)
{
    const size_t bytes = N * (size_t)ref_formats[dtype].bytes;
    const void *src[MAX_SOURCES];
    const struct tt_kernels *set;

    for (int r = 0; r < n_src; r++) {
        src[r] = arrays[r];
        for (size_t k = 0; k < N; k++)
            ref_put(dtype, arrays[r], k, codes[r][k]);
    }
    for (size_t k = 0; k < N; k++) {
        uint64_t x[MAX_SOURCES] = {0};

        for (int r = 0; r < n_src; r++)
            x[r] = codes[r][k];
        ref_put(dtype, expected, k, ref_reduce(dtype, op, x, n_src));
    }
    for (int i = 0; (set = ref_set(i)); i++) {
        memset(result, 0xa5, bytes);
        set->reduce[dtype][op](result, NULL, src, n_src, N, 0);
        for (size_t k = 0; k < N && memcmp(result, expected, bytes) != 0; k++)
            if (ref_get(dtype, result, k) != ref_get(dtype, expected, k))
                fail_at(set, dtype, op, n_src, k);
    }
}

static void test_all_16_bit_values_alone(void **state)
{
    (void)state;
    for (size_t k = 0; k < N; k++)
        codes[0][k] = k;
    for (int op = 0; op < TUTTI_N_OPS; op++) {
        check_all_sets(TUTTI_DTYPE_BF16, op, 1);
        check_all_sets(TUTTI_DTYPE_F16, op, 1);
    }
}

/* The same once more, by what must come out rather than by the reference. */
static void test_one_source_is_identity(void **state)
{
    const struct tt_kernels *set;
    const void *src[1] = {arrays[0]};

    (void)state;
    for (size_t k = 0; k < N; k++)
        ref_put(TUTTI_DTYPE_BF16, arrays[0], k, k);
    for (int i = 0; (set = ref_set(i)); i++) {
        set->reduce[TUTTI_DTYPE_BF16][TUTTI_OP_SUM](result, NULL, src, 1, N, 0);
        for (size_t k = 0; k < N; k++)
            assert_int_equal(ref_get(TUTTI_DTYPE_BF16, result, k),
                             (k & 0x7fff) > 0x7f80 ? 0x7fc0 : k);
        set->reduce[TUTTI_DTYPE_F16][TUTTI_OP_MAX](result, NULL, src, 1, N, 0);
        for (size_t k = 0; k < N; k++)
            assert_int_equal(ref_get(TUTTI_DTYPE_F16, result, k),
                             (k & 0x7fff) > 0x7c00 ? 0x7e00 : k);
    }
}

static void test_all_8_bit_pairs(void **state)
{
    static const tutti_dtype dtypes[] = {TUTTI_DTYPE_E4M3, TUTTI_DTYPE_E5M2, TUTTI_DTYPE_I8,
                                         TUTTI_DTYPE_U8};

    (void)state;
    for (size_t k = 0; k < N; k++) {
        codes[0][k] = k & 0xff;
        codes[1][k] = k >> 8;
    }
    for (int t = 0; t < 4; t++)
        for (int op = 0; op < TUTTI_N_OPS; op++)
            check_all_sets(dtypes[t], op, 2);
}

/* The pairs go through all first values and random second ones, which are close to the first one's
 * exponent every other time, so that rounding and cancellation matter. */
static void test_16_bit_pairs(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (int op = 0; op < TUTTI_N_OPS; op++) {
        for (int pass = 0; pass < 3; pass++) {
            for (size_t k = 0; k < N; k++) {
                const uint64_t bits = ref_random(&seed);

                codes[0][k] = k;
                codes[1][k] = pass & 1 ? (k ^ (bits & 0x83ff)) : (bits & 0xffff);
            }
            check_all_sets(TUTTI_DTYPE_BF16, op, 2);
            check_all_sets(TUTTI_DTYPE_F16, op, 2);
        }
    }
}

/* fp32 results at and next to the middle between two values of the narrow format: a large value and
 * a tiny second source that tips it, or not. */
static void test_ties(void **state)
{
    static const tutti_dtype dtypes[] = {TUTTI_DTYPE_BF16, TUTTI_DTYPE_F16, TUTTI_DTYPE_E4M3,
                                         TUTTI_DTYPE_E5M2};
    uint64_t seed = 2;

    (void)state;
    for (int t = 0; t < 4; t++) {
        const struct ref_format *f = &ref_formats[dtypes[t]];
        const uint32_t sign = 1u << (f->bytes * 8 - 1);

        for (size_t k = 0; k < N; k++) {
            const uint32_t base = (uint32_t)ref_random(&seed) % f->top;
            const uint32_t below = ((uint32_t)f->mantissa_bits + 1) << f->mantissa_bits;
            const uint32_t half = base & ~((1u << f->mantissa_bits) - 1);
            const uint64_t bits = ref_random(&seed);

            codes[0][k] = base | (bits & 1 ? sign : 0);
            codes[1][k] = (half > below ? half - below : bits >> 8 & 3) | (bits & 2 ? sign : 0);
            codes[2][k] = (bits >> 10 & 3) | (bits & 4 ? sign : 0);
        }
        check_all_sets(dtypes[t], TUTTI_OP_SUM, 2);
        check_all_sets(dtypes[t], TUTTI_OP_SUM, 3);
        check_all_sets(dtypes[t], TUTTI_OP_AVG, 3);
    }
}

static int prepare(void **state)
{
    (void)state;
    ref_prepare();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_16_bit_values_alone),
        cmocka_unit_test(test_one_source_is_identity),
        cmocka_unit_test(test_all_8_bit_pairs),
        cmocka_unit_test(test_16_bit_pairs),
        cmocka_unit_test(test_ties),
    };

    return cmocka_run_group_tests(tests, prepare, NULL);
}
