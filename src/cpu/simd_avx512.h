/* Primitives for AVX-512 F, BW, VL and DQ, which every server with AVX-512 has. */
#ifndef TT_CPU_SIMD_AVX512_H
#define TT_CPU_SIMD_AVX512_H

#include <immintrin.h>

#define V_BYTES 64
#define V_ISA   "avx512"
typedef __m512i vraw;
#include "cpu/simd_types.h"

V_INLINE vraw v_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

V_INLINE void v_store(void *p, vraw v)
{
    _mm512_storeu_si512(p, v);
}

/* 0 < bytes < V_BYTES; lanes beyond are 0. Masked lanes are not accessed, so they cannot fault. */
V_INLINE vraw v_load_rest(const void *p, size_t bytes)
{
    return _mm512_maskz_loadu_epi8(~0ull >> (64 - bytes), p);
}

V_INLINE void v_store_rest(void *p, vraw v, size_t bytes)
{
    _mm512_mask_storeu_epi8(p, ~0ull >> (64 - bytes), v);
}

V_INLINE void v_stream(void *p, vraw v) /* p aligned */
{
    _mm512_stream_si512(p, v);
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
    __m512 other = _mm512_castsi512_ps(_mm512_set1_epi32((int)bits));

    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), other);
}

V_INLINE vf64 v_nan_to_f64(vf64 v, uint64_t bits)
{
    __m512d other = _mm512_castsi512_pd(_mm512_set1_epi64((long long)bits));

    return _mm512_mask_mov_pd(v, _mm512_cmp_pd_mask(v, v, _CMP_UNORD_Q), other);
}

/* Which lanes are NaN in either. */
typedef uint32_t vmask;

V_INLINE vmask v_nans_f32(vf32 a, vf32 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);
}

V_INLINE vmask v_nans_f64(vf64 a, vf64 b)
{
    return _mm512_cmp_pd_mask(a, b, _CMP_UNORD_Q);
}

V_INLINE int v_any(vmask m)
{
    return m != 0;
}

/* fp32 bits rounded to nearest even at bit 16: half is added, less 1 where bit 16 is even. */
V_INLINE vu32 v_rounded_bf16(vf32 v)
{
    vraw bits = (vraw)v;
    vraw even = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));

    return (vu32)_mm512_mask_add_epi32(even, odd, bits, _mm512_set1_epi32(0x8000));
}

/* a < b ? x : y */
V_INLINE vu32 v_if_less(vi32 a, vi32 b, vu32 x, vu32 y)
{
    return (vu32)_mm512_mask_mov_epi32((vraw)y, _mm512_cmplt_epi32_mask((vraw)a, (vraw)b), (vraw)x);
}

#define V_MAX_MIN(type, suffix)                                                                    \
    V_INLINE v##type v_max_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)_mm512_max_##suffix((vraw)a, (vraw)b);                                     \
    }                                                                                              \
    V_INLINE v##type v_min_##type(v##type a, v##type b)                                            \
    {                                                                                              \
        return (v##type)_mm512_min_##suffix((vraw)a, (vraw)b);                                     \
    }
V_MAX_MIN(i8, epi8)
V_MAX_MIN(u8, epu8)
V_MAX_MIN(i32, epi32)
V_MAX_MIN(u32, epu32)
V_MAX_MIN(i64, epi64)
V_MAX_MIN(u64, epu64)
#undef V_MAX_MIN

V_INLINE vf32x2 v_unpack_f16(vraw v)
{
    return v_opaque((vf32x2){{_mm512_cvtph_ps(_mm512_castsi512_si256(v)),
                              _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1))}});
}

/* The same from memory: the conversion then needs no shuffle. */
V_INLINE vf32x2 v_load_f16(const char *p)
{
    return v_opaque((vf32x2){{_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)),
                              _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p + 32)))}});
}

V_INLINE vraw v_pack_f16(vf32x2 a)
{
    __m256i low = _mm512_cvtps_ph(a.p[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i high = _mm512_cvtps_ph(a.p[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

V_INLINE vu16x2 v_bytes_to_words(vraw v)
{
    return (vu16x2){{(vu16)_mm512_cvtepu8_epi16(_mm512_castsi512_si256(v)),
                     (vu16)_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(v, 1))}};
}

/* Lanes below 256. */
V_INLINE vraw v_dwords_to_bytes(vu32 a, vu32 b, vu32 c, vu32 d)
{
    __m256i ab = _mm256_set_m128i(_mm512_cvtepi32_epi8((vraw)b), _mm512_cvtepi32_epi8((vraw)a));
    __m256i cd = _mm256_set_m128i(_mm512_cvtepi32_epi8((vraw)d), _mm512_cvtepi32_epi8((vraw)c));

    return _mm512_inserti64x4(_mm512_castsi256_si512(ab), cd, 1);
}

#endif
