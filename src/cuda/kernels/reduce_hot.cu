/* Sums of the floats that models are made of, unrolled for each number of ranks up to 8. */
#include "cuda/kernels/reduce_bodies.inc"

#define TT_DTYPE F32
#include "cuda/kernels/reduce_dtype.inc"
#define TT_DTYPE F16
#include "cuda/kernels/reduce_dtype.inc"
#define TT_DTYPE BF16
#include "cuda/kernels/reduce_dtype.inc"

#define TT_PICK_SUM(name, body, wire, dtype, op, n) TT_REDUCE_KERNEL(name, body, wire, dtype, op, n)
#define TT_PICK_ANY(name, body, wire, dtype, op, n)
#define TT_REDUCE(name, body, wire, dtype, op, n) TT_PICK_##op(name, body, wire, dtype, op, n)
#define TT_MOVE(name, body)
#include "cuda/kernels/variants.inc"
