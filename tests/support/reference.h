/*
 * What a reduction must give, bit for bit: the numerics paragraph of tutti.h written down plainly,
 * one element at a time. Shares no code with the library. And inputs to feed it.
 */
#ifndef TUTTI_TESTS_REFERENCE_H
#define TUTTI_TESTS_REFERENCE_H

#include "support/t.h"

/* dst[i] = the reduction of src[0..n)[i] in that order. Unaffected by the caller's FP modes. */
void t_reference_reduce(void *dst, const void *const src[], int n, size_t count, tutti_dtype dtype,
                        tutti_op op);

/* One element's value as a double (exact but for 64-bit integers), for messages. */
double t_value(const void *element, tutti_dtype dtype);

/* Round a value to an element of dtype: to nearest even, canonical NaN, saturating 8-bit floats. */
void t_round(double value, tutti_dtype dtype, void *element_out);

enum t_inputs {
    T_SMALL, /* small integers: sums are exact in every order, so a wrong one is a lost element */
    T_NEAR,  /* values of like size whose sums round */
    T_BITS,  /* any bits: denormals, infinities, NaNs, -0 */
    T_ONES, /* what looks like memory that waits for data: vectors and words of all ones, and what travels
              * in their place */
};

/*
 * The input of one rank is a pattern of T_PERIOD elements, repeated: element i of the whole input
 * is element i % T_PERIOD of the pattern. So what any slice of any result must be is known without
 * computing all of it. T_PERIOD is prime: a misplaced block is seen.
 */
enum { T_PERIOD = 2053 };

struct t_pattern {
    unsigned char bytes[T_PERIOD * 8];
    size_t element;
};

/* Only the first `count` elements of the pattern. */
void t_pattern_input(struct t_pattern *p, size_t count, tutti_dtype dtype, enum t_inputs inputs,
                     uint64_t seed, int rank);

/* The pattern of the reduction of ranks 0..n-1's patterns; only the first `count` elements. */
void t_pattern_reduce(struct t_pattern *p, const struct t_pattern sources[], int n, size_t count,
                      tutti_dtype dtype, tutti_op op);

/* Write elements first .. first + count - 1 of the repeated pattern. */
void t_pattern_write(const struct t_pattern *p, void *dst, size_t first, size_t count);

/* Index of the first element of got[0..count) that differs from elements first ..., or count. */
size_t t_pattern_compare(const struct t_pattern *p, const void *got, size_t first, size_t count);

#endif
