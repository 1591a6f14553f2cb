/* The kernels for AVX2; see docs/design/kernels.md for how the files fit together. */
#include "cpu/simd_avx2.h"

#define SET tt_kernels_avx2
#include "cpu/reduce_set.inc"
