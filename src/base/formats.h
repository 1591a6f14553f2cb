/* Conversions of single elements, in integers, as simple as they can be said: the reference for
 * every instruction set, and what GPU kernels use. */
#ifndef TT_BASE_FORMATS_H
#define TT_BASE_FORMATS_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define TT_FORMAT_FN static __device__ __forceinline__
#else
#define TT_FORMAT_FN static inline
#endif

#define TT_F32_NAN 0x7fc00000u
#define TT_F64_NAN 0x7ff8000000000000u

TT_FORMAT_FN float tt_f32_of_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

TT_FORMAT_FN uint32_t tt_bits_of_f32(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

TT_FORMAT_FN double tt_f64_of_bits(uint64_t bits)
{
    double x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

TT_FORMAT_FN uint64_t tt_bits_of_f64(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

/* ---------------------------------------------------- accumulator to element: rounds once ----- */

TT_FORMAT_FN uint32_t tt_f32_of_wide(float x)
{
    return x != x ? TT_F32_NAN : tt_bits_of_f32(x);
}

TT_FORMAT_FN uint64_t tt_f64_of_wide(double x)
{
    return x != x ? TT_F64_NAN : tt_bits_of_f64(x);
}

TT_FORMAT_FN uint16_t tt_bf16_of_wide(float x)
{
    const uint32_t bits = tt_bits_of_f32(x);

    if (x != x)
        return TT_F32_NAN >> 16;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/*
 * The magnitude of a finite fp32 in a format with `m` mantissa bits and smallest normal number
 * 2^low, to nearest even, as if its exponent had no end. 0 < m < 23.
 */
TT_FORMAT_FN uint32_t tt_round_to_small(uint32_t magnitude, int m, int low)
{
    const int exponent = (int)(magnitude >> 23) - 127;
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    int shift = 23 - m;
    uint32_t kept;
    uint32_t lost;

    if (exponent < low)
        shift += low - exponent;
    if (shift > 25) /* less than half of the smallest number */
        return 0;
    kept = mantissa >> shift;
    lost = mantissa & ((1u << shift) - 1u);
    if (lost > 1u << (shift - 1) || (lost == 1u << (shift - 1) && (kept & 1u)))
        kept++;
    if (exponent > low) /* kept has its leading 1 at bit m, which counts as one exponent step */
        kept += (uint32_t)(exponent - low) << m;
    return kept;
}

TT_FORMAT_FN uint16_t tt_f16_of_wide(float x)
{
    const uint32_t bits = tt_bits_of_f32(x);
    const uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;

    if (x != x)
        return 0x7e00;
    magnitude = tt_round_to_small(magnitude, 10, -14); /* infinity becomes something too large */
    return (uint16_t)(sign | (magnitude > 0x7c00 ? 0x7c00 : magnitude));
}

TT_FORMAT_FN uint8_t tt_fp8_of_wide(float x, int m, int low, uint32_t largest)
{
    const uint32_t bits = tt_bits_of_f32(x);
    const uint32_t sign = bits >> 24 & 0x80u;
    uint32_t magnitude = bits & 0x7fffffffu;

    if (x != x)
        return 0x7f;
    magnitude = tt_round_to_small(magnitude, m, low);
    return (uint8_t)(sign | (magnitude > largest ? largest : magnitude));
}

TT_FORMAT_FN uint8_t tt_e4m3_of_wide(float x)
{
    return tt_fp8_of_wide(x, 3, -6, 0x7e);
}

TT_FORMAT_FN uint8_t tt_e5m2_of_wide(float x)
{
    return tt_fp8_of_wide(x, 2, -14, 0x7b);
}

/* ---------------------------------------------------- element to accumulator: exact ----------- */

TT_FORMAT_FN float tt_wide_of_f32(uint32_t e)
{
    return tt_f32_of_bits(e);
}

TT_FORMAT_FN double tt_wide_of_f64(uint64_t e)
{
    return tt_f64_of_bits(e);
}

TT_FORMAT_FN float tt_wide_of_bf16(uint16_t e)
{
    return tt_f32_of_bits((uint32_t)e << 16);
}

TT_FORMAT_FN float tt_wide_of_f16(uint16_t e)
{
    const uint32_t sign = (uint32_t)(e & 0x8000u) << 16;
    const uint32_t exponent = e >> 10 & 31u;
    const uint32_t mantissa = e & 0x3ffu;

    if (exponent == 31)
        return tt_f32_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) { /* the sign by hand: -0 */
        return tt_f32_of_bits(sign | tt_bits_of_f32((float)mantissa * 0x1p-24f));
    }
    return tt_f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

TT_FORMAT_FN float tt_wide_of_e5m2(uint8_t e)
{
    return tt_wide_of_f16((uint16_t)(e << 8));
}

TT_FORMAT_FN float tt_wide_of_e4m3(uint8_t e)
{
    const uint32_t sign = (uint32_t)(e & 0x80u) << 24;
    const uint32_t exponent = e >> 3 & 15u;
    const uint32_t mantissa = e & 7u;

    if ((e & 0x7fu) == 0x7f)
        return tt_f32_of_bits(TT_F32_NAN);
    if (exponent == 0)
        return tt_f32_of_bits(sign | tt_bits_of_f32((float)mantissa * 0x1p-9f));
    return tt_f32_of_bits(sign | (exponent + 120) << 23 | mantissa << 20);
}

#endif
