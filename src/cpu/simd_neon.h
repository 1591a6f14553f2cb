/* Primitives for AArch64 (its base instruction set has all that is needed, fp16 conversion too). */
#ifndef TT_CPU_SIMD_NEON_H
#define TT_CPU_SIMD_NEON_H

#include <arm_neon.h>

#define V_BYTES 16
#define V_ISA   "neon"
typedef uint8x16_t vraw;
#include "cpu/simd_types.h"

V_INLINE vraw v_load(const void *p)
{
    return vld1q_u8(p);
}

V_INLINE void v_store(void *p, vraw v)
{
    vst1q_u8(p, v);
}

/* 0 < bytes < V_BYTES; lanes beyond are 0. Not inlined: seldom needed and long. */
static __attribute__((noinline)) vraw v_load_rest(const void *p, size_t bytes)
{
    unsigned char rest[V_BYTES] = {0};

    v_rest_in(rest, p, bytes);
    return v_load(rest);
}

static __attribute__((noinline)) void v_store_rest(void *p, vraw v, size_t bytes)
{
    unsigned char rest[V_BYTES];

    v_store(rest, v);
    v_rest_in(p, rest, bytes);
}

/* AArch64 only hints at streaming (stnp), and its ordinary barriers order it: a plain store. */
V_INLINE void v_stream(void *p, vraw v)
{
    v_store(p, v);
}

V_INLINE void v_stream_end(void)
{
}

V_INLINE void v_fetch(const void *p)
{
    __builtin_prefetch(p, 0, 3);
}

V_INLINE vf32 v_nan_to_f32(vf32 v, uint32_t bits)
{
    return (vf32)vbslq_u32(vceqq_f32((float32x4_t)v, (float32x4_t)v), (uint32x4_t)v,
                           vdupq_n_u32(bits));
}

V_INLINE vf64 v_nan_to_f64(vf64 v, uint64_t bits)
{
    return (vf64)vbslq_u64(vceqq_f64((float64x2_t)v, (float64x2_t)v), (uint64x2_t)v,
                           vdupq_n_u64(bits));
}

/* Which lanes are NaN in either. */
typedef vu32 vmask;

V_INLINE vmask v_nans_f32(vf32 a, vf32 b)
{
    return (vmask)vmvnq_u32(vandq_u32(vceqq_f32((float32x4_t)a, (float32x4_t)a),
                                      vceqq_f32((float32x4_t)b, (float32x4_t)b)));
}

V_INLINE vmask v_nans_f64(vf64 a, vf64 b)
{
    return ~(vmask)vandq_u64(vceqq_f64((float64x2_t)a, (float64x2_t)a),
                             vceqq_f64((float64x2_t)b, (float64x2_t)b));
}

V_INLINE int v_any(vmask m)
{
    return vmaxvq_u32((uint32x4_t)m) != 0;
}

V_INLINE vu32 v_rounded_bf16(vf32 v)
{
    return v_rounded_bf16_plainly(v);
}

/* a < b ? x : y */
V_INLINE vu32 v_if_less(vi32 a, vi32 b, vu32 x, vu32 y)
{
    return (vu32)vbslq_u32(vcltq_s32((int32x4_t)a, (int32x4_t)b), (uint32x4_t)x, (uint32x4_t)y);
}

#define V_MAX_MIN(type, lanes, suffix)                                                             \
    V_INLINE v##type v_max_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)vmaxq_##suffix((lanes)a, (lanes)b);                                        \
    }                                                                                              \
    V_INLINE v##type v_min_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)vminq_##suffix((lanes)a, (lanes)b);                                        \
    }
V_MAX_MIN(i8, int8x16_t, s8)
V_MAX_MIN(u8, uint8x16_t, u8)
V_MAX_MIN(i32, int32x4_t, s32)
V_MAX_MIN(u32, uint32x4_t, u32)
#undef V_MAX_MIN

/* There is no 64-bit maximum. */
#define V_MAX_MIN(type, lanes, suffix)                                                             \
    V_INLINE v##type v_max_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)vbslq_##suffix(vcgtq_##suffix((lanes)a, (lanes)b), (lanes)a, (lanes)b);    \
    }                                                                                              \
    V_INLINE v##type v_min_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)vbslq_##suffix(vcgtq_##suffix((lanes)a, (lanes)b), (lanes)b, (lanes)a);    \
    }
V_MAX_MIN(i64, int64x2_t, s64)
V_MAX_MIN(u64, uint64x2_t, u64)
#undef V_MAX_MIN

V_INLINE vf32x2 v_unpack_f16(vraw v)
{
    float16x8_t h = vreinterpretq_f16_u8(v);

    return (vf32x2){{(vf32)vcvt_f32_f16(vget_low_f16(h)), (vf32)vcvt_high_f32_f16(h)}};
}

V_INLINE vf32x2 v_load_f16(const char *p)
{
    return v_unpack_f16(v_load(p));
}

V_INLINE vraw v_pack_f16(vf32x2 a)
{
    float16x4_t low = vcvt_f16_f32((float32x4_t)a.p[0]);

    return vreinterpretq_u8_f16(vcvt_high_f16_f32(low, (float32x4_t)a.p[1]));
}

V_INLINE vu16x2 v_bytes_to_words(vraw v)
{
    return (vu16x2){{(vu16)vmovl_u8(vget_low_u8(v)), (vu16)vmovl_high_u8(v)}};
}

/* Lanes below 256. */
V_INLINE vraw v_dwords_to_bytes(vu32 a, vu32 b, vu32 c, vu32 d)
{
    uint16x8_t ab = vmovn_high_u32(vmovn_u32((uint32x4_t)a), (uint32x4_t)b);
    uint16x8_t cd = vmovn_high_u32(vmovn_u32((uint32x4_t)c), (uint32x4_t)d);

    return vmovn_high_u16(vmovn_u16(ab), cd);
}

#endif
