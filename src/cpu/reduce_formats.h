/*
 * How a stored vector becomes accumulators and back, for each format: parts_T, load_T(), unpack_T()
 * (the same from a register) and pack_T(), which gets canonical NaNs only.
 */
#ifndef TT_CPU_REDUCE_FORMATS_H
#define TT_CPU_REDUCE_FORMATS_H

/* Formats that are their own accumulator. */
#define PLAIN_FORMAT(type)                                                                         \
    typedef struct {                                                                               \
        v##type p[1];                                                                              \
    } parts_##type;                                                                                \
    V_INLINE parts_##type unpack_##type(vraw v)                                                    \
    {                                                                                              \
        return (parts_##type){{(v##type)v}};                                                       \
    }                                                                                              \
    V_INLINE parts_##type load_##type(const char *p)                                               \
    {                                                                                              \
        return unpack_##type(v_load(p));                                                           \
    }                                                                                              \
    V_INLINE vraw pack_##type(parts_##type a)                                                      \
    {                                                                                              \
        return (vraw)a.p[0];                                                                       \
    }
PLAIN_FORMAT(f32)
PLAIN_FORMAT(f64)
PLAIN_FORMAT(i8)
PLAIN_FORMAT(u8)
PLAIN_FORMAT(i32)
PLAIN_FORMAT(u32)
PLAIN_FORMAT(i64)
PLAIN_FORMAT(u64)
#undef PLAIN_FORMAT

typedef vf32x2 parts_bf16;
typedef vf32x2 parts_f16;
typedef vf32x4 parts_e4m3;
typedef vf32x4 parts_e5m2;

/* bf16 is the upper half of an fp32, so even and odd elements part without a shuffle. */
V_INLINE parts_bf16 unpack_bf16(vraw v)
{
    return (parts_bf16){{(vf32)((vu32)v << 16), (vf32)((vu32)v & 0xffff0000u)}};
}

V_INLINE parts_bf16 load_bf16(const char *p)
{
    return unpack_bf16(v_load(p));
}

V_INLINE vraw pack_bf16(parts_bf16 a)
{
    return (vraw)((v_rounded_bf16(a.p[0]) >> 16) | (v_rounded_bf16(a.p[1]) & 0xffff0000u));
}

V_INLINE parts_f16 unpack_f16(vraw v)
{
    return v_unpack_f16(v);
}

V_INLINE parts_f16 load_f16(const char *p)
{
    return v_load_f16(p);
}

V_INLINE vraw pack_f16(parts_f16 a)
{
    return v_pack_f16(a);
}

/* e5m2 is the upper half of an fp16. */
V_INLINE parts_e5m2 unpack_e5m2(vraw v)
{
    vu16x2 w = v_bytes_to_words(v);
    vf32x2 low = v_unpack_f16((vraw)(w.p[0] << 8));
    vf32x2 high = v_unpack_f16((vraw)(w.p[1] << 8));

    return (parts_e5m2){{low.p[0], low.p[1], high.p[0], high.p[1]}};
}

V_INLINE parts_e5m2 load_e5m2(const char *p)
{
    return unpack_e5m2(v_load(p));
}

/* e4m3 moved to where fp16 has exponent and mantissa is the number over 256, denormals included.
 * Only 0x7f carries into bit 7, which makes it a NaN of fp16. */
V_INLINE vraw f16_of_e4m3(vu16 w)
{
    vu16 magnitude = w & 0x7f;
    vu16 nan = (magnitude + 1) & 0x80;

    return (vraw)((magnitude << 7) | (nan << 7) | ((w & 0x80) << 8));
}

V_INLINE parts_e4m3 unpack_e4m3(vraw v)
{
    vu16x2 w = v_bytes_to_words(v);
    vf32x2 low = v_unpack_f16(f16_of_e4m3(w.p[0]));
    vf32x2 high = v_unpack_f16(f16_of_e4m3(w.p[1]));

    return (parts_e4m3){
        {low.p[0] * 256.0f, low.p[1] * 256.0f, high.p[0] * 256.0f, high.p[1] * 256.0f}};
}

V_INLINE parts_e4m3 load_e4m3(const char *p)
{
    return unpack_e4m3(v_load(p));
}

V_INLINE vu32 splat_u32(uint32_t x)
{
    return (vu32){0} + x;
}

/*
 * One fp32 to an 8-bit float with `m` mantissa bits, largest finite value `top` and smallest normal
 * number 2^`low`, both as the bits of an fp32. Normal results round in integers. For the others an
 * addition whose sum has the format's last denormal bit as its own last bit does the rounding.
 */
V_INLINE vu32 code_fp8(vf32 v, int m, uint32_t top, int low)
{
    const int shift = 23 - m;
    const uint32_t min_normal = (uint32_t)(127 + low) << 23;
    const uint32_t magic = (uint32_t)(127 + low - m + 23) << 23;
    const vu32 bits = (vu32)v & 0x7fffffffu;
    const vu32 kept = v_if_less((vi32)bits, (vi32)splat_u32(top), bits, splat_u32(top));
    vu32 normal = (kept + ((1u << (shift - 1)) - 1u) + ((kept >> shift) & 1u)) >> shift;
    vu32 denormal = (vu32)((vf32)kept + (vf32)splat_u32(magic)) - magic;
    vu32 code;

    normal -= (uint32_t)(126 + low) << m;
    code = v_if_less((vi32)kept, (vi32)splat_u32(min_normal), denormal, normal);
    code = v_if_less((vi32)splat_u32(0x7f800000u), (vi32)bits, splat_u32(0x7f), code);
    return code | (((vu32)v >> 24) & 0x80u);
}

V_INLINE vraw pack_e4m3(parts_e4m3 a)
{
    const uint32_t top = 0x43e00000u; /* 448 */

    return v_dwords_to_bytes(code_fp8(a.p[0], 3, top, -6), code_fp8(a.p[1], 3, top, -6),
                             code_fp8(a.p[2], 3, top, -6), code_fp8(a.p[3], 3, top, -6));
}

V_INLINE vraw pack_e5m2(parts_e5m2 a)
{
    const uint32_t top = 0x47600000u; /* 57344 */

    return v_dwords_to_bytes(code_fp8(a.p[0], 2, top, -14), code_fp8(a.p[1], 2, top, -14),
                             code_fp8(a.p[2], 2, top, -14), code_fp8(a.p[3], 2, top, -14));
}

#endif
