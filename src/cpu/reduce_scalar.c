/*
 * The reference: every reduction in plain C, for any processor. The other sets give the same bits.
 * Blocks of elements are widened, combined and rounded by small loops, one for each format and one
 * for each operation on an accumulator, which compilers turn into what vectors the baseline has.
 */
#include "cpu/kernels_sets.h"
#include "base/formats.h"

#include <string.h>

#define BLOCK 64

/* The accumulators of a block. All integers are widened to 64 bits: sums and products wrap to the
 * same narrow result, and averages do not wrap before the division. */
typedef union {
    float f32[BLOCK];
    double f64[BLOCK];
    int64_t i64[BLOCK];
    uint64_t u64[BLOCK];
} block;

typedef void (*widen_fn)(block *acc, const char *src, size_t n);
typedef void (*round_fn)(char *dst, const block *acc, size_t n);
typedef void (*combine_fn)(block *acc, const block *v, size_t n);
typedef void (*divide_fn)(block *acc, int n_src, size_t n);

/* FORMAT(name, element, kind of accumulator, element to accumulator, accumulator to element) */
#define FORMAT(name, element, kind, to_wide, from_wide)                                            \
    static void widen_##name(block *acc, const char *src, size_t n)                                \
    {                                                                                              \
        for (size_t k = 0; k < n; k++) {                                                           \
            element e;                                                                             \
                                                                                                   \
            memcpy(&e, src + k * sizeof(e), sizeof(e));                                            \
            acc->kind[k] = to_wide(e);                                                             \
        }                                                                                          \
    }                                                                                              \
    static void round_##name(char *dst, const block *acc, size_t n)                                \
    {                                                                                              \
        for (size_t k = 0; k < n; k++) {                                                           \
            const element e = (element)from_wide(acc->kind[k]);                                    \
                                                                                                   \
            memcpy(dst + k * sizeof(e), &e, sizeof(e));                                            \
        }                                                                                          \
    }
#define AS_IS(e) (e)
FORMAT(f32, uint32_t, f32, tt_wide_of_f32, tt_f32_of_wide)
FORMAT(f16, uint16_t, f32, tt_wide_of_f16, tt_f16_of_wide)
FORMAT(bf16, uint16_t, f32, tt_wide_of_bf16, tt_bf16_of_wide)
FORMAT(f64, uint64_t, f64, tt_wide_of_f64, tt_f64_of_wide)
FORMAT(e4m3, uint8_t, f32, tt_wide_of_e4m3, tt_e4m3_of_wide)
FORMAT(e5m2, uint8_t, f32, tt_wide_of_e5m2, tt_e5m2_of_wide)
FORMAT(i8, int8_t, i64, AS_IS, AS_IS)
FORMAT(u8, uint8_t, u64, AS_IS, AS_IS)
FORMAT(i32, int32_t, i64, AS_IS, AS_IS)
FORMAT(u32, uint32_t, u64, AS_IS, AS_IS)
FORMAT(i64, int64_t, i64, AS_IS, AS_IS)
FORMAT(u64, uint64_t, u64, AS_IS, AS_IS)

static inline float max_of_f32(float a, float b)
{
    if (a != a || b != b)
        return tt_f32_of_bits(TT_F32_NAN);
    if (a == b) /* also -0 and +0 */
        return tt_bits_of_f32(a) >> 31 ? b : a;
    return a > b ? a : b;
}

static inline float min_of_f32(float a, float b)
{
    if (a != a || b != b)
        return tt_f32_of_bits(TT_F32_NAN);
    if (a == b)
        return tt_bits_of_f32(a) >> 31 ? a : b;
    return a < b ? a : b;
}

static inline double max_of_f64(double a, double b)
{
    if (a != a || b != b)
        return tt_f64_of_bits(TT_F64_NAN);
    if (a == b)
        return tt_bits_of_f64(a) >> 63 ? b : a;
    return a > b ? a : b;
}

static inline double min_of_f64(double a, double b)
{
    if (a != a || b != b)
        return tt_f64_of_bits(TT_F64_NAN);
    if (a == b)
        return tt_bits_of_f64(a) >> 63 ? a : b;
    return a < b ? a : b;
}

/* Integers add and multiply as u64, where overflow is defined; that is the other member of the
 * union and has the same bits. */
#define COMBINE(name, kind, expression)                                                            \
    static void name(block *acc, const block *v, size_t n)                                         \
    {                                                                                              \
        for (size_t k = 0; k < n; k++)                                                             \
            acc->kind[k] = expression(acc->kind[k], v->kind[k]);                                   \
    }
#define PLUS(a, b)    ((a) + (b))
#define TIMES(a, b)   ((a) * (b))
#define GREATER(a, b) ((a) > (b) ? (a) : (b))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
COMBINE(sum_f32, f32, PLUS)
COMBINE(prod_f32, f32, TIMES)
COMBINE(max_f32, f32, max_of_f32)
COMBINE(min_f32, f32, min_of_f32)
COMBINE(sum_f64, f64, PLUS)
COMBINE(prod_f64, f64, TIMES)
COMBINE(max_f64, f64, max_of_f64)
COMBINE(min_f64, f64, min_of_f64)
COMBINE(sum_int, u64, PLUS)
COMBINE(prod_int, u64, TIMES)
COMBINE(max_i64, i64, GREATER)
COMBINE(min_i64, i64, SMALLER)
COMBINE(max_u64, u64, GREATER)
COMBINE(min_u64, u64, SMALLER)

#define DIVIDE(kind, divisor)                                                                      \
    static void divide_##kind(block *acc, int n_src, size_t n)                                     \
    {                                                                                              \
        for (size_t k = 0; k < n; k++)                                                             \
            acc->kind[k] /= (divisor)n_src;                                                        \
    }
DIVIDE(f32, float)
DIVIDE(f64, double)
DIVIDE(i64, int64_t)
DIVIDE(u64, uint64_t)

struct steps {
    size_t element_bytes;
    widen_fn widen;
    combine_fn combine;
    divide_fn divide; /* NULL: not an average */
    round_fn round;
};

static void reduce(const struct steps *steps, void *dst, void *dst2, const void *const src[],
                   int n_src, size_t count)
{
    for (size_t at = 0; at < count; at += BLOCK) {
        const size_t n = count - at < BLOCK ? count - at : BLOCK;
        const size_t offset = at * steps->element_bytes;
        block acc;
        block v;

        steps->widen(&acc, (const char *)src[0] + offset, n);
        for (int r = 1; r < n_src; r++) {
            steps->widen(&v, (const char *)src[r] + offset, n);
            steps->combine(&acc, &v, n);
        }
        if (steps->divide)
            steps->divide(&acc, n_src, n);
        steps->round((char *)dst + offset, &acc, n);
        if (dst2)
            steps->round((char *)dst2 + offset, &acc, n);
    }
}

#define KERNEL(name, op, element, combine, divide)                                                 \
    static void name##_##op(void *dst, void *dst2, const void *const src[], int n_src,             \
                            size_t count, size_t ahead)                                            \
    {                                                                                              \
        static const struct steps steps = {sizeof(element), widen_##name, combine, divide,         \
                                           round_##name};                                          \
                                                                                                   \
        (void)ahead;                                                                               \
        reduce(&steps, dst, dst2, src, n_src, count);                                              \
    }
#define KERNELS(name, element, kind, ring)                                                         \
    KERNEL(name, sum, element, sum_##ring, NULL)                                                   \
    KERNEL(name, prod, element, prod_##ring, NULL)                                                 \
    KERNEL(name, max, element, max_##kind, NULL)                                                   \
    KERNEL(name, min, element, min_##kind, NULL)                                                   \
    KERNEL(name, avg, element, sum_##ring, divide_##kind)
KERNELS(f32, uint32_t, f32, f32)
KERNELS(f16, uint16_t, f32, f32)
KERNELS(bf16, uint16_t, f32, f32)
KERNELS(f64, uint64_t, f64, f64)
KERNELS(e4m3, uint8_t, f32, f32)
KERNELS(e5m2, uint8_t, f32, f32)
KERNELS(i8, int8_t, i64, int)
KERNELS(u8, uint8_t, u64, int)
KERNELS(i32, int32_t, i64, int)
KERNELS(u32, uint32_t, u64, int)
KERNELS(i64, int64_t, i64, int)
KERNELS(u64, uint64_t, u64, int)

static void copy(void *dst, const void *src, size_t bytes, size_t ahead)
{
    (void)ahead;
    memcpy(dst, src, bytes);
}

static void copy_stream(void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
}

#define ROW(T, name)                                                                               \
    [TUTTI_DTYPE_##T] = {name##_sum, name##_prod, name##_max, name##_min, name##_avg}
const struct tt_kernels tt_kernels_scalar = {
    .isa = "scalar",
    .reduce = {ROW(F32, f32), ROW(F16, f16), ROW(BF16, bf16), ROW(F64, f64), ROW(I8, i8),
               ROW(U8, u8), ROW(I32, i32), ROW(U32, u32), ROW(I64, i64), ROW(U64, u64),
               ROW(E4M3, e4m3), ROW(E5M2, e5m2)},
    .put = copy,
    .take = copy,
    .copy_stream = copy_stream,
    .demote = tt_demote_nothing,
};
