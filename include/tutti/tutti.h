/*
 * tutti: collective communication for LLM inference, in C.
 *
 * This header is the reference; read from top to bottom it is also a tutorial.
 *
 *   1. Every process of a job is a *rank* of a *communicator*. Rank 0 makes a unique id, gives it to
 *      the others by any means (a file, a socket, MPI, torch's store), and all call
 *      tutti_comm_create(). Under torchrun, mpirun, srun or `tutti run` one call does it all:
 *
 *          tutti_comm *comm;
 *          if (tutti_comm_create_from_env(NULL, &comm) != TUTTI_OK)
 *              fprintf(stderr, "%s\n", tutti_last_error());
 *
 *   2. All ranks then make the same calls in the same order:
 *
 *          tutti_all_reduce(comm, x, x, n, TUTTI_DTYPE_BF16, TUTTI_OP_SUM, NULL);
 *
 *   3. Buffers that are used again and again go faster when they are registered once
 *      (tutti_window_register): nothing is copied on the way to the peers.
 *
 *   4. tutti_comm_destroy(comm) ends it. A process that dies instead is noticed by its peers: their
 *      calls return TUTTI_E_PEER and name it. Nothing waits for ever.
 *
 * Conventions. Functions return tutti_result: 0 is success, 1 in progress, negative a failure whose
 * text is in tutti_last_error(). Outputs come last, end in `_out`, and are set on success only.
 * Counts are in elements, `bytes` in bytes, times in the unit that the name ends with. No function
 * calls exit or abort, installs a signal handler or starts a thread (but one to four for each communicator
 * of GPUs on several hosts, and those of the channels of <tutti/device.h>; UCX, which carries data between
 * hosts, and the GPU driver may have some of their own).
 *
 * Unless its comment says otherwise, every collective obeys these rules:
 *   Order       All ranks call the same collectives in the same order with matching arguments; a
 *               call that does not match ends with TUTTI_E_MISMATCH on every rank, not with a hang
 *               (perhaps one call later on a rank that needs nothing more from another host, and at the
 *               deadline where it meets a send, a receive or a team's call).
 *   Memory      Any alignment (64 bytes is fastest). Buffers are borrowed until the call returns.
 *               send == recv is in place; any other overlap is TUTTI_E_ARG where it can be seen.
 *   Completion  Host buffers: when the call returns, recv is complete and send may be reused.
 *               GPU buffers: the call is work on `stream` (NULL: the legacy default stream), like a
 *               kernel launch; nothing waits on the host, and it may be captured in a graph, which
 *               all ranks then replay equally often. If a communicator is used on several streams,
 *               order its calls by events.
 *   Numerics    Floating sums and products accumulate in fp32 (fp64 for F64) in rank order
 *               0..n-1 and are rounded once, to nearest even; a NaN result is the canonical quiet
 *               NaN. So all ranks, algorithms, runs and instruction sets give the same bits.
 *               Integers wrap, those of 8 to 32 bits after being summed in 64. AVG divides the sum
 *               by the number of ranks before it is rounded or wraps (integers: towards 0; a sum of
 *               64-bit integers has wrapped by then).
 *               The caller's flush-to-zero and rounding modes are ignored and left as they were.
 *               Across hosts floating sums, products and averages are formed within each host, rounded,
 *               then over the hosts in the order of their first ranks, and rounded once more: the same
 *               on all ranks, in all runs and calls, but not the bits of a single host, which
 *               TUTTI_ALGO=flat gives for more traffic. MAX, MIN, integers and 8-bit floats are always
 *               as on one host.
 *   Threads     One call at a time per communicator; communicators are independent of each other.
 *   Errors      TUTTI_E_ARG, TUTTI_E_UNSUPPORTED, TUTTI_E_MEMORY: nothing happened on this rank.
 *               TUTTI_E_PEER, _TIMEOUT, _MISMATCH, _ABORTED: the communicator has failed for good
 *               on all ranks (tutti_comm_status); destroy it. recv of the call holds anything. The
 *               process and its other communicators are unharmed. On GPUs work on a stream that
 *               fails ends, with any result; tutti_comm_status() and the next call say so. A
 *               mismatch shows there as a timeout, but for sends, receives and counts in device
 *               memory; that a rank has died or left at the deadline, or when somebody asks
 *               tutti_comm_status().
 */
#ifndef TUTTI_TUTTI_H
#define TUTTI_TUTTI_H

#include <stddef.h>
#include <stdint.h>

/* Structs that may grow begin with their size; each has an _INIT macro that sets it, and zeroes all
 * else. (Spelled so that neither C nor C++ compilers warn of fields that are left out.) */
#ifdef __cplusplus
template <class T> inline T tutti_init_()
{
    T t = T();
    t.size = sizeof(T);
    return t;
}
#define TUTTI_INIT_(type) tutti_init_<type>()
extern "C" {
#else
/* clang-format off */
#define TUTTI_INIT_(type) {.size = sizeof(type)}
/* clang-format on */
#endif

#define TUTTI_VERSION_MAJOR 0
#define TUTTI_VERSION_MINOR 1
#define TUTTI_VERSION_PATCH 0

#if defined(TUTTI_BUILD) || defined(__GNUC__)
#define TUTTI_API __attribute__((visibility("default")))
#else
#define TUTTI_API
#endif

/* ------------------------------------------------------------------ results and errors ------- */

/* X(name, value, what survives, text). What survives a failure: `call` means that the call did
 * nothing and the communicator is good; `comm` that the communicator is lost but the process and
 * its other communicators are not. */
#define TUTTI_RESULT_MAP(X)                                                                        \
    X(OK, 0, call, "success")                                                                      \
    X(IN_PROGRESS, 1, call, "in progress")                                                         \
    X(E_ARG, -1, call, "invalid argument")                                                         \
    X(E_UNSUPPORTED, -2, call, "not supported by this build or machine")                           \
    X(E_MEMORY, -3, call, "out of memory")                                                         \
    X(E_SYSTEM, -4, call, "the operating system refused")                                          \
    X(E_AUTH, -5, call, "authentication failed")                                                   \
    X(E_VERSION, -6, call, "ranks run versions of tutti that do not work together")                \
    X(E_TIMEOUT, -7, comm, "a rank did not arrive before the deadline")                            \
    X(E_PEER, -8, comm, "a rank has died or left")                                                 \
    X(E_MISMATCH, -9, comm, "ranks made calls that do not match")                                  \
    X(E_ABORTED, -10, comm, "the communicator was aborted")                                        \
    X(E_INTERNAL, -11, comm, "a bug in tutti: please report it")

typedef enum tutti_result {
#define TUTTI_RESULT_ENUM_(name, value, survives, text) TUTTI_##name = (value),
    TUTTI_RESULT_MAP(TUTTI_RESULT_ENUM_)
#undef TUTTI_RESULT_ENUM_
} tutti_result;

/** The name ("TUTTI_E_PEER") of a result; never NULL. Any thread. */
TUTTI_API const char *tutti_result_name(tutti_result result);

/** One line of English for a result; never NULL. Any thread. */
TUTTI_API const char *tutti_result_text(tutti_result result);

/**
 * What went wrong in this thread's last tutti call that failed, in one line, written where the
 * failure was first seen: subject, values, cause, and what to do. "" if nothing failed yet.
 * Valid until this thread's next tutti call.
 */
TUTTI_API const char *tutti_last_error(void);

/** The library's version as MAJOR << 16 | MINOR << 8 | PATCH. Any thread. */
TUTTI_API uint32_t tutti_version(void);

/* ------------------------------------------------------------------ types -------------------- */

typedef struct tutti_comm tutti_comm;     /* a communicator: this process's rank among n */
typedef struct tutti_window tutti_window; /* memory registered with a communicator */
typedef struct CUstream_st *tutti_stream; /* a CUDA stream; NULL for host memory */

/* X(name, value, bytes, text) */
#define TUTTI_DTYPE_MAP(X)                                                                         \
    X(F32, 0, 4, "f32")                                                                            \
    X(F16, 1, 2, "f16")                                                                            \
    X(BF16, 2, 2, "bf16")                                                                          \
    X(F64, 3, 8, "f64")                                                                            \
    X(I8, 4, 1, "i8")                                                                              \
    X(U8, 5, 1, "u8")                                                                              \
    X(I32, 6, 4, "i32")                                                                            \
    X(U32, 7, 4, "u32")                                                                            \
    X(I64, 8, 8, "i64")                                                                            \
    X(U64, 9, 8, "u64")                                                                            \
    X(E4M3, 10, 1, "e4m3")                                                                         \
    X(E5M2, 11, 1, "e5m2")

/* E4M3 and E5M2 are the OCP 8-bit floats (E4M3 has no infinity). Rounding to either saturates:
 * what is beyond the largest finite value, infinity included, becomes that value. */
typedef enum tutti_dtype {
#define TUTTI_DTYPE_ENUM_(name, value, bytes, text) TUTTI_DTYPE_##name = (value),
    TUTTI_DTYPE_MAP(TUTTI_DTYPE_ENUM_)
#undef TUTTI_DTYPE_ENUM_
} tutti_dtype;
#define TUTTI_N_DTYPES 12

/* MAX and MIN of floats: a NaN anywhere gives NaN; -0 is less than +0. */
#define TUTTI_OP_MAP(X)                                                                            \
    X(SUM, 0, "sum")                                                                               \
    X(PROD, 1, "prod")                                                                             \
    X(MAX, 2, "max")                                                                               \
    X(MIN, 3, "min")                                                                               \
    X(AVG, 4, "avg")

typedef enum tutti_op {
#define TUTTI_OP_ENUM_(name, value, text) TUTTI_OP_##name = (value),
    TUTTI_OP_MAP(TUTTI_OP_ENUM_)
#undef TUTTI_OP_ENUM_
} tutti_op;
#define TUTTI_N_OPS 5

/** Bytes of one element, 0 for a value that is no dtype. Any thread. */
TUTTI_API size_t tutti_dtype_bytes(tutti_dtype dtype);

/** "bf16", or "?" for a value that is no dtype. Any thread. */
TUTTI_API const char *tutti_dtype_name(tutti_dtype dtype);

/** "sum", or "?" for a value that is no operation. Any thread. */
TUTTI_API const char *tutti_op_name(tutti_op op);

/* ------------------------------------------------------------------ creation ----------------- */

/* Where rank 0 listens, and the secret that lets a process join. Treat it like a password. */
typedef struct tutti_unique_id {
    unsigned char bytes[128];
} tutti_unique_id;

#define TUTTI_UNIQUE_ID_TEXT_BYTES 272 /* enough for the text of any id and its ending zero */

/**
 * Make an id and start listening for the ranks that will join.
 *
 * Memory   The listening socket belongs to this process until rank 0 is created here with the id,
 *          which takes it over; so the process that makes an id must be the one that is rank 0.
 * Address  That of TUTTI_BOOT_IFACE, else loopback and every address of this host that is up, in
 *          the order in which joining ranks try them.
 * Threads  Any.
 * Errors   TUTTI_E_SYSTEM (no socket), TUTTI_E_ARG (no such interface).
 */
TUTTI_API tutti_result tutti_unique_id_create(tutti_unique_id *id_out);

/** The id as printable ASCII without blanks, zero-ended. TUTTI_E_ARG if `bytes` is too few. */
TUTTI_API tutti_result tutti_unique_id_to_text(const tutti_unique_id *id, char *text_out,
                                               size_t bytes);

/** The id that tutti_unique_id_to_text() printed. TUTTI_E_ARG if the text is not one. */
TUTTI_API tutti_result tutti_unique_id_from_text(const char *text, tutti_unique_id *id_out);

/**
 * A caller's all-gather, for jobs that already have a way to exchange bytes: give `bytes` bytes of
 * `send`, and leave those of all ranks, in rank order, in `recv`. Called during creation only.
 * Returns 0 on success.
 */
typedef int (*tutti_exchange_fn)(void *context, const void *send, void *recv, size_t bytes);

typedef enum tutti_device {
    TUTTI_DEVICE_CPU = 0,  /* buffers in host memory */
    TUTTI_DEVICE_CUDA = 1, /* buffers in the memory of the GPU `device_index` */
} tutti_device;

/* How to create a communicator. Zero means the default in every field, so
 * `tutti_comm_config c = TUTTI_COMM_CONFIG_INIT;` is complete but for rank, n_ranks and id. */
typedef struct tutti_comm_config {
    uint32_t size;              /* sizeof(tutti_comm_config), so that the struct can grow */
    uint32_t flags;             /* none yet: 0 */
    int32_t rank;               /* 0 .. n_ranks - 1 */
    int32_t n_ranks;            /* 0 means 1 */
    tutti_device device;        /* default: TUTTI_DEVICE_CPU */
    int32_t device_index;       /* GPU, as the CUDA runtime numbers them */
    const tutti_unique_id *id;  /* from rank 0; or ... */
    tutti_exchange_fn exchange; /* ... a caller's all-gather; neither is needed for one rank */
    void *exchange_context;     /* first argument of `exchange` */
    uint64_t timeout_ms;        /* longest wait for a peer, at creation and in calls: 30000. For one
                                   that waits itself, half as much more, at most 3000 */
    uint64_t scratch_bytes;     /* memory for staging, per rank; 4 MiB on CPU, 62 MiB on GPUs. On
                                   GPUs and on several hosts rank 0's counts */
    const char *name;           /* for logs, errors and `tutti info --live`; up to 31 bytes */
    const char *algorithm;      /* force one by name (TUTTI_ALGO), else chosen by table */
    const char *tune_file; /* table written by `tutti tune` (TUTTI_TUNE_FILE); rank 0's counts */
} tutti_comm_config;
#define TUTTI_COMM_CONFIG_INIT TUTTI_INIT_(tutti_comm_config)

/**
 * Create a communicator. Collective: returns on all ranks or fails on all that are there.
 *
 * Config      Copied. TUTTI_* variables fill fields that are 0; an explicit field wins.
 * Waiting     Up to timeout_ms for all ranks; past it the text names those that are missing.
 * Resources   Two file descriptors and scratch_bytes (plus about 3 MiB) of shared memory. Nothing
 *             is visible in the file system, so nothing can be left behind.
 * Threads     Any; several communicators may be created at the same time by different threads.
 *             After fork() a child must not use its parent's communicators.
 * Errors      TUTTI_E_ARG, TUTTI_E_TIMEOUT (who is missing), TUTTI_E_AUTH (an id that is not rank
 *             0's), TUTTI_E_VERSION, TUTTI_E_UNSUPPORTED (ranks on several hosts, which are named, without
 *             a network; a device without an engine), TUTTI_E_MEMORY, TUTTI_E_SYSTEM, TUTTI_E_PEER (a rank
 *             has died or given up), TUTTI_E_MISMATCH (ranks of unlike settings).
 *             Nothing is left behind.
 */
TUTTI_API tutti_result tutti_comm_create(const tutti_comm_config *config, tutti_comm **comm_out);

/**
 * tutti_comm_create() with rank, n_ranks and id from the environment of, in this order, `tutti run`
 * (TUTTI_RANK, TUTTI_N_RANKS), torchrun (RANK, WORLD_SIZE), Open MPI (OMPI_COMM_WORLD_RANK), MPICH
 * and other PMI launchers (PMI_RANK), Slurm (SLURM_PROCID). None of them: one rank.
 *
 * Address   TUTTI_BOOT_ADDR; else, where the launcher says that all ranks share the host, a local
 *           socket named after the job; else MASTER_ADDR and MASTER_PORT + 1, or Slurm's first node.
 * Secret    TUTTI_SECRET; else derived from the job's name and the user, which keeps jobs apart
 *           but not an attacker out: set TUTTI_SECRET on a network that you do not trust.
 * overrides NULL, or fields that win over the environment.
 * Errors    As tutti_comm_create(); TUTTI_E_ARG names a variable that is missing or malformed.
 */
TUTTI_API tutti_result tutti_comm_create_from_env(const tutti_comm_config *overrides,
                                                  tutti_comm **comm_out);

/**
 * Divide a communicator: ranks that give the same `color` form a new one, ranked by `key`, then by
 * their rank in `comm`. A negative color takes part but gets none: *comm_out is NULL.
 * Collective over `comm`, which stays as it is; timeout, scratch and forced algorithm are inherited, the
 * name with the numbers of the split and the color behind it, and the table is made anew, from the
 * tune_file that the new rank 0 was told of for `comm`.
 * Errors      As tutti_comm_create(), on all ranks of the color or on none; the text names the rank. `comm`
 *             is good, but for TUTTI_E_PEER, _TIMEOUT, _MISMATCH and _ABORTED (tutti_comm_status).
 */
TUTTI_API tutti_result tutti_comm_split(tutti_comm *comm, int color, int key,
                                        tutti_comm **comm_out);

/**
 * Free a communicator and all its windows, as tutti_window_deregister() does; NULL is fine. Does not
 * wait for the others' calls: one of them that is still in a call that needs this rank gets
 * TUTTI_E_PEER (GPUs: at its deadline). But what this rank's calls have sent to other hosts is
 * delivered first, which the rank there has to be in a call for: who is in none is waited for, up to
 * five seconds (for each of the communicator's networks: one, on GPUs several). Who comes later to
 * take it gets TUTTI_E_PEER. No call may be running on `comm`: work on a stream that waits for a peer
 * is ended.
 */
TUTTI_API void tutti_comm_destroy(tutti_comm *comm);

/**
 * End every call on `comm`, on all ranks, with TUTTI_E_ABORTED, within 100 ms. The one function
 * that another thread may call while a call is running. The communicator must still be destroyed.
 */
TUTTI_API void tutti_comm_abort(tutti_comm *comm);

typedef struct tutti_comm_info {
    uint32_t size; /* sizeof(tutti_comm_info), set by the caller */
    int32_t rank;
    int32_t n_ranks;
    int32_t n_hosts;
    tutti_device device;
    const char *engine; /* "cpu", "cuda"; of several hosts "hosts", "cuda hosts". Never freed */
    const char *name;   /* lives as long as the communicator */
    uint64_t timeout_ms;
    uint64_t memory_bytes; /* of this rank for its peers, windows left out */
    const char *details;   /* one line: instruction set, waiting, cross-memory copies ... */
} tutti_comm_info;
#define TUTTI_COMM_INFO_INIT TUTTI_INIT_(tutti_comm_info)

/** Describe a communicator. Any thread. TUTTI_E_ARG if info->size is not set. */
TUTTI_API tutti_result tutti_comm_query(const tutti_comm *comm, tutti_comm_info *info);

typedef struct tutti_comm_state {
    uint32_t size;       /* sizeof(tutti_comm_state), set by the caller */
    tutti_result result; /* TUTTI_OK while the communicator is good, else why it failed */
    int32_t peer;        /* who is missing or at fault, the first of them; -1: nobody is known */
    /* Number of the collective that failed, or that runs now, from 1; if none failed, as after an abort, of the
     * last that this rank began. On GPUs, of one in a graph: the number that it had when it was captured.
     * Sends and receives have the number of the collective before them. */
    uint64_t sequence;
    char text[256]; /* the whole story in a line */
} tutti_comm_state;
#define TUTTI_COMM_STATE_INIT TUTTI_INIT_(tutti_comm_state)

/**
 * Is the communicator good, and if not, why? Any thread, also while a call is running. The text names
 * the call, its number, and all ranks of this host that had not come to it when the deadline passed
 * ("ranks 2, 3 and 5 did not arrive within 8000 ms"); of long lists the beginning.
 *
 * GPUs     A kernel cannot see that a peer's process has died; this looks for it (two system calls a
 *          peer). If one has, the communicator has failed with TUTTI_E_PEER, and all kernels that
 *          wait, on all ranks, end within 100 ms: for a watchdog that asks every so often. Where
 *          nobody asks, they end at the deadline and the result is the same. A process that ends
 *          without tutti_comm_destroy() has died; that a peer has destroyed its communicator is a
 *          failure only for a call that needs it.
 */
TUTTI_API tutti_result tutti_comm_status(const tutti_comm *comm, tutti_comm_state *state);

/* ------------------------------------------------------------------ collectives -------------- */

/** Reduce count elements over all ranks; the whole result is left on every rank.
 *  Shapes: send[count], recv[count]. 0 elements: still a collective, moves nothing. */
TUTTI_API tutti_result tutti_all_reduce(tutti_comm *comm, const void *send, void *recv,
                                        size_t count, tutti_dtype dtype, tutti_op op,
                                        tutti_stream stream);

/** Reduce over all ranks and leave block r of the result on rank r.
 *  Shapes: send[n_ranks][recv_count], recv[recv_count]. In place: recv == send + rank * recv_count
 *  elements. */
TUTTI_API tutti_result tutti_reduce_scatter(tutti_comm *comm, const void *send, void *recv,
                                            size_t recv_count, tutti_dtype dtype, tutti_op op,
                                            tutti_stream stream);

/** tutti_reduce_scatter() with a block of counts[r] elements for rank r; the same counts[n_ranks]
 *  on every rank. Shapes: send[sum of counts], recv[counts[rank]]. */
TUTTI_API tutti_result tutti_reduce_scatterv(tutti_comm *comm, const void *send, void *recv,
                                             const size_t counts[], tutti_dtype dtype, tutti_op op,
                                             tutti_stream stream);

/** Leave the blocks of all ranks, in rank order, on every rank.
 *  Shapes: send[send_count], recv[n_ranks][send_count]. In place: send == recv + rank * send_count
 *  elements. */
TUTTI_API tutti_result tutti_all_gather(tutti_comm *comm, const void *send, void *recv,
                                        size_t send_count, tutti_dtype dtype, tutti_stream stream);

/** tutti_all_gather() with a block of counts[r] elements from rank r; the same counts[n_ranks] on
 *  every rank. Shapes: send[counts[rank]], recv[sum of counts]. */
TUTTI_API tutti_result tutti_all_gatherv(tutti_comm *comm, const void *send, void *recv,
                                         const size_t counts[], tutti_dtype dtype,
                                         tutti_stream stream);

/* One of several tensors that have the same number of rows on a rank. */
typedef struct tutti_rows {
    const void *send; /* [rows[rank]][row_bytes] */
    void *recv;       /* [sum of rows][row_bytes] */
    size_t row_bytes; /* the same on every rank */
} tutti_rows;

/** Gather several tensors at once (values, scales, ids, weights ...): one exchange instead of
 *  n_parts. rows[n_ranks] are the same on every rank; at most TUTTI_MAX_ROW_PARTS parts. */
TUTTI_API tutti_result tutti_all_gatherv_rows(tutti_comm *comm, const tutti_rows parts[],
                                              size_t n_parts, const size_t rows[],
                                              tutti_stream stream);
#define TUTTI_MAX_ROW_PARTS 16

/** Send block r of send to rank r; block r of recv comes from rank r.
 *  Shapes: send[n_ranks][count], recv[n_ranks][count]. send == recv is allowed. */
TUTTI_API tutti_result tutti_all_to_all(tutti_comm *comm, const void *send, void *recv,
                                        size_t count, tutti_dtype dtype, tutti_stream stream);

/** tutti_all_to_all() with blocks of any size anywhere: counts and displacements in elements, one
 *  per rank. What rank a sends to b must be as long as what b receives from a. Not in place. */
TUTTI_API tutti_result tutti_all_to_allv(tutti_comm *comm, const void *send,
                                         const size_t send_counts[], const size_t send_displs[],
                                         void *recv, const size_t recv_counts[],
                                         const size_t recv_displs[], tutti_dtype dtype,
                                         tutti_stream stream);

/** Copy buf[count] of rank root to buf of all ranks. */
TUTTI_API tutti_result tutti_broadcast(tutti_comm *comm, void *buf, size_t count, tutti_dtype dtype,
                                       int root, tutti_stream stream);

/** Reduce over all ranks; the result is left on root. recv is used on root only. */
TUTTI_API tutti_result tutti_reduce(tutti_comm *comm, const void *send, void *recv, size_t count,
                                    tutti_dtype dtype, tutti_op op, int root, tutti_stream stream);

/** Collect send[count] of all ranks, in rank order, in recv[n_ranks][count] of root. In place on
 *  root: send == recv + root * count elements. */
TUTTI_API tutti_result tutti_gather(tutti_comm *comm, const void *send, void *recv, size_t count,
                                    tutti_dtype dtype, int root, tutti_stream stream);

/** Hand block r of root's send[n_ranks][count] to rank r. In place on root: recv == send + root *
 *  count elements. send is used on root only. */
TUTTI_API tutti_result tutti_scatter(tutti_comm *comm, const void *send, void *recv, size_t count,
                                     tutti_dtype dtype, int root, tutti_stream stream);

/** Return once all ranks have called it; what they stored before is seen after. */
TUTTI_API tutti_result tutti_barrier(tutti_comm *comm, tutti_stream stream);

/** Send to one peer, which calls tutti_recv() with the same count and dtype. Messages between two
 *  ranks keep their order. May wait for the receiver. Sending to oneself needs a group. */
TUTTI_API tutti_result tutti_send(tutti_comm *comm, const void *buf, size_t count,
                                  tutti_dtype dtype, int peer, tutti_stream stream);

/** Receive from one peer; see tutti_send(). */
TUTTI_API tutti_result tutti_recv(tutti_comm *comm, void *buf, size_t count, tutti_dtype dtype,
                                  int peer, tutti_stream stream);

/**
 * Begin a group: calls on `comm` up to tutti_group_end() only check their arguments and are queued.
 * The end runs them: all sends and receives at once (so an exchange cannot deadlock), then
 * collectives in their order; broadcasts that stand together, one from each root, in buffers that do
 * not overlap (on all ranks or on none), travel as one all_gatherv. Does not nest. Buffers are borrowed
 * until the end; counts arrays are copied. All sends and receives of a group are on one stream.
 */
TUTTI_API tutti_result tutti_group_begin(tutti_comm *comm);

/** Run what was queued since tutti_group_begin(). The first failure is returned; the group is over
 *  in any case. */
TUTTI_API tutti_result tutti_group_end(tutti_comm *comm);

/* ------------------------------------------------------------------ counts in device memory -- */

/*
 * The v-calls for counts that the host does not know: they are read from memory of the communicator
 * (GPU memory, or host memory that the GPU can read; host memory on CPU communicators) when the call
 * runs. A captured graph reads them anew at each replay: the tokens of a rank may change from step to
 * step. Each rank tells what it sends; nobody need know what it will receive.
 *
 * Bound       max_count, the same on every rank, is the largest that any count may be. It decides how
 *             the call is carried out; only what the counts say is moved. A count above it is found by
 *             all ranks, in this call, whoever gave it: nothing is written outside of the blocks, and
 *             received is zeroed. Host memory: TUTTI_E_ARG on every rank, nothing happened. GPUs: the
 *             communicator fails with TUTTI_E_MISMATCH, and names rank and count.
 * Places      Stride 0: blocks lie one after another in rank order, as in the ordinary v-calls. Else
 *             block r begins at r * stride (at least max_count; max_count itself will do), wherever
 *             the others end: known without knowing the counts. Gaps are left alone.
 * Memory      Buffers have room for what their strides and the bound allow; packed ones (stride 0) for
 *             what the counts can be together. `counts` and `received` are 8-byte aligned, do not
 *             overlap, and like buffers are borrowed until the work is done. Counts must not change
 *             while it runs.
 * In place    all_gatherv, where recv_stride is not 0: send == recv + rank * recv_stride * unit.
 *             reduce_scatterv, where send_stride is not 0: the same with send and recv exchanged.
 * GPUs        Windows count as for all_gather and all_to_all: recv, all of n_ranks * max_count or
 *             stride, at the same offset on all ranks, or none; recv_stride is then the same, too. An
 *             all_to_allv needs one for that.
 */
typedef struct tutti_device_counts {
    uint32_t size;          /* sizeof(tutti_device_counts) */
    uint32_t flags;         /* none yet: 0 */
    const uint64_t *counts; /* an int64 tensor will do: what is below 0 is above every bound */
    uint64_t *received;     /* NULL, or [n_ranks], written: the count that came from each rank */
    size_t max_count;       /* of every count */
    size_t unit;            /* elements that a count of 1 stands for, as a row's; 0 means 1 */
    size_t send_stride;     /* counts from one block of send to the next; 0: no gaps */
    size_t recv_stride;     /* the same of recv */
} tutti_device_counts;
#define TUTTI_DEVICE_COUNTS_INIT TUTTI_INIT_(tutti_device_counts)

/** tutti_all_gatherv() of counts->counts[1], the one block that this rank gives to all. `received` is
 *  the counts of all ranks. send_stride is not used: 0. */
TUTTI_API tutti_result tutti_all_gatherv_device(tutti_comm *comm, const void *send, void *recv,
                                                const tutti_device_counts *counts,
                                                tutti_dtype dtype, tutti_stream stream);

/** tutti_all_gatherv_rows() of counts->counts[1] rows from this rank, in one exchange (host memory:
 *  behind one of counts, and with gaps one for each part). Strides and max_count are in rows, and
 *  recv_stride is that of all parts; unit is not used: 0. Where a part's recv is in place, all are. */
TUTTI_API tutti_result tutti_all_gatherv_rows_device(tutti_comm *comm, const tutti_rows parts[],
                                                     size_t n_parts,
                                                     const tutti_device_counts *counts,
                                                     tutti_stream stream);

/** tutti_reduce_scatterv() with a block of counts->counts[r] for rank r; the same counts[n_ranks] on
 *  every rank (`received` of an all_gatherv, for example): what differs is TUTTI_E_MISMATCH. recv_stride
 *  and `received` are not used: 0 and NULL. */
TUTTI_API tutti_result tutti_reduce_scatterv_device(tutti_comm *comm, const void *send, void *recv,
                                                    const tutti_device_counts *counts,
                                                    tutti_dtype dtype, tutti_op op,
                                                    tutti_stream stream);

/** tutti_all_to_allv() with a block of counts->counts[r] for rank r: each rank gives its own
 *  counts[n_ranks], and finds in `received` what came. Not in place. */
TUTTI_API tutti_result tutti_all_to_allv_device(tutti_comm *comm, const void *send, void *recv,
                                                const tutti_device_counts *counts,
                                                tutti_dtype dtype, tutti_stream stream);

/* ------------------------------------------------------------------ thread teams ------------- */

/*
 * For engines whose ranks compute with a team of threads (OpenMP or their own pool): all threads of
 * the team make the call, each with its index and the size of the team, and share the work: thread
 * i meets its counterparts on the other ranks, without fork, join or lock inside. Teams may differ
 * in size from rank to rank and from call to call.
 *
 * Order       No thread of a rank may enter before that rank's send is ready: a team barrier after
 *             producing it, as after any parallel loop.
 * Completion  recv is complete once every thread of this rank's team has returned: a team barrier
 *             before consuming it.
 * Threads     Same comm and arguments on all threads of a team. Ordinary calls on `comm` may come
 *             before or after, not at the same time. Sequence of calls: the same on every rank.
 * Errors      TUTTI_E_UNSUPPORTED on a communicator of GPUs.
 */
TUTTI_API tutti_result tutti_all_reduce_team(tutti_comm *comm, const void *send, void *recv,
                                             size_t count, tutti_dtype dtype, tutti_op op,
                                             int thread, int n_threads);
TUTTI_API tutti_result tutti_reduce_scatter_team(tutti_comm *comm, const void *send, void *recv,
                                                 size_t recv_count, tutti_dtype dtype, tutti_op op,
                                                 int thread, int n_threads);
TUTTI_API tutti_result tutti_all_gather_team(tutti_comm *comm, const void *send, void *recv,
                                             size_t send_count, tutti_dtype dtype, int thread,
                                             int n_threads);
TUTTI_API tutti_result tutti_all_to_all_team(tutti_comm *comm, const void *send, void *recv,
                                             size_t count, tutti_dtype dtype, int thread,
                                             int n_threads);
TUTTI_API tutti_result tutti_broadcast_team(tutti_comm *comm, void *buf, size_t count,
                                            tutti_dtype dtype, int root, int thread, int n_threads);

/* ------------------------------------------------------------------ symmetric memory --------- */

/**
 * Allocate memory (1 byte at least) that is made to be registered: page-aligned, zeroed, on huge pages
 * where the system offers them. Local: other ranks need not call it. Until it is registered it behaves like
 * any other memory, but a fork() shares it. TUTTI_E_MEMORY when there is none (never a signal later).
 * On a communicator of GPUs it is memory of this rank's GPU.
 */
TUTTI_API tutti_result tutti_mem_alloc(tutti_comm *comm, size_t bytes, void **ptr_out);

/** Free memory of tutti_mem_alloc(), after deregistering its windows; NULL is fine.
 *  TUTTI_E_ARG if ptr is not the start of such memory or is still registered. */
TUTTI_API tutti_result tutti_mem_free(tutti_comm *comm, void *ptr);

/**
 * Let the peers reach ptr[0 .. bytes) directly. Collective: all ranks register their buffer of the
 * same role, with equal bytes, in the same order. A collective whose buffers all lie in windows, at
 * the same offset on all ranks, copies nothing that it need not; mixing is legal and correct.
 *
 * Memory   Any private writable memory but a stack: tutti_mem_alloc(), malloc, a tensor. The pages
 *          that hold it are replaced, at their address and with their contents, by pages that the
 *          peers map. So nothing else, another thread say, may write to those pages (they may reach
 *          up to a page beyond both ends) during the call, and after a fork() parent and child share
 *          them. About 0.5 ms per MiB, once. It must stay allocated until the window is deregistered
 *          or its communicator destroyed; only then may it grow, move or be freed.
 * GPUs     cuMemCreate memory that can be exported as descriptors (tutti_mem_alloc(), expandable
 *          segments) or else cudaMalloc memory; it stays where it is. Ranks cannot ask each other on
 *          the way of a call, so here a buffer (and its being in place in an all_to_all) must be
 *          registered at the same offset on all ranks or on none: what one rank does alone ends
 *          with TUTTI_E_TIMEOUT. Which buffers matter: both of all_reduce, send of reduce_scatter,
 *          recv of all_gather, all_to_all and broadcast.
 * Twice    The same pages may be registered again, with this or another communicator.
 * Errors   On all ranks, and nothing has changed: TUTTI_E_ARG (not mapped, read-only, a shared mapping, a
 *          stack, no bytes, in more than 8 pieces that were registered apart), TUTTI_E_MEMORY, _SYSTEM,
 *          TUTTI_E_UNSUPPORTED (GPU memory that cannot be mapped by a peer: named), and TUTTI_E_MISMATCH
 *          (unequal bytes), after which, other than elsewhere, the communicator is good.
 */
TUTTI_API tutti_result tutti_window_register(tutti_comm *comm, void *ptr, size_t bytes,
                                             tutti_window **window_out);

/** Undo a registration; collective, in the same order on all ranks. The memory keeps its contents.
 *  Pages that no other window holds are private again, by a copy, as before the registration
 *  (tutti_mem_alloc()'s are not): so here, and in tutti_comm_destroy() for windows that are left, nothing
 *  else may write to them during the call either. A child that was forked meanwhile keeps the old ones.
 *  Where there is no memory for the copy they stay shared, and a line of the log says so.
 *  On GPUs this, tutti_mem_free() and tutti_comm_destroy() wait for the GPU. A capture that is under way on
 *  it, in whatever thread, is broken by that (CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), as by any wait for the device.
 *  A graph with calls that were captured in a window of GPU memory must not be replayed after it, even if the
 *  memory is registered again: capture it anew.
 *  TUTTI_E_ARG if `window` is not a window of `comm`. NULL on all ranks is fine. */
TUTTI_API tutti_result tutti_window_deregister(tutti_comm *comm, tutti_window *window);

/** The window that holds all of ptr[0 .. bytes), or NULL. Local, and constant time: a few nanoseconds on GPUs,
 *  and in host memory where a window has been found before, which else goes through all windows of `comm`. */
TUTTI_API tutti_window *tutti_window_find(tutti_comm *comm, const void *ptr, size_t bytes);

/* ------------------------------------------------------------------ torch's memory pools ----- */

/*
 * For torch.cuda.memory.CUDAPluggableAllocator(libtutti.so, "tutti_torch_alloc", "tutti_torch_free"):
 * tensors of a torch.cuda.MemPool with this allocator lie in memory that peers can map, and in windows
 * of the communicator that was pushed when their segment was allocated. docs/guide.md has the lines.
 *
 *     tutti_torch_push_comm(comm);    // tensors are allocated in the pool
 *     tutti_torch_pop_comm();         // from here on calls on them copy nothing that they need not
 *
 * Registration is collective, but torch takes and returns segments when it likes. So neither of the two
 * hooks waits for a peer; all that the ranks have to agree on is done by tutti_torch_pop_comm().
 */

/**
 * `bytes` zeroed bytes of GPU `device`; NULL, with a text in tutti_last_error(), if there are none.
 *
 * Windows   If the last communicator that this thread has pushed is on that GPU, the memory is made a
 *           window of it when it is popped. Otherwise it is memory as of tutti_mem_alloc(), which
 *           tutti_window_register() takes.
 * Stream    Not used: the memory is ready on return. Legal while a stream is being captured.
 * Threads   Any.
 */
TUTTI_API void *tutti_torch_alloc(ptrdiff_t bytes, int device, tutti_stream stream);

/**
 * Give memory of tutti_torch_alloc() back; `ptr` may be NULL, the other arguments are not looked at. Waits
 * for the work on the GPU, as cudaFree does, and for nobody else. At any time, in any order, also
 * when the communicator is no more.
 *
 * Memory    That of a window goes back to the GPU when this rank next pops the communicator or
 *           destroys it, since peers may have it mapped until then.
 * Threads   Any.
 * Errors    A pointer that is not such memory is left alone; a line in the log says so.
 */
TUTTI_API void tutti_torch_free(void *ptr, ptrdiff_t bytes, int device, tutti_stream stream);

/**
 * What this thread allocates by tutti_torch_alloc() from here on is for `comm`, of GPUs; NULL: for none.
 * Local. Pushes nest, up to 16 deep. `comm` may be destroyed while it is pushed: what is allocated
 * then is for none.
 * Errors    TUTTI_E_ARG (not a communicator of GPUs, too many), TUTTI_E_MEMORY: nothing is pushed.
 */
TUTTI_API tutti_result tutti_torch_push_comm(tutti_comm *comm);

/**
 * Undo this thread's last push, in any case, and bring the windows of its communicator up to date:
 * what all ranks have allocated alike for it since the last time becomes windows, and what any rank
 * has given back is none any more, on all ranks.
 *
 * Order       Collective over that communicator, like a barrier of the hosts (microseconds where there
 *             is nothing new); local if NULL was pushed. Legal during capture.
 * Symmetry    The ranks' tensors must lie at the same offsets in segments allocated in the same order,
 *             as with equal programs: all that tutti_window_register() says of GPUs applies. Use one
 *             pool for each communicator.
 * Errors      TUTTI_E_MISMATCH: the ranks have not allocated alike: what is unlike, and all after it, stays
 *             unregistered on all ranks. The memory, and other than elsewhere the communicator, are good:
 *             calls go the way of ordinary buffers. TUTTI_E_UNSUPPORTED, _MEMORY, _SYSTEM: the same,
 *             for segments that could not be registered. TUTTI_E_ARG: nothing was pushed, a group
 *             is open, or the communicator is no more; or the program has registered a part of a segment,
 *             which then is no window as a whole. TUTTI_E_TIMEOUT, _PEER, _ABORTED: the
 *             communicator has failed; the memory is good.
 */
TUTTI_API tutti_result tutti_torch_pop_comm(void);

/* ------------------------------------------------------------------ looking inside ----------- */

/* Where the time of a rank's calls went. Small calls are timed one in 16 and scaled. */
typedef struct tutti_stats {
    uint32_t size; /* sizeof(tutti_stats), set by the caller */
    int32_t rank;
    uint64_t n_calls;   /* collectives, sends and receives */
    uint64_t n_bytes;   /* bytes of the larger side of each call */
    uint64_t wait_ns;   /* until the last peer arrived: skew of the ranks, not speed of tutti */
    uint64_t copy_ns;   /* moving data */
    uint64_t reduce_ns; /* reducing it, loads from the peers included */
    uint64_t sync_ns;   /* waiting for peers in the middle and at the end of calls */
    uint64_t n_sleeps;  /* waits so long that the rank went to sleep */
    uint64_t sequence;  /* of the last collective begun */
    char last_call[32]; /* "all_reduce f32 sum" */
    uint64_t last_bytes;
    uint64_t n_refused; /* messages and connections of strangers: forged, malformed */
} tutti_stats;
#define TUTTI_STATS_INIT TUTTI_INIT_(tutti_stats)

/** Counters of any rank of `comm`, as last published. Any thread. On GPUs only calls and bytes (and
 *  n_refused), and those of other ranks are 0, as are those of ranks on other hosts. */
TUTTI_API tutti_result tutti_comm_stats(const tutti_comm *comm, int rank, tutti_stats *stats);

/* A communicator of another process of this user, read from outside without disturbing it. */
typedef struct tutti_live_comm {
    uint32_t size;
    int32_t pid; /* the process that it was found in */
    int32_t rank;
    int32_t n_ranks;
    int32_t failed; /* 1 once the communicator has failed */
    char name[32];
} tutti_live_comm;

/**
 * Visit the CPU communicators of process `pid` (0: of all processes that may be read), each with
 * the counters of all its ranks, stats[comm->n_ranks]. Stops when `visit` returns non-zero.
 * Returns TUTTI_OK also when there is none. Any thread.
 */
typedef int (*tutti_live_fn)(void *context, const tutti_live_comm *comm, const tutti_stats stats[]);
TUTTI_API tutti_result tutti_live_visit(int pid, tutti_live_fn visit, void *context);

/* One TUTTI_* variable. */
typedef struct tutti_env_entry {
    uint32_t size;
    const char *name;
    const char *type;          /* "text", "number", "bytes", "time", "choice"; "unknown" */
    const char *default_value; /* as text */
    const char *value;         /* in force for this process now */
    const char *source;        /* "default" or "environment" */
    const char *help;
    const char *problem; /* NULL, or what is wrong: a value that cannot be read, an unknown name */
} tutti_env_entry;
#define TUTTI_ENV_ENTRY_INIT TUTTI_INIT_(tutti_env_entry)

/** The index'th variable, from 0; behind those that tutti has, each TUTTI_* of the environment that it has not
 *  (its value is not shown). TUTTI_E_ARG past the last. The strings live until the next call in
 *  this thread. */
TUTTI_API tutti_result tutti_env_describe(size_t index, tutti_env_entry *entry);

/**
 * What this build can do on this machine, one fact per index, from 0: a name, whether it is good,
 * and if not what to do about it. TUTTI_E_ARG past the last. Strings as in tutti_env_describe().
 */
typedef struct tutti_capability {
    uint32_t size;
    const char *name;   /* "cross-memory copies" */
    int32_t good;       /* 1 as it should be, 0 could be better, -1 missing */
    const char *value;  /* "available" */
    const char *remedy; /* NULL, or what to do */
} tutti_capability;
#define TUTTI_CAPABILITY_INIT TUTTI_INIT_(tutti_capability)
TUTTI_API tutti_result tutti_capability_describe(size_t index, tutti_capability *capability);

/**
 * The index'th algorithm for collective `collective` ("all_reduce") that tutti_comm_config.algorithm
 * accepts: its name in *name_out. TUTTI_E_ARG past the last or for an unknown collective. For tuners.
 */
TUTTI_API tutti_result tutti_algorithm_name(const char *collective, size_t index,
                                            const char **name_out);

/* Levels of log lines. TUTTI_LOG sets the finest that is written; default: warn. */
typedef enum tutti_log_level {
    TUTTI_LOG_ERROR = 0,
    TUTTI_LOG_WARN = 1,
    TUTTI_LOG_INFO = 2,
    TUTTI_LOG_DEBUG = 3,
    TUTTI_LOG_TRACE = 4,
} tutti_log_level;

/** Send log lines to `handler` instead of standard error; NULL restores that. Process-wide; call it
 *  before anything else. The handler may be called by any thread. */
typedef void (*tutti_log_fn)(void *context, tutti_log_level level, const char *line);
TUTTI_API void tutti_log_set(tutti_log_fn handler, void *context);

#ifdef __cplusplus
}
#endif

#endif /* TUTTI_TUTTI_H */
