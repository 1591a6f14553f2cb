/*
 * The arithmetic of the GPU kernels, compiled for the host, gives the bits of the CPU engine's: every
 * dtype x operation x 1 to 9 ranks, on random bits, numbers about 1, and what is special in a format.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/kernels.h"
#include "cuda/kernels/numerics.inc"
#include "kernels_reference.h"

#define MAX_RANKS 9
#define N_VECS    4096

static struct tt_vec sources[MAX_RANKS][N_VECS];
static struct tt_vec expected[N_VECS];

/* One of the numbers that a format treats specially, of either sign. */
static uint64_t special_float(const struct ref_format *f, uint64_t bits)
{
    const int mantissa_bits = f->kind == REF_F64 ? 52 : f->mantissa_bits;
    const uint64_t sign = (bits >> 63) << (f->bytes * 8 - 1);
    const uint64_t largest = UINT64_MAX >> (65 - f->bytes * 8);
    const uint64_t one_ulp = 1, normal = (uint64_t)1 << mantissa_bits;
    const uint64_t infinity = largest & ~(normal - 1);
    const uint64_t of[8] = {0,        one_ulp,      normal - 1,   normal,
                            infinity, infinity - 1, infinity + 1, largest};

    return sign | of[bits & 7];
}

/* About 1, so that sums of several neither vanish nor overflow, and ties in rounding occur. */
static uint64_t plain_float(const struct ref_format *f, uint64_t bits)
{
    const int mantissa_bits = f->kind == REF_F64 ? 52 : f->mantissa_bits;
    const int exponent_bits = f->kind == REF_F64 ? 11 : f->exponent_bits;
    const uint64_t mantissa = ((uint64_t)1 << mantissa_bits) - 1;
    const uint64_t one = (((uint64_t)1 << (exponent_bits - 1)) - 1) << mantissa_bits;
    const uint64_t sign = (bits >> 63) << (f->bytes * 8 - 1);

    return sign | (one + ((bits >> 8 & 3) << mantissa_bits) - (mantissa + 1) + (bits & mantissa));
}

static void make_sources(tutti_dtype dtype, uint64_t seed)
{
    const struct ref_format *f = &ref_formats[dtype];
    const size_t n = sizeof(sources[0]) / (size_t)f->bytes;

    for (int r = 0; r < MAX_RANKS; r++) {
        for (size_t k = 0; k < n; k++) {
            const uint64_t bits = ref_random(&seed);
            uint64_t code = bits >> (64 - f->bytes * 8);

            if (f->kind != REF_INTEGER && k % 4 == 1)
                code = special_float(f, bits);
            else if (f->kind != REF_INTEGER && k % 4 > 1)
                code = plain_float(f, bits);
            else if (f->kind == REF_INTEGER && k % 4 == 1) /* the ends of the range */
                code =
                    (bits & 3 ? UINT64_MAX >> (64 - f->bytes * 8) >> (bits & 1) : 0) + (bits & 2);
            ref_put(dtype, sources[r], k, code);
        }
    }
}

static int same(tutti_dtype dtype, int op, int n, const struct tt_vec *got, size_t i)
{
    if (memcmp(got, &expected[i], sizeof(*got)) == 0)
        return 1;
    for (size_t k = 0; k < 16 / (size_t)ref_formats[dtype].bytes; k++) {
        const uint64_t a = ref_get(dtype, got, k), b = ref_get(dtype, &expected[i], k);

        if (a != b)
            print_message("%s %s of %d: element %zu of vector %zu is %#llx, not %#llx\n",
                          tutti_dtype_name(dtype), tutti_op_name((tutti_op)op), n, k, i,
                          (unsigned long long)a, (unsigned long long)b);
    }
    return 0;
}

static void expect(tutti_dtype dtype, int op, int n)
{
    const void *src[MAX_RANKS];

    for (int r = 0; r < n; r++)
        src[r] = sources[r];
    tt_kernels_get("scalar")->reduce[dtype][op](
        expected, NULL, src, n, sizeof(expected) / (size_t)ref_formats[dtype].bytes, 0);
}

#define DTYPE_TEST(name, value, bytes, text)                                                       \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        make_sources(TUTTI_DTYPE_##name, 7000 + (value));                                          \
        for (int op = 0; op < TUTTI_N_OPS; op++) {                                                 \
            for (int n = 1; n <= MAX_RANKS; n++) {                                                 \
                expect(TUTTI_DTYPE_##name, op, n);                                                 \
                for (size_t i = 0; i < N_VECS; i++) {                                              \
                    struct tt_acc_##name acc = tt_first_##name(sources[0][i]);                     \
                    struct tt_vec v;                                                               \
                                                                                                   \
                    for (int r = 1; r < n; r++)                                                    \
                        tt_next_##name(&acc, sources[r][i], op);                                   \
                    v = tt_last_##name(&acc, n, op);                                               \
                    assert_true(same(TUTTI_DTYPE_##name, op, n, &v, i));                           \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }
TUTTI_DTYPE_MAP(DTYPE_TEST)

/* What follows a GPU's own converter: every pair of halves that matters, beside words without NaNs. */
static uint32_t canonical(uint32_t pair, uint32_t infinity, uint32_t nan)
{
    struct tt_vec v = {{0x3c003c00, pair, 0x7bff0001, 0}};

    tt_canonical_pairs(&v, infinity, nan);
    assert_true(v.w[0] == 0x3c003c00 && v.w[2] == 0x7bff0001 && v.w[3] == 0);
    return v.w[1];
}

static void test_canonical_pairs(void **state)
{
    (void)state;
    for (uint32_t e = 0; e < 65536; e++) {
        const uint32_t bf16 = (e & 0x7fff) > 0x7f80 ? 0x7fc0 : e;
        const uint32_t f16 = (e & 0x7fff) > 0x7c00 ? 0x7e00 : e;

        assert_int_equal(canonical(e << 16 | 0xffc1, 0x7f80, 0x7fc0), bf16 << 16 | 0x7fc0);
        assert_int_equal(canonical(0x80000000 | e, 0x7f80, 0x7fc0), 0x80000000 | bf16);
        assert_int_equal(canonical(e << 16 | 0x7fff, 0x7c00, 0x7e00), f16 << 16 | 0x7e00);
        assert_int_equal(canonical(0xfc000000 | e, 0x7c00, 0x7e00), 0xfc000000 | f16);
    }
}

/* Control: this comparison tells one bit. */
static void test_one_bit_is_seen(void **state)
{
    struct tt_vec v;

    (void)state;
    make_sources(TUTTI_DTYPE_I32, 1);
    expect(TUTTI_DTYPE_I32, TUTTI_OP_SUM, 1);
    v = expected[5];
    v.w[3] ^= 1;
    assert_false(same(TUTTI_DTYPE_I32, TUTTI_OP_SUM, 1, &v, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define DTYPE_ENTRY(name, value, bytes, text) cmocka_unit_test(test_##name),
        TUTTI_DTYPE_MAP(DTYPE_ENTRY) cmocka_unit_test(test_canonical_pairs),
        cmocka_unit_test(test_one_bit_is_seen)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
