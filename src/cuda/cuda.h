/* Inside the CUDA engine. docs/design/cuda.md is the map. */
#ifndef TT_CUDA_CUDA_H
#define TT_CUDA_CUDA_H

#include "base/engine.h"
#include "boot/boot.h"
#include "cuda/driver.h"
#include "cuda/kernel_args.h"
#include "cuda/stage.h"

/* Every kernel, in the order of variants.inc. */
enum tt_cuda_kernel {
#define TT_REDUCE(name, body, wire, dtype, op, n) TT_CUDA_KERNEL_##name,
#define TT_MOVE(name, body)                       TT_CUDA_KERNEL_##name,
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE
    TT_N_CUDA_KERNELS
};

/* ---- device.c: a GPU of this process: its primary context and the loaded kernels. Shared by all
 * communicators on it, counted. ---- */

#define TT_CUDA_MAX_LIBRARIES 32

struct tt_cuda_device {
    int index, n_users;
    CUdevice handle;
    CUcontext context;
    unsigned char uuid[16];
    char name[64];
    int major, minor; /* compute capability */
    int n_sms;
    int vmm; /* memory can be exported as file descriptors */
    int pdl; /* programmatic dependent launch */
    /* GPUDirect: other devices may write its memory, and that can be made visible, by a call of the driver's
     * if it is needed; so may they what cuMemCreate makes; its memory can be exported as a dma-buf. */
    int direct, can_flush, direct_vmm, dmabuf;
    int n_libraries;
    CUlibrary library[TT_CUDA_MAX_LIBRARIES]; /* one for each .cu file */
    CUfunction kernel[TT_N_CUDA_KERNELS];
};

tutti_result tt_cuda_n_devices(int *n_out);
tutti_result tt_cuda_device_open(int index, struct tt_cuda_device **device_out);
void tt_cuda_device_close(struct tt_cuda_device *device); /* NULL is fine */

/* Make the device's context current, and put back what was. Cheap when it is current already. */
tutti_result tt_cuda_enter(const struct tt_cuda_device *device, int *entered);
void tt_cuda_leave(int entered);

/* In the device's context (current or not), on the caller's stream, legal under capture; with
 * programmatic dependent launch where there is. */
tutti_result tt_cuda_launch(const struct tt_engine *engine, enum tt_cuda_kernel kernel,
                            int n_blocks, int n_threads, const void *args, size_t args_bytes,
                            CUstream stream);

/* ---- share.c: memory of every rank, mapped by every rank ---- */

struct tt_cuda_share {
    unsigned char
        *at[TT_CUDA_MAX_RANKS];       /* of each rank, as mapped here; at[rank] is the own one */
    size_t bytes;                     /* as asked for */
    struct tt_cuda_mapping *mappings; /* of each rank, how: share_map.h */
};

/* Collective. Allocate `bytes` here, zeroed, and map everybody's. All ranks succeed or none. */
tutti_result tt_cuda_share_alloc(struct tt_engine *engine, size_t bytes,
                                 struct tt_cuda_share *share_out);

/* Collective. Map everybody's ptr[0 .. bytes), memory that exists: cuMemCreate memory that can be
 * exported (this library's, or an allocator's with expandable segments), else cudaMalloc memory by
 * IPC. TUTTI_E_UNSUPPORTED on all ranks if it cannot be done on any. */
tutti_result tt_cuda_share_existing(struct tt_engine *engine, void *ptr, size_t bytes,
                                    struct tt_cuda_share *share_out);

void tt_cuda_share_close(struct tt_engine *engine, struct tt_cuda_share *share);

/* Collective. Every rank writes a word into every peer's first `at` and reads it back there. */
tutti_result tt_cuda_share_verify(struct tt_engine *engine, const struct tt_cuda_share *share);

/* ---- device_memory.c: memory of this process that can be shared; any communicator may use it ---- */

enum tt_cuda_owner {
    TT_CUDA_CALLER,
    TT_CUDA_POOL
}; /* who frees it: tutti_mem_free, memory_pool.c */
tutti_result tt_cuda_device_alloc(int device_index, enum tt_cuda_owner owner, size_t bytes,
                                  void **ptr_out); /* zeroed */
tutti_result tt_cuda_device_free(void *ptr);
void tt_cuda_device_hold(const void *ptr, int n_windows); /* so many more windows hold it */

/* Memory of a pool: wait until no kernel uses it; then free it, at once or with its last window. */
tutti_result tt_cuda_device_quiet(const void *ptr);
void tt_cuda_device_release(const void *ptr);

/* ---- cuda_window.c ---- */

tutti_result tt_cuda_mem_alloc(struct tt_engine *engine, size_t bytes, void **ptr_out);
tutti_result tt_cuda_mem_free(struct tt_engine *engine, void *ptr);
tutti_result tt_cuda_window_register(struct tt_engine *engine, void *ptr, size_t bytes,
                                     tutti_window **window_out);
tutti_result tt_cuda_window_deregister(struct tt_engine *engine, tutti_window *window);
tutti_window *tt_cuda_window_find(struct tt_engine *engine, const void *ptr, size_t bytes);
void *tt_cuda_window_base(struct tt_engine *engine, const tutti_window *window, int rank);
void tt_cuda_windows_free(struct tt_engine *engine);

/* Windows of memory pools, which the caller of the library cannot deregister. Retire: at the same time
 * on all ranks; found no more from here on. 1: it is the pool's to close, 0: somebody else registered
 * the same memory and keeps the window. */
void tt_cuda_window_keep(tutti_window *window);
uint32_t tt_cuda_window_id(const tutti_window *window);
int tt_cuda_window_retire(struct tt_engine *engine, tutti_window *window);
void tt_cuda_window_close(struct tt_engine *engine, tutti_window *window);

/* Where rank r's copy of ptr lies, as mapped here: the same offset in its part of the window. */
unsigned char *tt_cuda_window_at(const tutti_window *window, const void *ptr, int rank);

/* ---- memory_pool.c, whose other functions are in cuda_engine.h ---- */

void tt_cuda_pool_detach(struct tt_engine *engine); /* it ends; its pool's memory stays */

/* ---- layout.c ---- */

/* Divide scratch_bytes; TUTTI_E_ARG if they are too few for n_ranks. */
tutti_result tt_cuda_layout(int n_ranks, uint64_t scratch_bytes, struct tt_cuda_layout *layout);

/* How p2p_slot is divided: into lanes, and these into TT_CUDA_P2P_RING places of so many bytes. */
int tt_cuda_p2p_most_lanes(const struct tt_cuda_layout *layout);
uint64_t tt_cuda_p2p_place(const struct tt_cuda_layout *layout);

/* ---- shape.c: which algorithm, how many blocks and threads: pure functions, the same on all ranks ---- */

struct tt_cuda_shape {
    enum tt_algo algo;
    int n_blocks, n_threads;
    int in_chunks; /* one-shot of more than its memory holds, through that of two-shot */
};
struct tt_cuda_limits {
    int n_ranks;
    int max_blocks;          /* that all ranks that share the fullest GPU can run at once, each */
    int n_blocks, n_threads; /* forced, for tuning; 0: choose */
    struct tt_cuda_layout layout;
};
/* bytes: of the larger side. in_windows: all buffers of the call that matter are. packets: no sentinel
 * possible. force: TT_ALGO_AUTO, or what is wanted wherever it can be had. */
struct tt_cuda_shape tt_cuda_reduce_shape(const struct tt_cuda_limits *limits, enum tt_coll coll,
                                          enum tt_algo force, uint64_t bytes, int in_windows,
                                          int packets);
/* One-shot is by packets, two-shot staged. pair_bytes: of the longest message of
 * one rank to another, pair_room: what it takes of a packet slot; UINT64_MAX if not all ranks know. */
struct tt_cuda_shape tt_cuda_move_shape(const struct tt_cuda_limits *limits, enum tt_algo force,
                                        uint64_t pair_bytes, uint64_t pair_room, int in_windows);
/* The launch that a table asks for, if the algorithm has become the one that it asks it for. */
void tt_cuda_take_width(const struct tt_cuda_limits *limits, enum tt_algo algo,
                        struct tt_width width, struct tt_cuda_shape *shape);
/* A number that tells built-in tables apart: ranks must have the same one. */
uint64_t tt_cuda_table_id(void);
/* Among how many blocks a send or receive is divided; both ends say the same. */
int tt_cuda_p2p_lanes(const struct tt_cuda_limits *limits, uint64_t bytes);

/* ---- reduce.c, move.c, send_recv.c: from a call to a launch ---- */

tutti_result tt_cuda_reduce(struct tt_engine *engine, const struct tt_call *call);
int tt_cuda_by_packets(tutti_dtype dtype); /* do its reductions travel in packets? */
uint32_t tt_cuda_packets_dtypes(void);     /* a bit for each such dtype */
/* For what tt_cuda_stage_sums() says yes to. */
enum tt_cuda_kernel tt_cuda_rail_kernel(tutti_dtype dtype, tutti_op op, int n_ranks);
tutti_result tt_cuda_move(struct tt_engine *engine, const struct tt_call *call);
tutti_result tt_cuda_p2p(struct tt_engine *engine, struct tt_p2p ops[], size_t n_ops);

/* ---- report.c ---- */

/* The sticky failure of a kernel or an abort: TUTTI_OK, or the failure with its text set. */
tutti_result tt_cuda_check_report(const struct tt_engine *engine);
/* If a rank has died, that is the failure from here on, and all kernels that wait end soon. For entries
 * that wait anyway: some system calls. Any thread. */
void tt_cuda_watch(const struct tt_engine *engine);
void tt_cuda_state(const struct tt_engine *engine, tutti_comm_state *state);
void tt_cuda_abort(struct tt_engine *engine);

/* The number of the last collective, for the arguments of its launches: the low bits. */
uint32_t tt_cuda_sequence(const struct tt_engine *engine);

/* A line of the finest log: how a call is launched. */
void tt_cuda_trace(const struct tt_engine *engine, const struct tt_call *call, uint64_t bytes,
                   const struct tt_cuda_shape *shape);
void tt_cuda_stats(const struct tt_engine *engine, int rank, tutti_stats *stats);

/* ---- cuda_engine.c ---- */

struct tt_engine {
    int rank, n_ranks;
    int labels[TT_CUDA_MAX_RANKS]; /* what texts call the ranks */
    uint64_t timeout_ns;
    struct tt_cuda_device *device;
    struct tt_exchange exchange; /* over host memory, for as long as the engine lives */
    enum tt_presence (*presence)(void *context, int rank); /* with its context; may be NULL */
    unsigned char key[32];
    struct tt_fd_mesh *mesh;
    uint64_t mesh_round;
    struct tt_cuda_limits limits;
    int overlaps; /* launches are programmatic dependent ones */
    struct tt_cuda_share arena;
    struct tt_cuda_report *report; /* pinned */
    CUdeviceptr report_on_device;
    struct tt_cuda_base base;        /* what all launches have in common */
    struct tt_cuda_windows *windows; /* NULL: none, and calls do not look further */
    int has_told_unmapped;           /* that a buffer could not become a window */
    struct tt_cuda_pool *pool;       /* memory_pool.c; NULL: none */
    _Atomic uint64_t n_calls, n_bytes, sequence, last_bytes;
    _Atomic uint64_t last_what; /* report.c */
    char name[32];
    char details[256];
};

#endif
