/* Reductions and inputs: see reference.h. Written to be obviously right, not fast. */
#include "support/reference.h"

#include <fenv.h>
#include <math.h>

/* A small float: ebits of exponent, mbits of mantissa. */
struct format {
    int ebits, mbits;
    uint32_t nan;  /* canonical */
    uint32_t over; /* what is too large becomes: infinity, or the largest finite value */
    int has_inf;
};

static const struct format f16 = {5, 10, 0x7e00, 0x7c00, 1};
static const struct format bf16 = {8, 7, 0x7fc0, 0x7f80, 1};
static const struct format e4m3 = {4, 3, 0x7f, 0x7e, 0};
static const struct format e5m2 = {5, 2, 0x7f, 0x7b, 1};

static const struct format *format_of(tutti_dtype dtype)
{
    switch (dtype) {
    case TUTTI_DTYPE_F16: return &f16;
    case TUTTI_DTYPE_BF16: return &bf16;
    case TUTTI_DTYPE_E4M3: return &e4m3;
    case TUTTI_DTYPE_E5M2: return &e5m2;
    default: return NULL;
    }
}

static double decode(const struct format *f, uint32_t code)
{
    const int bias = (1 << (f->ebits - 1)) - 1;
    const uint32_t mask = (1u << f->mbits) - 1;
    const int exponent = (int)(code >> f->mbits) & ((1 << f->ebits) - 1);
    const double mantissa = (double)(code & mask);
    const double sign = (code >> (f->ebits + f->mbits)) != 0 ? -1.0 : 1.0;

    if (f->has_inf && exponent == (1 << f->ebits) - 1)
        return (code & mask) != 0 ? (double)NAN : sign * (double)INFINITY;
    if (!f->has_inf && (code & 0x7f) == 0x7f)
        return (double)NAN;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - f->mbits);
    return sign * ldexp(mantissa + (double)(mask + 1), exponent - bias - f->mbits);
}

static uint32_t encode(const struct format *f, double value)
{
    const int bias = (1 << (f->ebits - 1)) - 1;
    const uint32_t one = 1u << f->mbits;
    const uint32_t sign = signbit(value) ? 1u << (f->ebits + f->mbits) : 0;
    const double size = fabs(value);
    uint32_t code;
    int exponent;
    double steps;

    if (isnan(value))
        return f->nan;
    if (size == 0)
        return sign;
    if (isinf(value))
        return sign | f->over;
    exponent = ilogb(size);
    if (exponent < 1 - bias)
        exponent = 1 - bias;
    if (exponent > bias + 1)
        return sign | f->over;
    steps = nearbyint(ldexp(size, f->mbits - exponent)); /* ties to even */
    code = (uint32_t)steps; /* from 0 to 2 * one; below `one` it is denormal */
    if (code >= one)
        code += (uint32_t)(exponent + bias - 1) << f->mbits; /* carries into the exponent */
    return sign | (code > f->over ? f->over : code);
}

static double load(const void *element, tutti_dtype dtype)
{
    union {
        uint64_t u64;
        int64_t i64;
        uint32_t u32;
        int32_t i32;
        uint16_t u16;
        uint8_t u8;
        int8_t i8;
        float f32;
        double f64;
    } x = {0};

    memcpy(&x, element, tutti_dtype_bytes(dtype));
    switch (dtype) {
    case TUTTI_DTYPE_F32: return (double)x.f32;
    case TUTTI_DTYPE_F64: return x.f64;
    case TUTTI_DTYPE_I8: return x.i8;
    case TUTTI_DTYPE_U8: return x.u8;
    case TUTTI_DTYPE_I32: return x.i32;
    case TUTTI_DTYPE_U32: return x.u32;
    case TUTTI_DTYPE_I64: return (double)x.i64;
    case TUTTI_DTYPE_U64: return (double)x.u64;
    case TUTTI_DTYPE_F16:
    case TUTTI_DTYPE_BF16: return decode(format_of(dtype), x.u16);
    case TUTTI_DTYPE_E4M3:
    case TUTTI_DTYPE_E5M2: return decode(format_of(dtype), x.u8);
    }
    return 0;
}

double t_value(const void *element, tutti_dtype dtype)
{
    return load(element, dtype);
}

static void store_small(uint32_t code, size_t bytes, void *element)
{
    const uint8_t u8 = (uint8_t)code;
    const uint16_t u16 = (uint16_t)code;

    if (bytes == 1)
        memcpy(element, &u8, 1);
    else
        memcpy(element, &u16, 2);
}

static void store_float(double value, tutti_dtype dtype, void *element)
{
    const struct format *f = format_of(dtype);

    if (f != NULL) {
        store_small(encode(f, value), tutti_dtype_bytes(dtype), element);
    } else if (dtype == TUTTI_DTYPE_F32) {
        const float f32 = (float)value;
        const uint32_t nan = 0x7fc00000u;

        memcpy(element, isnan(value) ? (const void *)&nan : (const void *)&f32, 4);
    } else {
        const uint64_t nan = 0x7ff8000000000000u;

        memcpy(element, isnan(value) ? (const void *)&nan : (const void *)&value, 8);
    }
}

void t_round(double value, tutti_dtype dtype, void *element_out)
{
    const int64_t integer = value < 9e18 && value > -9e18 ? (int64_t)value : 0;

    if (format_of(dtype) != NULL || dtype == TUTTI_DTYPE_F32 || dtype == TUTTI_DTYPE_F64)
        store_float(value, dtype, element_out);
    else
        memcpy(element_out, &integer, tutti_dtype_bytes(dtype)); /* little-endian */
}

static int precedes(double a, double b)
{
    return a < b || (a == b && signbit(a) && !signbit(b));
}

/* One step in fp32 (wide: fp64). Every operand is exact in double; one operation of the wider type
 * and a rounding to fp32 would round twice, so fp32 is used as such. */
static double step_float(double a, double b, tutti_op op, int wide)
{
    const float x = (float)a, y = (float)b;

    switch (op) {
    case TUTTI_OP_PROD: return wide ? a * b : (double)(x * y);
    case TUTTI_OP_MAX: return isnan(a) || isnan(b) ? (double)NAN : precedes(a, b) ? b : a;
    case TUTTI_OP_MIN: return isnan(a) || isnan(b) ? (double)NAN : precedes(b, a) ? b : a;
    default: return wide ? a + b : (double)(x + y);
    }
}

static void reduce_float(unsigned char *dst, const void *const src[], int n, size_t i,
                         tutti_dtype dtype, tutti_op op)
{
    const size_t bytes = tutti_dtype_bytes(dtype);
    const int wide = dtype == TUTTI_DTYPE_F64;
    double sum = load((const unsigned char *)src[0] + i * bytes, dtype);

    for (int r = 1; r < n; r++)
        sum = step_float(sum, load((const unsigned char *)src[r] + i * bytes, dtype), op, wide);
    if (op == TUTTI_OP_AVG)
        sum = wide ? sum / n : (double)((float)sum / (float)n);
    store_float(sum, dtype, dst + i * bytes);
}

/* Signed integers widened with their sign, unsigned ones with zeros. */
static uint64_t load_integer(const unsigned char *element, tutti_dtype dtype)
{
    const size_t bytes = tutti_dtype_bytes(dtype);
    const int is_signed =
        dtype == TUTTI_DTYPE_I8 || dtype == TUTTI_DTYPE_I32 || dtype == TUTTI_DTYPE_I64;
    uint64_t x = 0;

    memcpy(&x, element, bytes);
    if (is_signed && bytes < 8 && ((x >> (8 * bytes - 1)) & 1) != 0)
        x |= ~(uint64_t)0 << (8 * bytes);
    return x;
}

static int is_signed_dtype(tutti_dtype dtype)
{
    return dtype == TUTTI_DTYPE_I8 || dtype == TUTTI_DTYPE_I32 || dtype == TUTTI_DTYPE_I64;
}

static uint64_t step_integer(uint64_t a, uint64_t b, tutti_dtype dtype, tutti_op op)
{
    const int a_less = is_signed_dtype(dtype) ? (int64_t)a < (int64_t)b : a < b;

    switch (op) {
    case TUTTI_OP_PROD: return a * b;
    case TUTTI_OP_MAX: return a_less ? b : a;
    case TUTTI_OP_MIN: return a_less ? a : b;
    default: return a + b;
    }
}

static void reduce_integer(unsigned char *dst, const void *const src[], int n, size_t i,
                           tutti_dtype dtype, tutti_op op)
{
    const size_t bytes = tutti_dtype_bytes(dtype);
    uint64_t sum = load_integer((const unsigned char *)src[0] + i * bytes, dtype);

    for (int r = 1; r < n; r++)
        sum = step_integer(sum, load_integer((const unsigned char *)src[r] + i * bytes, dtype),
                           dtype, op);
    if (op == TUTTI_OP_AVG) /* of the whole sum: only 64-bit sums wrap before they are divided */
        sum = is_signed_dtype(dtype) ? (uint64_t)((int64_t)sum / n) : sum / (uint64_t)n;
    memcpy(dst + i * bytes, &sum, bytes); /* the low bytes: sums and products wrap */
}

static int is_float(tutti_dtype dtype)
{
    return format_of(dtype) != NULL || dtype == TUTTI_DTYPE_F32 || dtype == TUTTI_DTYPE_F64;
}

void t_reference_reduce(void *dst, const void *const src[], int n, size_t count, tutti_dtype dtype,
                        tutti_op op)
{
    fenv_t callers;

    fegetenv(&callers);
    fesetenv(FE_DFL_ENV);
    for (size_t i = 0; i < count; i++)
        if (is_float(dtype))
            reduce_float(dst, src, n, i, dtype, op);
        else
            reduce_integer(dst, src, n, i, dtype, op);
    fesetenv(&callers);
}
