/*
 * The arithmetic of one vector: first() takes in a source, next() adds another one, last() makes
 * the result, but for its NaNs: nans() finds them in two results and clean() makes them canonical.
 * `op` is a constant wherever these are used, so the branches vanish.
 *
 * MAX and MIN of floats work on the bits as integers that sort like the numbers (-0 below +0), with
 * every NaN turned into the integer that wins: fewer rules than any floating-point maximum has.
 */
#ifndef TT_CPU_REDUCE_OPS_H
#define TT_CPU_REDUCE_OPS_H

#include <tutti/tutti.h>

#define F32_NAN 0x7fc00000u
#define F64_NAN 0x7ff8000000000000u

/* Bits to sortable integer, and back: its own inverse. */
V_INLINE vf32 sortable_f32(vf32 v)
{
    vi32 bits = (vi32)v;

    return (vf32)(bits ^ (vi32)((vu32)(bits >> 31) >> 1));
}

V_INLINE vf64 sortable_f64(vf64 v)
{
    vi64 bits = (vi64)v;

    return (vf64)(bits ^ (vi64)((vu64)(bits >> 63) >> 1));
}

V_INLINE vf32 first_f32(vf32 v, int op)
{
    if (op == TUTTI_OP_MAX)
        return sortable_f32(v_nan_to_f32(v, UINT32_MAX >> 1));
    if (op == TUTTI_OP_MIN)
        return sortable_f32(v_nan_to_f32(v, UINT32_MAX));
    return v;
}

V_INLINE vf64 first_f64(vf64 v, int op)
{
    if (op == TUTTI_OP_MAX)
        return sortable_f64(v_nan_to_f64(v, UINT64_MAX >> 1));
    if (op == TUTTI_OP_MIN)
        return sortable_f64(v_nan_to_f64(v, UINT64_MAX));
    return v;
}

V_INLINE vf32 next_f32(vf32 acc, vf32 v, int op)
{
    switch (op) {
    case TUTTI_OP_PROD: return acc * v;
    case TUTTI_OP_MAX: return (vf32)v_max_i32((vi32)acc, (vi32)first_f32(v, op));
    case TUTTI_OP_MIN: return (vf32)v_min_i32((vi32)acc, (vi32)first_f32(v, op));
    default: return acc + v;
    }
}

V_INLINE vf64 next_f64(vf64 acc, vf64 v, int op)
{
    switch (op) {
    case TUTTI_OP_PROD: return acc * v;
    case TUTTI_OP_MAX: return (vf64)v_max_i64((vi64)acc, (vi64)first_f64(v, op));
    case TUTTI_OP_MIN: return (vf64)v_min_i64((vi64)acc, (vi64)first_f64(v, op));
    default: return acc + v;
    }
}

V_INLINE vf32 last_f32(vf32 acc, int n_src, int op)
{
    if (op == TUTTI_OP_MAX || op == TUTTI_OP_MIN)
        acc = sortable_f32(acc);
    if (op == TUTTI_OP_AVG)
        acc = acc / (float)n_src;
    return acc;
}

V_INLINE vmask nans_f32(vf32 a, vf32 b)
{
    return v_nans_f32(a, b);
}

V_INLINE vf32 clean_f32(vf32 v)
{
    return v_nan_to_f32(v, F32_NAN);
}

V_INLINE vf64 last_f64(vf64 acc, int n_src, int op)
{
    if (op == TUTTI_OP_MAX || op == TUTTI_OP_MIN)
        acc = sortable_f64(acc);
    if (op == TUTTI_OP_AVG)
        acc = acc / (double)n_src;
    return acc;
}

V_INLINE vmask nans_f64(vf64 a, vf64 b)
{
    return v_nans_f64(a, b);
}

V_INLINE vf64 clean_f64(vf64 v)
{
    return v_nan_to_f64(v, F64_NAN);
}

/* Sums and products that wrap are the same in any width, so these stay in their own. Unsigned,
 * because signed overflow is undefined. */
#define INTEGER_OPS(type, unsigned_type)                                                           \
    V_INLINE v##type first_##type(v##type v, int op)                                               \
    {                                                                                              \
        (void)op;                                                                                  \
        return v;                                                                                  \
    }                                                                                              \
    V_INLINE v##type next_##type(v##type acc, v##type v, int op)                                   \
    {                                                                                              \
        switch (op) {                                                                              \
        case TUTTI_OP_PROD: return (v##type)((v##unsigned_type)acc * (v##unsigned_type)v);         \
        case TUTTI_OP_MAX: return v_max_##type(acc, v);                                            \
        case TUTTI_OP_MIN: return v_min_##type(acc, v);                                            \
        default: return (v##type)((v##unsigned_type)acc + (v##unsigned_type)v);                    \
        }                                                                                          \
    }                                                                                              \
    V_INLINE v##type last_##type(v##type acc, int n_src, int op)                                   \
    {                                                                                              \
        (void)n_src;                                                                               \
        (void)op;                                                                                  \
        return acc;                                                                                \
    }                                                                                              \
    V_INLINE vmask nans_##type(v##type a, v##type b)                                               \
    {                                                                                              \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        return (vmask){0};                                                                         \
    }                                                                                              \
    V_INLINE v##type clean_##type(v##type v)                                                       \
    {                                                                                              \
        return v;                                                                                  \
    }
INTEGER_OPS(i8, u8)
INTEGER_OPS(u8, u8)
INTEGER_OPS(i32, u32)
INTEGER_OPS(u32, u32)
INTEGER_OPS(i64, u64)
INTEGER_OPS(u64, u64)
#undef INTEGER_OPS

#endif
