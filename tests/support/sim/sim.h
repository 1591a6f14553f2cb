/* The simulated GPU behind libtutti_fake_cuda.so: what its files know of one another. */
#ifndef TUTTI_TESTS_SIM_H
#define TUTTI_TESTS_SIM_H

#include "cuda/kernels/device.h"

/* Stores of one thread that the others have not seen yet, in program order. */
enum { TT_SIM_PENDING = 32 };

struct tt_sim_store {
    void *p;
    uint64_t value;
    int bytes; /* 8, or 4 */
};

struct tt_sim_pending {
    int n;
    int n_before; /* of these, the first so many come before the thread's last block barrier */
    struct tt_sim_store at[TT_SIM_PENDING];
    struct tt_sim_store
        late; /* T_SIM_BREAK=no_release: one that may come long after the others; p: is there one */
};

/* ---- sim_fibres.c ---- */

/* Run a kernel to its end on this OS thread. At most `resident` blocks at a time. */
void tt_sim_run(tt_sim_kernel kernel, const void *args, int n_blocks, int n_threads, int resident);

/* The same of a launch that begins early: before(context), which may run kernels, when all of its
 * threads wait. */
void tt_sim_run_early(tt_sim_kernel kernel, const void *args, int n_blocks, int n_threads,
                      int resident, void (*before)(void *context), void *context);

struct tt_sim_pending *tt_sim_my_stores(void);

/* Of thread i of this block. */
struct tt_sim_pending *tt_sim_stores_of(int thread);

/* How to disturb a run: T_SIM_SEED; 0 is calm. */
void tt_sim_set_weather(uint64_t seed);

/* ---- sim_stores.c ---- */

void tt_sim_drain(struct tt_sim_pending *pending);      /* all */
void tt_sim_drain_some(struct tt_sim_pending *pending); /* by chance */
void tt_sim_passed_barrier(struct tt_sim_pending *pending);

/* ---- sim_kernels.c ---- */

struct tt_sim_entry {
    const char *name;
    tt_sim_kernel kernel;
    size_t args_bytes, base_at; /* base_at: of struct tt_cuda_base in them */
};
extern const struct tt_sim_entry tt_sim_kernels[];
extern const size_t tt_sim_n_kernels;

#endif
