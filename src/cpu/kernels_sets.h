/* The sets of kernels that kernels.c chooses from. Their `demote` does nothing until it has asked
 * the processor. */
#ifndef TT_CPU_KERNELS_SETS_H
#define TT_CPU_KERNELS_SETS_H

#include "cpu/kernels.h"

extern const struct tt_kernels tt_kernels_scalar;
#if defined(__x86_64__)
extern const struct tt_kernels tt_kernels_avx2;
extern const struct tt_kernels tt_kernels_avx512;
#elif defined(__aarch64__)
extern const struct tt_kernels tt_kernels_neon;
#endif

void tt_demote_nothing(const void *p, size_t bytes);

#endif
