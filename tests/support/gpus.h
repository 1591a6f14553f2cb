/*
 * GPUs for tests: the driver by dlopen, the library that TUTTI_CUDA_LIBRARY names (in ctest: the
 * simulated one of tests/support/sim) or the real libcuda. Rank r uses GPU r modulo their number.
 *
 *   T_GPU_RANKS=threads   ranks are threads of one process: so that several may share one GPU
 *   T_RANKS=2,4           run with these numbers of ranks instead of each test's own
 *   T_GPU_LARGE=1         also counts that are too large for the simulation
 */
#ifndef TUTTI_TESTS_GPUS_H
#define TUTTI_TESTS_GPUS_H

#include "support/job.h"

/* 1 where the GPUs are simulated. */
int t_is_simulated(void);
int t_is_large(void);

/* How many GPUs there are; the tests end as skipped if none. Any process, also one that will fork. */
int t_n_devices(void);

/* A job whose ranks have communicators on GPUs. */
struct t_job t_cuda_job(int n_ranks, void (*body)(struct t_rank *t));

/* 1 if T_RANKS allows this number of ranks: for what cannot run with another. */
int t_is_wanted(int n_ranks);

/* A config with nothing but the device set. */
tutti_comm_config t_cuda_config(const struct t_rank *t);

/* The numbers of ranks to run with, up to a 0: those of T_RANKS, but 1 only if
 * `list` begins with it; where that is not set, those of `list`. The test is skipped if there are none.
 * Valid until the next call. */
const int *t_wanted_ranks(const int list[]);

/* Run such a job for every one of t_wanted_ranks(). */
void t_cuda_ranks(const int list[], void (*body)(struct t_rank *t));

/* This thread's GPU: its context is current, and a stream of its own. */
struct t_device {
    int index;
    tutti_stream stream;
    void *context;
};

void t_device_open(struct t_device *d, const struct t_rank *t);
void t_device_close(struct t_device *d);
/* In another thread of the rank: its context is current there too. */
void t_device_enter(const struct t_device *d);

/* Memory that is neither zeroed nor (in the simulation) followed by anything that can be touched. */
void *t_device_alloc(size_t bytes);
void t_device_free(void *p);

/* On the device's stream. The host's side may be used when t_device_sync() has returned. */
void t_device_push(const struct t_device *d, void *to, const void *from, size_t bytes);
void t_device_pull(const struct t_device *d, void *to, const void *from, size_t bytes);
void t_device_sync(const struct t_device *d);

/* The same between places of the device, and bytes all alike; nothing is waited for. */
void t_device_copy(const struct t_device *d, void *to, const void *from, size_t bytes);
void t_device_fill(const struct t_device *d, void *to, int byte, size_t bytes);

/* Driver memory that cannot be exported: no handle type was asked for. */
void *t_device_alloc_private(const struct t_device *d, size_t bytes, size_t *bytes_out);
void t_device_free_private(void *p, size_t bytes);

/* --- graphs --- */

typedef struct CUgraphExec_st *t_graph;
void t_capture_begin(const struct t_device *d);
t_graph t_capture_end(const struct t_device *d, size_t *n_nodes_out);
/* The end of a capture that may have been broken, with nothing to show for it. */
void t_capture_drop(const struct t_device *d);
void t_graph_launch(const struct t_device *d, t_graph graph);
void t_graph_free(t_graph graph);

/* What the simulated driver has handed out and not got back; -1 with a real one. */
int t_device_n_objects(void);

#endif
