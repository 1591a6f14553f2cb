/* The kernels for AVX-512; see docs/design/kernels.md for how the files fit together. */
#include "cpu/simd_avx512.h"

#define SET tt_kernels_avx512
#include "cpu/reduce_set.inc"
