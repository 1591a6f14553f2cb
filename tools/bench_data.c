/*
 * Input values, and the check of every element of a result.
 *
 * An input is a small integer that depends on rank, index and iteration (so what comes from a wrong
 * rank, place or time is seen), below a bound at which sums over all ranks are exact in the dtype (so
 * the order of additions cannot excuse a difference). Results are compared bit by bit.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK  1024
#define POISON 0xa5

/* ---- dtypes ---- */

/* Bits of x >= 0 in a small binary float: round to nearest even, saturate at `largest`. */
static uint64_t encode_float(double x, int mantissa_bits, int bias, uint64_t largest)
{
    int exponent;
    double mantissa;
    double rest;
    uint64_t whole;
    uint64_t bits;

    if (x == 0)
        return 0;
    (void)frexp(x, &exponent);
    exponent--; /* x = 1.m * 2^exponent */
    if (exponent < 1 - bias)
        exponent = 1 - bias;
    mantissa = ldexp(x, mantissa_bits - exponent);
    whole = (uint64_t)mantissa;
    rest = mantissa - (double)whole;
    whole += rest > 0.5 || (rest == 0.5 && (whole & 1));
    bits = ((uint64_t)(exponent + bias - 1) << mantissa_bits) + whole;
    return bits < largest ? bits : largest;
}

static uint64_t encode(tutti_dtype dtype, double x)
{
    float f = (float)x;
    uint32_t f_bits;
    uint64_t d_bits;

    switch (dtype) {
    case TUTTI_DTYPE_F32: memcpy(&f_bits, &f, 4); return f_bits;
    case TUTTI_DTYPE_F64: memcpy(&d_bits, &x, 8); return d_bits;
    case TUTTI_DTYPE_F16: return encode_float(f, 10, 15, 0x7c00);
    case TUTTI_DTYPE_BF16: return encode_float(f, 7, 127, 0x7f80);
    case TUTTI_DTYPE_E4M3: return encode_float(f, 3, 7, 0x7e);
    case TUTTI_DTYPE_E5M2: return encode_float(f, 2, 15, 0x7b);
    default: return (uint64_t)x;
    }
}

/* The largest integer up to which all integers are exact (or sums do not wrap). */
static uint32_t exact_up_to(tutti_dtype dtype)
{
    switch (dtype) {
    case TUTTI_DTYPE_BF16: return 256;
    case TUTTI_DTYPE_F16: return 2048;
    case TUTTI_DTYPE_E4M3: return 16;
    case TUTTI_DTYPE_E5M2: return 8;
    case TUTTI_DTYPE_I8: return 127;
    case TUTTI_DTYPE_U8: return 255;
    default: return 1u << 24;
    }
}

void bench_values_make(const struct bench_shape *shape, struct bench_values *values)
{
    const tutti_dtype dtype = shape->cell.dtype;
    const tutti_op op = shape->cell.op;
    const uint32_t n = (uint32_t)shape->n_ranks;
    const int reduces = bench_traits[shape->cell.id].reduces;
    const int sums = reduces && (op == TUTTI_OP_SUM || op == TUTTI_OP_AVG);
    uint32_t modulus = exact_up_to(dtype) / (sums ? n : 1);

    modulus = modulus > 251 ? 251 : modulus < 2 ? 2 : modulus;
    values->modulus = modulus;
    values->element_bytes = shape->element_bytes;
    values->n_results = sums ? modulus * n + 1 : modulus + 8;
    values->encoded = cli_alloc((modulus + 8) * sizeof(uint64_t));
    values->result = cli_alloc(values->n_results * sizeof(uint64_t));
    for (uint32_t i = 0; i < modulus + 8; i++)
        values->encoded[i] = encode(dtype, i);
    for (uint32_t i = 0; i < values->n_results; i++) {
        double x = i;

        if (sums && op == TUTTI_OP_AVG)
            x = dtype == TUTTI_DTYPE_F64 ? x / n : (double)((float)i / (float)n);
        values->result[i] = encode(dtype, x);
    }
}

void bench_values_free(struct bench_values *values)
{
    free(values->encoded);
    free(values->result);
}

/* ---- values ---- */

static uint32_t seed(int rank, size_t index, uint32_t iteration)
{
    const uint64_t i = index;

    return (uint32_t)i * 0x9e3779b1u + (uint32_t)(i >> 32) * 0x7feb352du +
           ((uint32_t)rank + 1) * 0x85ebca77u + iteration * 0xc2b2ae3du;
}

/* Inputs index .. index + BLOCK of a rank. For products: ones, and a two on at most three ranks. */
static void input_block(const struct bench_shape *shape, uint32_t modulus, int rank, size_t index,
                        uint32_t iteration, uint32_t *out)
{
    const uint32_t start = seed(rank, index, iteration);
    const int product = bench_traits[shape->cell.id].reduces && shape->cell.op == TUTTI_OP_PROD;
    const uint32_t n = (uint32_t)shape->n_ranks;

    for (uint32_t k = 0; k < BLOCK; k++) {
        uint32_t h = start + k * 0x9e3779b1u;

        h = (h ^ (h >> 15)) * 0x2c1b3c6du;
        out[k] = ((h >> 16) * modulus) >> 16;
    }
    if (!product)
        return;
    for (uint32_t k = 0; k < BLOCK; k++) {
        const uint32_t turn = ((uint32_t)rank + (uint32_t)index + k + iteration) % n;

        out[k] = turn < 3 ? 1 + (out[k] & 1) : 1;
    }
}

static void store_block(const uint32_t *ints, const uint64_t *bits, size_t element_bytes, size_t n,
                        void *out)
{
    switch (element_bytes) {
    case 1:
        for (size_t k = 0; k < n; k++)
            ((uint8_t *)out)[k] = (uint8_t)bits[ints[k]];
        break;
    case 2:
        for (size_t k = 0; k < n; k++)
            ((uint16_t *)out)[k] = (uint16_t)bits[ints[k]];
        break;
    case 4:
        for (size_t k = 0; k < n; k++)
            ((uint32_t *)out)[k] = (uint32_t)bits[ints[k]];
        break;
    default:
        for (size_t k = 0; k < n; k++)
            ((uint64_t *)out)[k] = bits[ints[k]];
        break;
    }
}

void bench_fill(const struct bench_shape *shape, const struct bench_values *values,
                uint32_t iteration, void *send)
{
    bench_fill_part(shape, values, iteration, 0, shape->n_send, send);
}

void bench_fill_part(const struct bench_shape *shape, const struct bench_values *values,
                     uint32_t iteration, size_t from, size_t to, void *send)
{
    uint32_t ints[BLOCK];

    for (size_t i = from; i < to; i += BLOCK) {
        const size_t n = to - i < BLOCK ? to - i : BLOCK;

        input_block(shape, values->modulus, shape->rank, i, iteration, ints);
        store_block(ints, values->encoded, values->element_bytes, n,
                    (char *)send + i * values->element_bytes);
    }
}

void bench_poison(void *recv, size_t bytes)
{
    memset(recv, POISON, bytes);
}

/* ---- check ---- */

static void reduce_block(const struct bench_shape *shape, uint32_t modulus, size_t index,
                         uint32_t iteration, uint32_t *out)
{
    uint32_t ints[BLOCK];

    input_block(shape, modulus, 0, index, iteration, out);
    for (int r = 1; r < shape->n_ranks; r++) {
        input_block(shape, modulus, r, index, iteration, ints);
        switch (shape->cell.op) {
        case TUTTI_OP_PROD:
            for (size_t k = 0; k < BLOCK; k++)
                out[k] *= ints[k];
            break;
        case TUTTI_OP_MAX:
            for (size_t k = 0; k < BLOCK; k++)
                out[k] = out[k] > ints[k] ? out[k] : ints[k];
            break;
        case TUTTI_OP_MIN:
            for (size_t k = 0; k < BLOCK; k++)
                out[k] = out[k] < ints[k] ? out[k] : ints[k];
            break;
        default:
            for (size_t k = 0; k < BLOCK; k++)
                out[k] += ints[k];
            break;
        }
    }
}

/* Compare n elements; got and want are element `at` of the result on. */
static void compare(const struct bench_shape *shape, const char *got, const char *want, size_t n,
                    size_t at, int source, struct bench_verdict *verdict)
{
    const size_t bytes = shape->element_bytes;

    verdict->checked += n;
    if (memcmp(got, want, n * bytes) == 0)
        return;
    for (size_t k = 0; k < n; k++) {
        uint64_t got_bits = 0;
        uint64_t want_bits = 0;

        if (memcmp(got + k * bytes, want + k * bytes, bytes) == 0)
            continue;
        memcpy(&got_bits, got + k * bytes, bytes); /* little endian, as all hosts of tutti */
        memcpy(&want_bits, want + k * bytes, bytes);
        if (verdict->wrong++ == 0)
            snprintf(verdict->first, sizeof(verdict->first),
                     "rank %d: element %zu is 0x%0*llx, should be 0x%0*llx%s", shape->rank, at + k,
                     (int)bytes * 2, (unsigned long long)got_bits, (int)bytes * 2,
                     (unsigned long long)want_bits,
                     source == BENCH_UNTOUCHED ? " (not its to write)" : "");
    }
}

static void check_guard(const struct bench_shape *shape, const unsigned char *guard,
                        struct bench_verdict *verdict)
{
    for (size_t i = 0; i < BENCH_GUARD_BYTES; i++)
        if (guard[i] != POISON && verdict->wrong++ == 0)
            snprintf(verdict->first, sizeof(verdict->first),
                     "rank %d: wrote %zu bytes past the end of its result", shape->rank, i + 1);
}

void bench_check(const struct bench_shape *shape, const struct bench_values *values,
                 uint32_t iteration, const void *recv, int in_place, struct bench_verdict *verdict)
{
    bench_check_part(shape, values, iteration, recv, in_place, 0, shape->n_recv, verdict);
}

void bench_check_part(const struct bench_shape *shape, const struct bench_values *values,
                      uint32_t iteration, const void *recv, int in_place, size_t from, size_t to,
                      struct bench_verdict *verdict)
{
    const size_t bytes = shape->element_bytes;
    uint32_t ints[BLOCK];
    _Alignas(64) char want[BLOCK * 8];

    for (int s = 0; s < shape->n_segments; s++) {
        const struct bench_segment *segment = &shape->segments[s];
        const size_t end = segment->at + segment->length;
        const size_t last = end < to ? end : to;

        if (segment->source == BENCH_UNTOUCHED && in_place)
            continue;
        for (size_t at = segment->at > from ? segment->at : from; at < last; at += BLOCK) {
            const size_t n = last - at < BLOCK ? last - at : BLOCK;
            const size_t source = segment->from + (at - segment->at);

            if (segment->source == BENCH_UNTOUCHED) {
                memset(want, POISON, n * bytes);
            } else if (segment->source == BENCH_FROM_ALL) {
                reduce_block(shape, values->modulus, source, iteration, ints);
                store_block(ints, values->result, bytes, n, want);
            } else {
                input_block(shape, values->modulus, segment->source, source, iteration, ints);
                store_block(ints, values->encoded, bytes, n, want);
            }
            compare(shape, (const char *)recv + at * bytes, want, n, at, segment->source, verdict);
        }
    }
    if (!in_place && shape->n_recv && to == shape->n_recv)
        check_guard(shape, (const unsigned char *)recv + to * bytes, verdict);
}
