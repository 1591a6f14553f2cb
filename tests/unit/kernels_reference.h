/*
 * What the kernels must give, worked out another way: elements are decoded with ldexp() from the
 * definition of their format, every operation is done in a type so wide that rounding it afterwards
 * to the accumulator is the same as rounding once, and results are rounded to a format by searching
 * the sorted list of all its values.
 */
#ifndef KERNELS_REFERENCE_H
#define KERNELS_REFERENCE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tutti/tutti.h>

#include "cpu/kernels.h"

#if defined(__x86_64__)
__extension__ typedef __float128 ref_wide; /* 113 bits hold any operation on two fp64 */
#else
typedef long double ref_wide; /* the same on AArch64 */
#endif

enum { REF_INTEGER, REF_F64, REF_FLOAT };

struct ref_format {
    tutti_dtype dtype;
    int kind;
    int bytes;
    int is_signed;
    int exponent_bits; /* of floats of at most 32 bits */
    int mantissa_bits;
    int saturates;  /* no result beyond the largest finite value */
    uint32_t top;   /* the code of that value */
    uint64_t nan;   /* the canonical NaN */
    double *values; /* those of codes 0 .. top, and what would follow */
};

static struct ref_format ref_formats[TUTTI_N_DTYPES] = {
    {TUTTI_DTYPE_F32, REF_FLOAT, 4, 1, 8, 23, 0, 0x7f7fffff, 0x7fc00000, NULL},
    {TUTTI_DTYPE_F16, REF_FLOAT, 2, 1, 5, 10, 0, 0x7bff, 0x7e00, NULL},
    {TUTTI_DTYPE_BF16, REF_FLOAT, 2, 1, 8, 7, 0, 0x7f7f, 0x7fc0, NULL},
    {TUTTI_DTYPE_F64, REF_F64, 8, 1, 11, 52, 0, 0, 0x7ff8000000000000, NULL},
    {TUTTI_DTYPE_I8, REF_INTEGER, 1, 1, 0, 0, 0, 0, 0, NULL},
    {TUTTI_DTYPE_U8, REF_INTEGER, 1, 0, 0, 0, 0, 0, 0, NULL},
    {TUTTI_DTYPE_I32, REF_INTEGER, 4, 1, 0, 0, 0, 0, 0, NULL},
    {TUTTI_DTYPE_U32, REF_INTEGER, 4, 0, 0, 0, 0, 0, 0, NULL},
    {TUTTI_DTYPE_I64, REF_INTEGER, 8, 1, 0, 0, 0, 0, 0, NULL},
    {TUTTI_DTYPE_U64, REF_INTEGER, 8, 0, 0, 0, 0, 0, 0, NULL},
    {TUTTI_DTYPE_E4M3, REF_FLOAT, 1, 1, 4, 3, 1, 0x7e, 0x7f, NULL},
    {TUTTI_DTYPE_E5M2, REF_FLOAT, 1, 1, 5, 2, 1, 0x7b, 0x7f, NULL},
};

/* The number of a code without sign, as if no code were infinity or NaN. */
static inline double ref_value(const struct ref_format *f, uint32_t code)
{
    const int bias = (1 << (f->exponent_bits - 1)) - 1;
    const int exponent = (int)(code >> f->mantissa_bits);
    const uint32_t mantissa = code & ((1u << f->mantissa_bits) - 1);

    if (exponent == 0)
        return ldexp(mantissa, 1 - bias - f->mantissa_bits);
    return ldexp((double)mantissa + ldexp(1.0, f->mantissa_bits),
                 exponent - bias - f->mantissa_bits);
}

static inline void ref_prepare(void)
{
    for (int t = 0; t < TUTTI_N_DTYPES; t++) {
        struct ref_format *f = &ref_formats[t];

        if (f->kind != REF_FLOAT || f->bytes == 4 || f->values)
            continue;
        f->values = malloc((f->top + 2) * sizeof(double));
        if (!f->values)
            abort();
        for (uint32_t code = 0; code <= f->top + 1; code++)
            f->values[code] = ref_value(f, code);
    }
}

static inline double ref_decode(const struct ref_format *f, uint64_t code)
{
    const uint32_t sign_bit = 1u << (f->bytes * 8 - 1);
    const uint32_t magnitude = (uint32_t)code & (sign_bit - 1);
    double x;

    if (magnitude <= f->top)
        x = f->values ? f->values[magnitude] : ref_value(f, magnitude);
    else if (f->dtype != TUTTI_DTYPE_E4M3 && magnitude == f->top + 1)
        x = (double)INFINITY;
    else
        return (double)NAN;
    return code & sign_bit ? -x : x;
}

/* The code nearest to |x|; of two the even one. */
static inline uint32_t ref_nearest(const struct ref_format *f, double x)
{
    uint32_t low = 0;
    uint32_t high = f->top + 1;

    if (x >= f->values[high])
        return high;
    while (high - low > 1) { /* values[low] <= x < values[high] */
        const uint32_t middle = low + (high - low) / 2;

        if (f->values[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    if (x - f->values[low] < f->values[high] - x)
        return low;
    if (x - f->values[low] > f->values[high] - x)
        return high;
    return low & 1 ? high : low;
}

static inline uint64_t ref_encode(const struct ref_format *f, double x)
{
    const uint64_t sign = signbit(x) ? (uint64_t)1 << (f->bytes * 8 - 1) : 0;
    uint32_t code;

    if (isnan(x))
        return f->nan;
    if (f->bytes == 4) {
        const float narrow = (float)x;

        memcpy(&code, &narrow, sizeof(code));
        return code;
    }
    code = ref_nearest(f, fabs(x));
    if (f->saturates && code > f->top)
        code = f->top;
    return sign | code;
}

static inline double ref_extreme(double a, double b, int want_max)
{
    if (isnan(a) || isnan(b))
        return (double)NAN;
    if (a == 0 && b == 0) /* any negative zero wins a minimum and loses a maximum */
        return (signbit(a) != 0) == !want_max ? a : b;
    return (a > b) == want_max ? a : b;
}

/* Accumulates in fp32: fp64 holds any operation on two fp32 well enough to round it again. */
static inline uint64_t ref_reduce_float(const struct ref_format *f, int op, const uint64_t x[],
                                        int n)
{
    float acc = (float)ref_decode(f, x[0]);

    for (int r = 1; r < n; r++) {
        const double v = ref_decode(f, x[r]);

        switch (op) {
        case TUTTI_OP_PROD: acc = (float)((double)acc * v); break;
        case TUTTI_OP_MAX: acc = (float)ref_extreme((double)acc, v, 1); break;
        case TUTTI_OP_MIN: acc = (float)ref_extreme((double)acc, v, 0); break;
        default: acc = (float)((double)acc + v);
        }
    }
    return ref_encode(f, op == TUTTI_OP_AVG ? (double)(float)((double)acc / n) : (double)acc);
}

static inline uint64_t ref_reduce_f64(const struct ref_format *f, int op, const uint64_t x[], int n)
{
    double acc;
    double v;
    uint64_t bits;

    memcpy(&acc, &x[0], sizeof(acc));
    for (int r = 1; r < n; r++) {
        memcpy(&v, &x[r], sizeof(v));
        switch (op) {
        case TUTTI_OP_PROD: acc = (double)((ref_wide)acc * (ref_wide)v); break;
        case TUTTI_OP_MAX: acc = ref_extreme(acc, v, 1); break;
        case TUTTI_OP_MIN: acc = ref_extreme(acc, v, 0); break;
        default: acc = (double)((ref_wide)acc + (ref_wide)v);
        }
    }
    if (op == TUTTI_OP_AVG)
        acc = (double)((ref_wide)acc / (ref_wide)n);
    memcpy(&bits, &acc, sizeof(bits));
    return isnan(acc) ? f->nan : bits;
}

/* An integer's code as the 64-bit number of the same value. */
static inline uint64_t ref_widen(const struct ref_format *f, uint64_t code)
{
    const uint64_t sign = (uint64_t)1 << (f->bytes * 8 - 1);

    return f->is_signed ? (code ^ sign) - sign : code;
}

static inline uint64_t ref_reduce_integer(const struct ref_format *f, int op, const uint64_t x[],
                                          int n)
{
    uint64_t acc = ref_widen(f, x[0]);
    const uint64_t flip = f->is_signed ? (uint64_t)1 << 63 : 0;

    for (int r = 1; r < n; r++) {
        const uint64_t v = ref_widen(f, x[r]);

        switch (op) {
        case TUTTI_OP_PROD: acc *= v; break;
        case TUTTI_OP_MAX: acc = (acc ^ flip) < (v ^ flip) ? v : acc; break;
        case TUTTI_OP_MIN: acc = (v ^ flip) < (acc ^ flip) ? v : acc; break;
        default: acc += v;
        }
    }
    if (op == TUTTI_OP_AVG && f->is_signed && acc >> 63)
        acc = 0 - (0 - acc) / (uint64_t)n;
    else if (op == TUTTI_OP_AVG)
        acc /= (uint64_t)n;
    return f->bytes == 8 ? acc : acc & (((uint64_t)1 << (f->bytes * 8)) - 1);
}

/* The code of the result of n codes. */
static inline uint64_t ref_reduce(tutti_dtype dtype, int op, const uint64_t x[], int n)
{
    const struct ref_format *f = &ref_formats[dtype];

    if (f->kind == REF_INTEGER)
        return ref_reduce_integer(f, op, x, n);
    if (f->kind == REF_F64)
        return ref_reduce_f64(f, op, x, n);
    return ref_reduce_float(f, op, x, n);
}

/* Element k of an array, and back. */
static inline uint64_t ref_get(tutti_dtype dtype, const void *array, size_t k)
{
    const size_t bytes = (size_t)ref_formats[dtype].bytes;
    uint64_t code = 0;

    memcpy(&code, (const char *)array + k * bytes, bytes); /* little-endian machines only */
    return code;
}

static inline void ref_put(tutti_dtype dtype, void *array, size_t k, uint64_t code)
{
    const size_t bytes = (size_t)ref_formats[dtype].bytes;

    memcpy((char *)array + k * bytes, &code, bytes);
}

/* Numbers without pattern, the same in every run. */
static inline uint64_t ref_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* The sets that this machine runs, best first; NULL after the last. */
static inline const struct tt_kernels *ref_set(int k)
{
    static const char *const names[] = {"avx512", "avx2", "neon", "scalar"};

    for (int i = 0; i < 4; i++) {
        const struct tt_kernels *set = tt_kernels_get(names[i]);

        if (set && k-- == 0)
            return set;
    }
    return NULL;
}

#endif
