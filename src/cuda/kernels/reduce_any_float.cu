/* Floats that travel as themselves: any operation, any number of ranks. */
#include "cuda/kernels/reduce_bodies.inc"

#define TT_DTYPE F32
#include "cuda/kernels/reduce_dtype.inc"
#define TT_DTYPE F16
#include "cuda/kernels/reduce_dtype.inc"
#define TT_DTYPE BF16
#include "cuda/kernels/reduce_dtype.inc"
#define TT_DTYPE E4M3
#include "cuda/kernels/reduce_dtype.inc"
#define TT_DTYPE E5M2
#include "cuda/kernels/reduce_dtype.inc"

#define TT_SKIP(name, body, wire, dtype, op, n)
#define TT_ANY_F32  TT_REDUCE_KERNEL
#define TT_ANY_F16  TT_REDUCE_KERNEL
#define TT_ANY_BF16 TT_REDUCE_KERNEL
#define TT_ANY_E4M3 TT_REDUCE_KERNEL
#define TT_ANY_E5M2 TT_REDUCE_KERNEL
#define TT_ANY_F64  TT_SKIP
#define TT_ANY_I8   TT_SKIP
#define TT_ANY_U8   TT_SKIP
#define TT_ANY_I32  TT_SKIP
#define TT_ANY_U32  TT_SKIP
#define TT_ANY_I64  TT_SKIP
#define TT_ANY_U64  TT_SKIP

#define TT_PICK_SUM(name, body, wire, dtype, op, n)
#define TT_PICK_ANY(name, body, wire, dtype, op, n) TT_ANY_##dtype(name, body, wire, dtype, op, n)
#define TT_REDUCE(name, body, wire, dtype, op, n)   TT_PICK_##op(name, body, wire, dtype, op, n)
#define TT_MOVE(name, body)
#include "cuda/kernels/variants.inc"
