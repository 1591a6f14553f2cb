/*
 * The CPU's arithmetic: reductions of n sources, and copies. Chosen once per process for the
 * instruction set at hand; every set gives the same bits (the numerics of tutti.h).
 */
#ifndef TT_CPU_KERNELS_H
#define TT_CPU_KERNELS_H

#include <stddef.h>
#include <tutti/tutti.h>

/*
 * dst[i] = round(src[0][i] op src[1][i] op ... op src[n_src-1][i]), in that order, n_src >= 1, fp32
 * inside (fp64 for F64; integers wrap, but averages of those below 64 bits do not wrap before the
 * division), AVG divided by n_src at the end. Rounded once; NaN canonical, also for one source:
 * 0x7fc00000, f64 0x7ff8000000000000, bf16 0x7fc0, f16 0x7e00, e4m3 and e5m2 0x7f.
 *
 * dst may be exactly one of the sources; no other overlap. dst2 is NULL or a second place for the
 * same result (a peer's copy), stored in the same pass; it may be exactly one of the sources too.
 * Any alignment of elements, any count; reads and writes nothing outside count elements.
 * `ahead`: bytes to prefetch ahead of the loads, 0 for none.
 */
typedef void (*tt_reduce_fn)(void *dst, void *dst2, const void *const src[], int n_src,
                             size_t count, size_t ahead);

typedef void (*tt_copy_fn)(void *dst, const void *src, size_t bytes, size_t ahead);

struct tt_kernels {
    const char *isa; /* "avx512", "avx2", "neon", "scalar" */
    tt_reduce_fn reduce[TUTTI_N_DTYPES][TUTTI_N_OPS];

    /* memcpy whose destination a peer has read last: with `ahead`, the destination's lines are
     * fetched for writing (prefetchw) that many bytes ahead. */
    tt_copy_fn put;

    /* memcpy whose source a peer has written: with `ahead`, the source's lines are fetched. Each
     * fetches on one side only, because a core has few line fetches to give. */
    tt_copy_fn take;

    /* Copy past the caches, for large results that are not read soon. */
    void (*copy_stream)(void *dst, const void *src, size_t bytes);

    /* Push freshly written lines towards the shared cache (cldemote), or a no-op. */
    void (*demote)(const void *p, size_t bytes);
};

/* The best set of this processor, or the one that TUTTI_CPU_ISA names. NULL only for a name that
 * this processor cannot run. "auto" or NULL: best. */
const struct tt_kernels *tt_kernels_get(const char *isa);

/* The caller's floating-point control word, set to IEEE behaviour (no flush to zero, round to
 * nearest) around reductions, and put back. Cheap when it is already so. */
uint64_t tt_fp_enter(void);
void tt_fp_leave(uint64_t saved);

#endif
