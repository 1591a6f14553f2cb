/* Primitives for AVX2 and F16C (Haswell, Zen and later). */
#ifndef TT_CPU_SIMD_AVX2_H
#define TT_CPU_SIMD_AVX2_H

#include <immintrin.h>

#define V_BYTES 32
#define V_ISA   "avx2"
typedef __m256i vraw;
#include "cpu/simd_types.h"

V_INLINE vraw v_load(const void *p)
{
    return _mm256_loadu_si256(p);
}

V_INLINE void v_store(void *p, vraw v)
{
    _mm256_storeu_si256(p, v);
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

V_INLINE void v_stream(void *p, vraw v) /* p aligned */
{
    _mm256_stream_si256(p, v);
}

V_INLINE void v_stream_end(void)
{
    _mm_sfence();
}

V_INLINE void v_fetch(const void *p)
{
    _mm_prefetch(p, _MM_HINT_T0);
}

V_INLINE vf32 v_nan_to_f32(vf32 v, uint32_t bits)
{
    __m256 other = _mm256_castsi256_ps(_mm256_set1_epi32((int)bits));

    return _mm256_blendv_ps(v, other, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}

V_INLINE vf64 v_nan_to_f64(vf64 v, uint64_t bits)
{
    __m256d other = _mm256_castsi256_pd(_mm256_set1_epi64x((long long)bits));

    return _mm256_blendv_pd(v, other, _mm256_cmp_pd(v, v, _CMP_UNORD_Q));
}

/* Which lanes are NaN in either. */
typedef vu32 vmask;

V_INLINE vmask v_nans_f32(vf32 a, vf32 b)
{
    return (vmask)_mm256_cmp_ps(a, b, _CMP_UNORD_Q);
}

V_INLINE vmask v_nans_f64(vf64 a, vf64 b)
{
    return (vmask)_mm256_cmp_pd(a, b, _CMP_UNORD_Q);
}

V_INLINE int v_any(vmask m)
{
    return !_mm256_testz_si256((vraw)m, (vraw)m);
}

V_INLINE vu32 v_rounded_bf16(vf32 v)
{
    return v_rounded_bf16_plainly(v);
}

/* a < b ? x : y */
V_INLINE vu32 v_if_less(vi32 a, vi32 b, vu32 x, vu32 y)
{
    return (vu32)_mm256_blendv_epi8((vraw)y, (vraw)x, _mm256_cmpgt_epi32((vraw)b, (vraw)a));
}

#define V_MAX_MIN(type, suffix)                                                                    \
    V_INLINE v##type v_max_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)_mm256_max_##suffix((vraw)a, (vraw)b);                                     \
    }                                                                                              \
    V_INLINE v##type v_min_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)_mm256_min_##suffix((vraw)a, (vraw)b);                                     \
    }
V_MAX_MIN(i8, epi8)
V_MAX_MIN(u8, epu8)
V_MAX_MIN(i32, epi32)
V_MAX_MIN(u32, epu32)
#undef V_MAX_MIN

/* No 64-bit maximum before AVX-512: the comparison is signed, `flip` makes it unsigned. */
V_INLINE vraw v_greater_64(vraw a, vraw b, vraw flip)
{
    return _mm256_cmpgt_epi64(_mm256_xor_si256(a, flip), _mm256_xor_si256(b, flip));
}

#define V_MAX_MIN(type, flip)                                                                      \
    V_INLINE v##type v_max_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        vraw greater = v_greater_64((vraw)a, (vraw)b, _mm256_set1_epi64x(flip));                   \
        return (v##type)_mm256_blendv_epi8((vraw)b, (vraw)a, greater);                             \
    }                                                                                              \
    V_INLINE v##type v_min_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        vraw greater = v_greater_64((vraw)a, (vraw)b, _mm256_set1_epi64x(flip));                   \
        return (v##type)_mm256_blendv_epi8((vraw)a, (vraw)b, greater);                             \
    }
V_MAX_MIN(i64, 0)
V_MAX_MIN(u64, INT64_MIN)
#undef V_MAX_MIN

V_INLINE vf32x2 v_unpack_f16(vraw v)
{
    return v_opaque((vf32x2){{_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                              _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))}});
}

/* The same from memory: the conversion then needs no shuffle. */
V_INLINE vf32x2 v_load_f16(const char *p)
{
    return v_opaque((vf32x2){{_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                              _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16)))}});
}

V_INLINE vraw v_pack_f16(vf32x2 a)
{
    return _mm256_set_m128i(_mm256_cvtps_ph(a.p[1], _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(a.p[0], _MM_FROUND_TO_NEAREST_INT));
}

V_INLINE vu16x2 v_bytes_to_words(vraw v)
{
    return (vu16x2){{(vu16)_mm256_cvtepu8_epi16(_mm256_castsi256_si128(v)),
                     (vu16)_mm256_cvtepu8_epi16(_mm256_extracti128_si256(v, 1))}};
}

/* Lanes below 256. The packs work within 128-bit halves, which leaves dwords to put in order. */
V_INLINE vraw v_dwords_to_bytes(vu32 a, vu32 b, vu32 c, vu32 d)
{
    vraw ab = _mm256_packus_epi32((vraw)a, (vraw)b);
    vraw cd = _mm256_packus_epi32((vraw)c, (vraw)d);

    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

#endif
