/*
 * Vector types of V_BYTES bytes, and the arithmetic that the compiler's vector extension spells the
 * same way for every instruction set. Included by simd_<isa>.h, which adds what differs.
 */
#ifndef TT_CPU_SIMD_TYPES_H
#define TT_CPU_SIMD_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef V_BYTES
#error "include simd_<isa>.h instead"
#endif

#define V_INLINE static inline __attribute__((always_inline, unused))
#define V_TYPE   __attribute__((vector_size(V_BYTES)))

typedef float vf32 V_TYPE;
typedef double vf64 V_TYPE;
typedef int8_t vi8 V_TYPE;
typedef uint8_t vu8 V_TYPE;
typedef int16_t vi16 V_TYPE;
typedef uint16_t vu16 V_TYPE;
typedef int32_t vi32 V_TYPE;
typedef uint32_t vu32 V_TYPE;
typedef int64_t vi64 V_TYPE;
typedef uint64_t vu64 V_TYPE;

/* One stored vector holds 1, 2 or 4 vectors' worth of fp32, always in the order of `p`. */
typedef struct {
    vf32 p[2];
} vf32x2;

typedef struct {
    vf32 p[4];
} vf32x4;

typedef struct {
    vu16 p[2];
} vu16x2;

/* fp32 bits rounded to nearest even at bit 16. In integers, because vcvtneps2bf16 flushes
 * denormals; carries go into the exponent, up to infinity. NaNs must be canonical. */
V_INLINE vu32 v_rounded_bf16_plainly(vf32 v)
{
    vu32 bits = (vu32)v;

    return bits + 0x7fffu + ((bits >> 16) & 1u);
}

/* clang 14 takes a vector comparison of converted fp16 apart into scalar ones of fp16 (30 times the
 * instructions), unless it cannot see where the vector comes from. */
V_INLINE vf32x2 v_opaque(vf32x2 a)
{
#if defined(__clang__) && defined(__x86_64__)
    __asm__("" : "+v"(a.p[0]), "+v"(a.p[1]));
#endif
    return a;
}

/* No byte outside the element range may be touched, and AVX2 and NEON have no byte masks: a rest of
 * fewer than V_BYTES bytes goes through a buffer on the stack, in pieces of 2^k bytes. */
V_INLINE void v_rest_in(unsigned char *to, const unsigned char *from, size_t bytes)
{
    size_t at = 0;

    if (V_BYTES > 16 && (bytes & 16)) {
        memcpy(to, from, 16);
        at = 16;
    }
    if (bytes & 8) {
        memcpy(to + at, from + at, 8);
        at += 8;
    }
    if (bytes & 4) {
        memcpy(to + at, from + at, 4);
        at += 4;
    }
    if (bytes & 2) {
        memcpy(to + at, from + at, 2);
        at += 2;
    }
    if (bytes & 1)
        to[at] = from[at];
}

#endif
