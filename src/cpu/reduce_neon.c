/* The kernels for NEON; see docs/design/kernels.md for how the files fit together. */
#if defined(__aarch64__)
#include "cpu/simd_neon.h"

#define SET tt_kernels_neon
#include "cpu/reduce_set.inc"
#else
typedef int tt_neon_is_elsewhere; /* a file of C must declare something */
#endif
