/* NCCL as a peer: its C interface as far as the benchmark uses it, declared here and found at run
 * time. */
#include "gpu_bench.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct nccl_id {
    char bytes[128];
};
typedef struct ncclComm *nccl_comm;
typedef struct ncclWindow_vidmem *nccl_window;

#define NCCL_WINDOW_SYMMETRIC 1

/* X(name, arguments); all return 0 for success. */
#define NCCL_FUNCTIONS(X)                                                                          \
    X(ncclGetVersion, (int *version))                                                              \
    X(ncclGetUniqueId, (struct nccl_id * id))                                                      \
    X(ncclCommInitRank, (nccl_comm * comm, int n_ranks, struct nccl_id id, int rank))              \
    X(ncclCommDestroy, (nccl_comm comm))                                                           \
    X(ncclAllReduce, (const void *send, void *recv, size_t count, int dtype, int op,               \
                      nccl_comm comm, tutti_stream stream))                                        \
    X(ncclReduceScatter, (const void *send, void *recv, size_t count, int dtype, int op,           \
                          nccl_comm comm, tutti_stream stream))                                    \
    X(ncclAllGather, (const void *send, void *recv, size_t count, int dtype, nccl_comm comm,       \
                      tutti_stream stream))                                                        \
    X(ncclBroadcast, (const void *send, void *recv, size_t count, int dtype, int root,             \
                      nccl_comm comm, tutti_stream stream))                                        \
    X(ncclReduce, (const void *send, void *recv, size_t count, int dtype, int op, int root,        \
                   nccl_comm comm, tutti_stream stream))                                           \
    X(ncclSend,                                                                                    \
      (const void *send, size_t count, int dtype, int peer, nccl_comm comm, tutti_stream stream))  \
    X(ncclRecv,                                                                                    \
      (void *recv, size_t count, int dtype, int peer, nccl_comm comm, tutti_stream stream))        \
    X(ncclGroupStart, (void))                                                                      \
    X(ncclGroupEnd, (void))

/* From 2.27 and 2.28 on. */
#define NCCL_NEW_FUNCTIONS(X)                                                                      \
    X(ncclMemAlloc, (void **ptr, size_t bytes))                                                    \
    X(ncclMemFree, (void *ptr))                                                                    \
    X(ncclCommWindowRegister,                                                                      \
      (nccl_comm comm, void *ptr, size_t bytes, nccl_window *window, int flags))                   \
    X(ncclCommWindowDeregister, (nccl_comm comm, nccl_window window))                              \
    X(ncclAlltoAll, (const void *send, void *recv, size_t count, int dtype, nccl_comm comm,        \
                     tutti_stream stream))

struct gpu_nccl {
#define NCCL_MEMBER_(name, arguments) int(*name) arguments;
    NCCL_FUNCTIONS(NCCL_MEMBER_)
    NCCL_NEW_FUNCTIONS(NCCL_MEMBER_)
#undef NCCL_MEMBER_
    const char *(*error_string)(int result);
    const char *(*last_error)(nccl_comm comm);
    nccl_comm comm;
    nccl_window windows[2];
    void *buffers[2];
    char name[40];
};

/* ---- the library ---- */

/* The first line that a program prints; empty if it does not run. */
static void first_line(char *const argv[], char *text, size_t size)
{
    int ends[2];
    pid_t pid;
    ssize_t n;
    size_t used = 0;

    text[0] = '\0';
    if (pipe(ends) != 0)
        return;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    while (used + 1 < size && (n = read(ends[0], text + used, size - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    text[strcspn(text, "\n")] = '\0';
    close(ends[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

void gpu_nccl_find(char *path, size_t size)
{
    static char script[] = "from importlib.util import find_spec\n"
                           "spec = find_spec('nvidia.nccl')\n"
                           "print(list(spec.submodule_search_locations)[0])\n";
    static char program[] = "python3";
    static char option[] = "-c";
    char *const argv[] = {program, option, script, NULL};
    char folder[400];

    path[0] = '\0';
    first_line(argv, folder, sizeof(folder));
    if (folder[0] == '/')
        snprintf(path, size, "%s/lib/libnccl.so.2", folder);
}

static void *open_library(const struct bench_options *options, char *why, size_t size)
{
    const char *named = options->nccl_named;
    void *library = dlopen(named ? named : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

    if (!library)
        snprintf(why, size, "no NCCL (%.200s); TUTTI_NCCL_LIBRARY names one", dlerror());
    if (!library && !named && *options->nccl_wheel)
        library = dlopen(options->nccl_wheel, RTLD_NOW | RTLD_LOCAL);
    return library;
}

static int find_functions(struct gpu_nccl *nccl, void *library, char *why, size_t size)
{
#define NCCL_FIND_(name, arguments)                                                                \
    if (gpu_symbol(library, #name, &nccl->name) != 0) {                                            \
        snprintf(why, size, "this NCCL has no %s: too old", #name);                                \
        return -1;                                                                                 \
    }
#define NCCL_FIND_NEW_(name, arguments) gpu_symbol(library, #name, &nccl->name);
    NCCL_FUNCTIONS(NCCL_FIND_)
    NCCL_NEW_FUNCTIONS(NCCL_FIND_NEW_)
#undef NCCL_FIND_
#undef NCCL_FIND_NEW_
    gpu_symbol(library, "ncclGetErrorString", &nccl->error_string);
    gpu_symbol(library, "ncclGetLastError", &nccl->last_error);
    return 0;
}

/* ---- the communicator ---- */

static int join(struct gpu_rank *rank, struct gpu_nccl *nccl, char *why, size_t size)
{
    struct nccl_id *id = (struct nccl_id *)(void *)rank->board->shared->peer_id;
    int result = rank->rank == 0 ? nccl->ncclGetUniqueId(id) : 0;
    const int failed = gpu_any(rank, result != 0); /* and the id is there */

    if (failed == 0 && rank->board->job &&
        bench_job_tell(rank->board->job, id, sizeof(*id)) != TUTTI_OK) {
        snprintf(why, size, "the ranks lost each other: %.200s", tutti_last_error());
        return -1;
    }
    if (failed == 0)
        result = nccl->ncclCommInitRank(&nccl->comm, rank->board->n_ranks, *id, rank->rank);
    if (failed == 0 && result == 0)
        return 0;
    snprintf(why, size, "NCCL does not start: %.200s", gpu_nccl_error(nccl, result));
    return -1;
}

struct gpu_nccl *gpu_nccl_open(struct gpu_rank *rank, char *why, size_t size)
{
    struct gpu_nccl *nccl = cli_alloc(sizeof(*nccl));
    void *library = open_library(rank->options, why, size);
    int failed = !library || find_functions(nccl, library, why, size) != 0;
    int version = 0;
    int any = gpu_any(rank, failed);

    if (any == 0) {
        nccl->ncclGetVersion(&version);
        snprintf(nccl->name, sizeof(nccl->name), "NCCL %d.%d.%d", version / 10000,
                 version / 100 % 100, version % 100);
        failed = join(rank, nccl, why, size) != 0;
        any = gpu_any(rank, failed);
    }
    if (any == 0)
        return nccl;
    if (!failed)
        snprintf(why, size, "another rank could not start NCCL");
    free(nccl);
    return NULL;
}

const char *gpu_nccl_name(const struct gpu_nccl *nccl)
{
    return nccl->name;
}

const char *gpu_nccl_error(const struct gpu_nccl *nccl, int result)
{
    const char *last = nccl->last_error ? nccl->last_error(nccl->comm) : "";
    static char text[300];

    snprintf(text, sizeof(text), "%s%s%.200s",
             nccl->error_string ? nccl->error_string(result) : "an error",
             last && *last ? ": " : "", last ? last : "");
    return text;
}

int gpu_nccl_symmetric(struct gpu_rank *rank, gpu_ptr buffers_out[2], char *why, size_t size)
{
    struct gpu_nccl *nccl = rank->nccl;
    const int has = nccl->ncclMemAlloc && nccl->ncclMemFree && nccl->ncclCommWindowRegister &&
                    nccl->ncclCommWindowDeregister;
    int failed = !has;
    int result = 0;

    if (!has)
        snprintf(why, size, "%s has no symmetric windows (2.27 and later do)", nccl->name);
    for (int i = 0; i < 2 && has; i++) {
        int any;

        if (result == 0)
            result = nccl->ncclMemAlloc(&nccl->buffers[i], rank->region_bytes);
        any = gpu_any(rank, result != 0);
        if (any == 0)
            result = nccl->ncclCommWindowRegister(nccl->comm, nccl->buffers[i], rank->region_bytes,
                                                  &nccl->windows[i], NCCL_WINDOW_SYMMETRIC);
        failed |= any != 0 || result != 0;
        buffers_out[i] = (gpu_ptr)(uintptr_t)nccl->buffers[i];
    }
    if (has && failed)
        snprintf(why, size, "NCCL does not register symmetric buffers: %.200s",
                 gpu_nccl_error(nccl, result));
    return gpu_any(rank, failed) == 0 ? 0 : -1;
}

void gpu_nccl_close(struct gpu_nccl *nccl)
{
    if (!nccl)
        return;
    for (int i = 0; i < 2; i++)
        if (nccl->windows[i])
            nccl->ncclCommWindowDeregister(nccl->comm, nccl->windows[i]);
    for (int i = 0; i < 2; i++)
        if (nccl->buffers[i])
            nccl->ncclMemFree(nccl->buffers[i]);
    nccl->ncclCommDestroy(nccl->comm);
    free(nccl);
}

/* ---- calls ---- */

static int dtype_of(tutti_dtype dtype)
{
    static const int numbers[TUTTI_N_DTYPES] = {
        [TUTTI_DTYPE_F32] = 7, [TUTTI_DTYPE_F16] = 6,   [TUTTI_DTYPE_BF16] = 9,
        [TUTTI_DTYPE_F64] = 8, [TUTTI_DTYPE_I8] = 0,    [TUTTI_DTYPE_U8] = 1,
        [TUTTI_DTYPE_I32] = 2, [TUTTI_DTYPE_U32] = 3,   [TUTTI_DTYPE_I64] = 4,
        [TUTTI_DTYPE_U64] = 5, [TUTTI_DTYPE_E4M3] = 10, [TUTTI_DTYPE_E5M2] = 11,
    };

    return numbers[dtype]; /* operations have the same numbers as ours */
}

int gpu_nccl_can(const struct gpu_nccl *nccl, const struct bench_call *call)
{
    (void)nccl;
    switch (call->id) {
    case BENCH_ALL_GATHERV_ROWS:
    case BENCH_BARRIER: return 0;
    case BENCH_ALL_TO_ALL: return !call->in_place;
    default: return 1;
    }
}

/* Blocks of send to all ranks and blocks of recv from all, in a group. */
static int exchange(const struct gpu_nccl *nccl, const struct bench_call *c)
{
    const size_t bytes = tutti_dtype_bytes(c->dtype);
    const int dtype = dtype_of(c->dtype);
    const int v = c->id == BENCH_ALL_TO_ALLV;
    int failed = 0;

    for (int r = 0; r < c->n_ranks; r++) {
        const size_t at = (v ? c->displs[r] : c->count * (size_t)r) * bytes;

        failed |= nccl->ncclSend((const char *)c->send + at, v ? c->send_counts[r] : c->count,
                                 dtype, r, nccl->comm, c->stream);
        failed |= nccl->ncclRecv((char *)c->recv + at, v ? c->recv_counts[r] : c->count, dtype, r,
                                 nccl->comm, c->stream);
    }
    return failed;
}

/* Blocks of root's send to all ranks, or of all ranks to root's recv, in a group. */
static int rooted(const struct gpu_nccl *nccl, const struct bench_call *c)
{
    const size_t block = c->count * tutti_dtype_bytes(c->dtype);
    const int dtype = dtype_of(c->dtype);
    const int gathers = c->id == BENCH_GATHER;
    int failed = 0;

    for (int r = 0; r < c->n_ranks && c->rank == c->root; r++) {
        const size_t at = block * (size_t)r;

        if (r == c->root && c->in_place)
            continue;
        failed |= gathers ? nccl->ncclRecv((char *)c->recv + at, c->count, dtype, r, nccl->comm,
                                           c->stream)
                          : nccl->ncclSend((const char *)c->send + at, c->count, dtype, r,
                                           nccl->comm, c->stream);
    }
    if (c->rank == c->root && c->in_place)
        return failed;
    return failed |
           (gathers ? nccl->ncclSend(c->send, c->count, dtype, c->root, nccl->comm, c->stream)
                    : nccl->ncclRecv(c->recv, c->count, dtype, c->root, nccl->comm, c->stream));
}

/* A broadcast or a reduction for each rank's share, in a group. */
static int uneven(const struct gpu_nccl *nccl, const struct bench_call *c)
{
    const size_t bytes = tutti_dtype_bytes(c->dtype);
    const int dtype = dtype_of(c->dtype);
    size_t at = 0;
    int failed = 0;

    for (int r = 0; r < c->n_ranks; at += c->counts[r++] * bytes) {
        if (c->counts[r] == 0)
            continue;
        failed |= c->id == BENCH_ALL_GATHERV
                      ? nccl->ncclBroadcast(c->send, (char *)c->recv + at, c->counts[r], dtype, r,
                                            nccl->comm, c->stream)
                      : nccl->ncclReduce((const char *)c->send + at, c->recv, c->counts[r], dtype,
                                         (int)c->op, r, nccl->comm, c->stream);
    }
    return failed;
}

static int ring(const struct gpu_nccl *nccl, const struct bench_call *c)
{
    const int dtype = dtype_of(c->dtype);
    const int n = c->n_ranks;

    return nccl->ncclSend(c->send, c->count, dtype, (c->rank + 1) % n, nccl->comm, c->stream) |
           nccl->ncclRecv(c->recv, c->count, dtype, (c->rank + n - 1) % n, nccl->comm, c->stream);
}

static int group(const struct gpu_nccl *nccl, const struct bench_call *c)
{
    const int begun = nccl->ncclGroupStart();
    int failed;
    int ended;

    if (begun)
        return begun;
    switch (c->id) {
    case BENCH_GATHER:
    case BENCH_SCATTER: failed = rooted(nccl, c); break;
    case BENCH_ALL_GATHERV:
    case BENCH_REDUCE_SCATTERV: failed = uneven(nccl, c); break;
    case BENCH_SENDRECV: failed = ring(nccl, c); break;
    default: failed = exchange(nccl, c); break;
    }
    ended = nccl->ncclGroupEnd();
    return ended ? ended : failed;
}

int gpu_nccl_run(const struct gpu_nccl *nccl, const struct bench_call *c)
{
    const int dtype = dtype_of(c->dtype);
    const int op = (int)c->op;

    switch (c->id) {
    case BENCH_ALL_REDUCE:
        return nccl->ncclAllReduce(c->send, c->recv, c->count, dtype, op, nccl->comm, c->stream);
    case BENCH_REDUCE_SCATTER:
        return nccl->ncclReduceScatter(c->send, c->recv, c->count, dtype, op, nccl->comm,
                                       c->stream);
    case BENCH_ALL_GATHER:
        return nccl->ncclAllGather(c->send, c->recv, c->count, dtype, nccl->comm, c->stream);
    case BENCH_BROADCAST:
        return nccl->ncclBroadcast(c->send, c->recv, c->count, dtype, c->root, nccl->comm,
                                   c->stream);
    case BENCH_REDUCE:
        return nccl->ncclReduce(c->send, c->recv, c->count, dtype, op, c->root, nccl->comm,
                                c->stream);
    case BENCH_ALL_TO_ALL:
        if (nccl->ncclAlltoAll)
            return nccl->ncclAlltoAll(c->send, c->recv, c->count, dtype, nccl->comm, c->stream);
        return group(nccl, c);
    default: return group(nccl, c);
    }
}
