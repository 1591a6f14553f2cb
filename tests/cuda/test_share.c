/* Devices, memory that all ranks map, and windows, with no engine around them. Run by hand without
 * TUTTI_CUDA_LIBRARY it takes real GPUs, and leaves out what only a simulated one can do. */
/* ctest: processors=3 */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "cuda/cuda.h"
#include "cuda/share_map.h"
#include "support/job.h"
#include "support/proc.h"

#define MIB      ((size_t)1 << 20)
#define CU(call) T_CHECK((call) == CUDA_SUCCESS, "%s failed on rank %d", #call, t->rank)

static const struct tt_cuda_driver *cu;

static int is_simulated(void)
{
    const char *library = getenv("TUTTI_CUDA_LIBRARY");

    return library && *library;
}

/* What the simulated driver holds for this process: allocations, mappings, streams, contexts. */
static int n_objects(void)
{
    void *library = is_simulated() ? dlopen(getenv("TUTTI_CUDA_LIBRARY"), RTLD_NOW) : NULL;
    void *at = library ? dlsym(library, "tt_sim_n_objects") : NULL;
    int (*count)(void) = NULL;
    int n = 0;

    memcpy(&count, &at, sizeof(at));
    if (count)
        n = count();
    if (library)
        dlclose(library);
    return n;
}

/* ---- an engine that can do nothing but share ---- */

struct part {
    struct tt_engine e;
    struct tt_cuda_report report;
    struct t_rank *t;
    size_t n_fds;
    int entered;
};

static tutti_result gather(void *context, const void *send, void *recv, size_t bytes)
{
    return t_exchange(context, send, recv, bytes) == 0
               ? TUTTI_OK
               : TT_FAIL(TUTTI_E_SYSTEM, "the test's exchange failed");
}

static int device_of(const struct t_rank *t)
{
    int n = 0;

    T_OK(tt_cuda_n_devices(&n));
    return t->rank % n;
}

static struct part *begin_on(struct t_rank *t, int device)
{
    struct part *p = calloc(1, sizeof(*p));

    T_CHECK(p, "no memory");
    cu = tt_cuda_driver();
    if (!cu)
        t_skip("%s", tt_error_text());
    p->t = t;
    p->n_fds = t_count_fds();
    p->e.rank = t->rank;
    p->e.n_ranks = t->n_ranks;
    p->e.timeout_ns = UINT64_C(10000000000);
    p->e.report = &p->report;
    memset(p->e.key, 7, sizeof(p->e.key));
    p->e.exchange.rank = t->rank;
    p->e.exchange.n_ranks = t->n_ranks;
    p->e.exchange.all_gather = gather;
    p->e.exchange.context = t;
    T_OK(tt_cuda_device_open(device, &p->e.device));
    T_OK(tt_cuda_enter(p->e.device, &p->entered));
    return p;
}

static struct part *begin(struct t_rank *t)
{
    return begin_on(t, device_of(t));
}

/* All is given back, here and in the driver. */
static void end(struct part *p)
{
    struct t_rank *t = p->t;

    tt_cuda_windows_free(&p->e);
    tt_fd_mesh_close(p->e.mesh);
    tt_cuda_leave(p->entered);
    tt_cuda_device_close(p->e.device);
    t_meet(t);
    T_CHECK(n_objects() == 0, "rank %d left %d objects of the driver", t->rank, n_objects());
    if (!t->job->threads)
        T_CHECK(!is_simulated() || t_count_fds() == p->n_fds,
                "rank %d: %zu descriptors, %zu before", t->rank, t_count_fds(), p->n_fds);
    free(p);
    t_meet(t);
}

static uint64_t word(int from, int to, size_t at)
{
    return t_hash((uint64_t)from << 32 | (uint64_t)to, at);
}

/* Everybody writes to everybody at `at`, at the beginning and the end, and finds what was written. */
static void check_reach(struct part *p, unsigned char *const at[], size_t bytes)
{
    struct t_rank *t = p->t;
    const size_t places[] = {(size_t)t->rank * 8, bytes - 8 * (size_t)(t->n_ranks - t->rank),
                             bytes / 2 / 8 * 8 + (size_t)t->rank * 8};

    t_meet(t);
    for (int r = 0; r < t->n_ranks; r++)
        for (size_t i = 0; i < T_LEN(places); i++) {
            const uint64_t w = word(t->rank, r, i);

            T_OK(tt_cuda_write(at[r] + places[i], &w, sizeof(w)));
        }
    t_meet(t);
    for (int r = 0; r < t->n_ranks; r++)
        for (size_t i = 0; i < T_LEN(places); i++) {
            const size_t place = places[i] + (size_t)r * 8 - (size_t)t->rank * 8;
            uint64_t w = 0;

            T_OK(tt_cuda_read(&w, at[t->rank] + place, sizeof(w)));
            T_CHECK(w == word(r, t->rank, i), "rank %d: word %zu of rank %d did not arrive",
                    t->rank, i, r);
        }
    t_meet(t);
}

/* ---- devices ---- */

static void devices_body(struct t_rank *t)
{
    struct part *p = begin_on(t, 0);
    struct tt_cuda_device *again = NULL;
    CUcontext context = NULL;
    int n = 0, entered = 1;

    T_OK(tt_cuda_n_devices(&n));
    T_IS(TUTTI_E_ARG, tt_cuda_device_open(n, &again));
    T_IS(TUTTI_E_ARG, tt_cuda_device_open(-1, &again));
    T_OK(tt_cuda_device_open(0, &again));
    T_CHECK(again == p->e.device && again->n_users == 2, "a GPU was opened twice");
    T_CHECK(again->n_sms > 0 && again->major > 0 && again->name[0], "a GPU without properties");
    T_OK(tt_cuda_enter(again, &entered));
    T_CHECK(entered == 0, "the context was current");
    CU(cu->cuCtxPushCurrent_v2(again->context));
    CU(cu->cuCtxPopCurrent_v2(&context));
    tt_cuda_device_close(again);
    for (int i = 0; i < TT_N_CUDA_KERNELS; i++)
        T_CHECK(p->e.device->kernel[i], "kernel %d is not loaded", i);
    end(p);
}

static void devices(void **state)
{
    (void)state;
    t_run(&(struct t_job){.n_ranks = 1, .body = devices_body, .no_comm = 1});
}

static void no_driver_body(struct t_rank *t)
{
    int n;

    (void)t;
    for (int i = 0; i < 2; i++) {
        T_IS(TUTTI_E_UNSUPPORTED, tt_cuda_n_devices(&n));
        T_CONTAINS(tt_error_text(), "no CUDA driver: ");
    }
}

/* Run the job with a variable of the environment set for it. */
static void with(const char *name, const char *value, const struct t_job *job)
{
    const char *old = getenv(name);
    char before[512] = "", text[4096];
    int failed;

    if (old)
        snprintf(before, sizeof(before), "%s", old);
    setenv(name, value, 1);
    failed = t_run_quietly(job, text, sizeof(text));
    if (old)
        setenv(name, before, 1);
    else
        unsetenv(name);
    T_CHECK(!failed, "with %s=%s: %s", name, value, text);
}

static void no_driver(void **state)
{
    const struct t_job job = {.n_ranks = 1, .body = no_driver_body, .no_comm = 1};

    (void)state;
    with("TUTTI_CUDA_LIBRARY", "libtutti-no-such-driver.so", &job);
    with("TUTTI_CUDA_LIBRARY", "libm.so.6", &job);
    if (is_simulated()) {
        with("T_SIM_VERSION", "11080", &job);
        with("T_SIM_GPUS", "0", &job);
    }
}

/* ---- memory made for sharing ---- */

static void alloc_body(struct t_rank *t)
{
    struct part *p = begin(t);
    const size_t bytes = 5 * MIB + 8192;
    unsigned char *host = malloc(bytes);
    struct tt_cuda_share share = {0}, small = {0};

    T_CHECK(host, "no memory");
    T_OK(tt_cuda_share_alloc(&p->e, bytes, &share));
    T_OK(tt_cuda_share_alloc(&p->e, 4096, &small));
    T_CHECK(share.bytes == bytes, "%zu bytes", share.bytes);
    T_OK(tt_cuda_share_verify(&p->e, &share));
    T_OK(tt_cuda_read(host, share.at[t->rank], bytes));
    for (size_t i = 0; i < bytes; i++)
        T_CHECK(host[i] == 0, "byte %zu is not zero", i);
    check_reach(p, share.at, bytes);
    check_reach(p, small.at, 4096);
    tt_cuda_share_close(&p->e, &share);
    tt_cuda_share_close(&p->e, &share);
    tt_cuda_share_close(&p->e, &small);
    free(host);
    end(p);
}

static void alloc(void **state)
{
    (void)state;
    for (int n = 1; n <= 4; n++)
        t_run(&(struct t_job){.n_ranks = n, .body = alloc_body, .no_comm = 1});
    t_run(&(struct t_job){.n_ranks = 3, .body = alloc_body, .no_comm = 1, .threads = 1});
}

static void alloc_one_gpu(void **state)
{
    const struct t_job job = {.n_ranks = 3, .body = alloc_body, .no_comm = 1};
    const struct t_job threads = {.n_ranks = 3, .body = alloc_body, .no_comm = 1, .threads = 1};

    (void)state;
    with("T_SIM_GPUS", "1", &job);
    with("T_SIM_GPUS", "1", &threads);
}

/* One GPU that cannot is enough: all use IPC. */
static void alloc_ipc(void **state)
{
    const struct t_job job = {.n_ranks = 3, .body = alloc_body, .no_comm = 1};
    const struct t_job threads = {.n_ranks = 3, .body = alloc_body, .no_comm = 1, .threads = 1};

    (void)state;
    with("T_SIM_NO_VMM", "all", &job);
    with("T_SIM_NO_VMM", "1", &job);
    with("T_SIM_NO_VMM", "1", &threads);
}

struct failure {
    tutti_result result;
    const char *text;
};

static void alloc_fails_body(struct t_rank *t)
{
    const struct failure *want = t->arg;
    struct part *p = begin(t);
    struct tt_cuda_share share = {0};

    T_IS(want->result, tt_cuda_share_alloc(&p->e, MIB, &share));
    T_CONTAINS(tt_error_text(), want->text);
    if (t->rank != 1)
        T_CONTAINS(tt_error_text(), "rank 1 could not");
    T_CHECK(!share.mappings, "something is left");
    end(p);
}

static void alloc_fails(void **state)
{
    struct failure memory = {TUTTI_E_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"};
    struct failure import = {TUTTI_E_SYSTEM, "CUDA_ERROR_INVALID_DEVICE"};
    struct t_job job = {.n_ranks = 3, .body = alloc_fails_body, .no_comm = 1, .arg = &memory};

    (void)state;
    if (!is_simulated())
        return;
    with("T_SIM_NO_MEMORY", "1", &job);
    job.arg = &import;
    with("T_SIM_FAIL_IMPORT", "1", &job);
}

/* The proof must be able to fail: two ranks' memory is taken for each other's. */
static void verify_fails_body(struct t_rank *t)
{
    struct part *p = begin(t);
    struct tt_cuda_share share = {0};
    unsigned char *one;

    T_OK(tt_cuda_share_alloc(&p->e, MIB, &share));
    if (t->rank == 0) {
        one = share.at[1];
        share.at[1] = share.at[2];
        share.at[2] = one;
    }
    T_IS(TUTTI_E_SYSTEM, tt_cuda_share_verify(&p->e, &share));
    T_CONTAINS(tt_error_text(), "did not arrive");
    tt_cuda_share_close(&p->e, &share);
    end(p);
}

static void verify_fails(void **state)
{
    (void)state;
    t_run(&(struct t_job){.n_ranks = 3, .body = verify_fails_body, .no_comm = 1});
}

/* ---- memory that exists ---- */

/* Pieces first .. n of `piece` bytes side by side, as PyTorch's expandable segments are. */
static void pieces_map(struct part *p, unsigned char *pieces, int first, int n, size_t piece,
                       int handle_type)
{
    const CUdeviceptr at = (CUdeviceptr)(uintptr_t)pieces;
    struct t_rank *t = p->t;
    const CUmemAllocationProp prop = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .requestedHandleTypes = handle_type,
        .location = {CU_MEM_LOCATION_TYPE_DEVICE, p->e.device->handle}};
    const CUmemAccessDesc access = {.location = prop.location,
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle handle;

    for (int i = first; i < n; i++) {
        CU(cu->cuMemCreate(&handle, piece, &prop, 0));
        CU(cu->cuMemMap(at + (size_t)i * piece, piece, 0, handle, 0));
        CU(cu->cuMemRelease(handle));
    }
    CU(cu->cuMemSetAccess(at + (size_t)first * piece, (size_t)(n - first) * piece, &access, 1));
}

static unsigned char *pieces_new(struct part *p, int n, size_t piece, int handle_type)
{
    struct t_rank *t = p->t;
    CUdeviceptr at;

    CU(cu->cuMemAddressReserve(&at, (size_t)n * piece, 0, 0, 0));
    pieces_map(p, (unsigned char *)(uintptr_t)at, 0, n, piece, handle_type);
    return (unsigned char *)(uintptr_t)at;
}

static void pieces_free(struct part *p, unsigned char *pieces, int n, size_t piece)
{
    struct t_rank *t = p->t;

    for (int i = 0; i < n; i++)
        CU(cu->cuMemUnmap((CUdeviceptr)(uintptr_t)pieces + (size_t)i * piece, piece));
    CU(cu->cuMemAddressFree((CUdeviceptr)(uintptr_t)pieces, (size_t)n * piece));
}

/* Register, reach, find, deregister; the offset may differ between ranks. */
static void try_window(struct part *p, unsigned char *ptr, size_t bytes)
{
    unsigned char *at[TT_CUDA_MAX_RANKS];
    tutti_window *w = NULL;

    T_OK(tt_cuda_window_register(&p->e, ptr, bytes, &w));
    T_CHECK(tt_cuda_window_find(&p->e, ptr, bytes) == w, "not found");
    T_CHECK(tt_cuda_window_find(&p->e, ptr + bytes - 1, 1) == w, "its end was not found");
    T_CHECK(!tt_cuda_window_find(&p->e, ptr - 1, 1), "found before the beginning");
    T_CHECK(!tt_cuda_window_find(&p->e, ptr, bytes + 1), "found beyond the end");
    T_CHECK(!tt_cuda_window_find(&p->e, ptr + bytes, 1), "found after the end");
    for (int r = 0; r < p->e.n_ranks; r++)
        at[r] = tt_cuda_window_at(w, ptr, r);
    T_CHECK(at[p->e.rank] == ptr, "its own memory is elsewhere");
    T_CHECK(tt_cuda_window_at(w, ptr + 100, 0) == at[0] + 100, "an offset is lost");
    check_reach(p, at, bytes);
    T_OK(tt_cuda_window_deregister(&p->e, w));
    T_CHECK(!tt_cuda_window_find(&p->e, ptr, bytes) && !p->e.windows, "found after deregistering");
}

static void existing_body(struct t_rank *t)
{
    struct part *p = begin(t);
    const size_t piece = 2 * MIB;
    unsigned char *pieces = NULL;
    CUdeviceptr plain;
    void *ours;

    T_OK(tt_cuda_mem_alloc(&p->e, 3 * MIB, &ours));
    CU(cu->cuMemAlloc_v2(&plain, 8 * MIB));
    try_window(p, ours, 3 * MIB);
    try_window(p, (unsigned char *)ours + 4096 * (size_t)t->rank, MIB);
    try_window(p, (unsigned char *)(uintptr_t)plain + 512 * (size_t)(t->rank + 1), MIB);
    if (p->e.device->vmm) {
        pieces = pieces_new(p, 4, piece, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
        try_window(p, pieces + piece / 2, 2 * piece);
        try_window(p, pieces + piece - 256 * (size_t)t->rank, 2 * piece); /* 2 pieces or 3 */
        /* Ranks need not have the same kind of memory. */
        try_window(p, t->rank == 0 ? (unsigned char *)ours + 64 : pieces + piece / 2, 2 * MIB);
        try_window(p, t->rank == 1 ? (unsigned char *)(uintptr_t)plain + 64 : pieces + 64, 2 * MIB);
        pieces_free(p, pieces, 4, piece);
    }
    T_OK(tt_cuda_mem_free(&p->e, ours));
    CU(cu->cuMemFree_v2(plain));
    end(p);
}

static void existing(void **state)
{
    (void)state;
    t_run(&(struct t_job){.n_ranks = 1, .body = existing_body, .no_comm = 1});
    t_run(&(struct t_job){.n_ranks = 3, .body = existing_body, .no_comm = 1});
    t_run(&(struct t_job){.n_ranks = 3, .body = existing_body, .no_comm = 1, .threads = 1});
    with("T_SIM_NO_VMM", "all", &(struct t_job){.n_ranks = 3, .body = existing_body, .no_comm = 1});
}

/* A segment grows behind its window, and loses a piece that is in one. */
static void grown_body(struct t_rank *t)
{
    const int type = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    struct part *p = begin(t);
    const size_t piece = 2 * MIB;
    unsigned char *at[TT_CUDA_MAX_RANKS], *pieces;
    tutti_window *w, *none = NULL;
    CUdeviceptr reserved;

    if (!p->e.device->vmm)
        t_skip("the GPU has no VMM");
    CU(cu->cuMemAddressReserve(&reserved, 3 * piece, 0, 0, 0));
    pieces = (unsigned char *)(uintptr_t)reserved;
    pieces_map(p, pieces, 0, 2, piece, type);
    T_OK(tt_cuda_window_register(&p->e, pieces, 2 * piece, &w));
    pieces_map(p, pieces, 2, 3, piece, type);
    T_CHECK(tt_cuda_window_find(&p->e, pieces, 2 * piece) == w, "the window has gone");
    T_CHECK(!tt_cuda_window_find(&p->e, pieces, 3 * piece) &&
                !tt_cuda_window_find(&p->e, pieces + 2 * piece, 1),
            "found in a window that it has grown out of");
    T_IS(TUTTI_E_ARG, tt_cuda_window_register(&p->e, pieces, 3 * piece, &none));
    T_CONTAINS(tt_error_text(), "overlap");
    T_OK(tt_cuda_window_deregister(&p->e, w));
    T_OK(tt_cuda_window_register(&p->e, pieces, 3 * piece, &w));
    for (int r = 0; r < p->e.n_ranks; r++)
        at[r] = tt_cuda_window_at(w, pieces, r);
    check_reach(p, at, 3 * piece);
    CU(cu->cuMemUnmap(reserved + 2 * piece, piece));
    check_reach(p, at, 2 * piece); /* what is left */
    T_OK(tt_cuda_window_deregister(&p->e, w));
    T_CHECK(!p->e.windows, "found after deregistering");
    for (int i = 0; i < 2; i++)
        CU(cu->cuMemUnmap(reserved + (size_t)i * piece, piece));
    CU(cu->cuMemAddressFree(reserved, 3 * piece));
    end(p);
}

static void grown(void **state)
{
    (void)state;
    t_run(&(struct t_job){.n_ranks = 3, .body = grown_body, .no_comm = 1});
}

/* Whatever rank 1 brings, all ranks answer alike and nothing is left. */
static void refused(struct part *p, void *good, void *bad, size_t bad_bytes, tutti_result result,
                    const char *text)
{
    const int is_bad = p->e.rank == 1;
    tutti_window *w = NULL;

    T_IS(result, tt_cuda_window_register(&p->e, is_bad ? bad : good, is_bad ? bad_bytes : MIB, &w));
    T_CONTAINS(tt_error_text(), text);
    T_CHECK(!w && !p->e.windows, "a window is left");
}

static void refused_body(struct t_rank *t)
{
    struct part *p = begin(t);
    const size_t piece = 2 * MIB, all = (TT_CUDA_MAX_PIECES + 1) * piece;
    unsigned char *many, *mute;
    void *ours, *host = malloc(2 * MIB);

    T_CHECK(host, "no memory");
    T_OK(tt_cuda_mem_alloc(&p->e, 2 * MIB, &ours));
    mute =
        pieces_new(p, 1, piece, 0); /* first: GPUs lay one after the other, and none ends `many` */
    many = pieces_new(p, TT_CUDA_MAX_PIECES + 1, piece, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    refused(p, ours, host, MIB, TUTTI_E_ARG, "is not memory of a GPU");
    refused(p, ours, NULL, MIB, TUTTI_E_ARG, "window_register of 1048576 bytes at (nil)");
    refused(p, ours, ours, 0, TUTTI_E_ARG, "window_register of 0 bytes");
    refused(p, ours, ours, MIB + 1, TUTTI_E_MISMATCH, "1048577");
    refused(p, ours, mute, MIB, TUTTI_E_UNSUPPORTED, "without a handle");
    refused(p, ours, many + all - MIB / 2, MIB, TUTTI_E_ARG, "only the first 524288 are memory");

    tutti_window *w = NULL;

    T_IS(TUTTI_E_UNSUPPORTED, tt_cuda_window_register(&p->e, many, all, &w));
    T_CONTAINS(tt_error_text(), "more than 64 pieces");
    T_OK(tt_cuda_window_register(&p->e, many + piece, all - piece, &w));
    T_OK(tt_cuda_window_deregister(&p->e, w));
    pieces_free(p, many, TT_CUDA_MAX_PIECES + 1, piece);
    pieces_free(p, mute, 1, piece);
    T_OK(tt_cuda_mem_free(&p->e, ours));
    free(host);
    end(p);
}

static void existing_refused(void **state)
{
    (void)state;
    t_run(&(struct t_job){.n_ranks = 3, .body = refused_body, .no_comm = 1});
}

/* Rank 1 can give its pieces but take none: it is waited for in every round all the same. */
static void no_descriptors_body(struct t_rank *t)
{
    struct part *p = begin(t);
    const size_t piece = 2 * MIB;
    tutti_window *w = NULL;
    unsigned char *pieces;

    pieces = pieces_new(p, 3, piece, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    try_window(p, pieces, 3 * piece); /* what the first one keeps for good */
    if (t->rank == 1)
        t_limit_fds(1);
    T_IS(TUTTI_E_SYSTEM, tt_cuda_window_register(&p->e, pieces, 3 * piece, &w));
    t_limit_fds(-1);
    T_CONTAINS(tt_error_text(), "rank 1 has no file descriptor left");
    T_CHECK(!w && !p->e.windows, "a window is left");
    try_window(p, pieces, 3 * piece);
    pieces_free(p, pieces, 3, piece);
    end(p);
}

static void no_descriptors(void **state)
{
    (void)state;
    if (is_simulated())
        t_run(&(struct t_job){.n_ranks = 3, .body = no_descriptors_body, .no_comm = 1});
}

static void no_ipc_body(struct t_rank *t)
{
    struct part *p = begin(t);
    CUdeviceptr plain;

    CU(cu->cuMemAlloc_v2(&plain, MIB));
    refused(p, (void *)(uintptr_t)plain, (void *)(uintptr_t)plain, MIB, TUTTI_E_UNSUPPORTED,
            "neither by descriptor nor by IPC handle");
    CU(cu->cuMemFree_v2(plain));
    end(p);
}

static void existing_without_ipc(void **state)
{
    (void)state;
    if (is_simulated())
        with("T_SIM_NO_IPC", "1", &(struct t_job){.n_ranks = 3, .body = no_ipc_body, .no_comm = 1});
}

/* ---- windows ---- */

static void counting_body(struct t_rank *t)
{
    struct part *p = begin(t);
    unsigned char *ours;
    void *memory;
    tutti_window *a = NULL, *b = NULL, *c = NULL;

    T_OK(tt_cuda_mem_alloc(&p->e, 8 * MIB, &memory));
    ours = memory;
    T_OK(tt_cuda_window_register(&p->e, ours + MIB, 4 * MIB, &a));
    T_OK(tt_cuda_window_register(&p->e, ours + 2 * MIB, MIB, &b));
    T_OK(tt_cuda_window_register(&p->e, ours + 6 * MIB, MIB, &c));
    T_CHECK(a == b && a != c, "memory inside a window is another window");
    T_IS(TUTTI_E_ARG, tt_cuda_window_register(&p->e, ours, 2 * MIB, &b));
    T_CONTAINS(tt_error_text(), "overlap the window");
    T_IS(TUTTI_E_ARG, tt_cuda_window_register(&p->e, ours + 4 * MIB, 2 * MIB, &b));
    T_IS(TUTTI_E_ARG, tt_cuda_window_register(&p->e, ours, 8 * MIB, &b));
    T_IS(TUTTI_E_ARG, tt_cuda_window_register(&p->e, ours + MIB + 256 * (size_t)t->rank, MIB, &b));
    T_CONTAINS(tt_error_text(), "different places");
    T_IS(TUTTI_E_ARG, tt_cuda_mem_free(&p->e, memory));
    T_CONTAINS(tt_error_text(), "still registered 2 times");
    T_OK(tt_cuda_window_deregister(&p->e, NULL));
    T_OK(tt_cuda_window_deregister(&p->e, a));
    T_CHECK(tt_cuda_window_find(&p->e, ours + MIB, 1) == a, "gone too early");
    T_IS(TUTTI_E_ARG, tt_cuda_window_deregister(&p->e, (tutti_window *)memory));
    T_IS(TUTTI_E_MISMATCH, tt_cuda_window_deregister(&p->e, t->rank ? a : c));
    T_OK(tt_cuda_window_deregister(&p->e, a));
    T_CHECK(!tt_cuda_window_find(&p->e, ours + MIB, 1), "still there");
    T_IS(TUTTI_E_ARG, tt_cuda_mem_free(&p->e, memory));
    T_OK(tt_cuda_window_deregister(&p->e, c));
    T_OK(tt_cuda_mem_free(&p->e, memory));
    T_IS(TUTTI_E_ARG, tt_cuda_mem_free(&p->e, memory));
    T_IS(TUTTI_E_ARG, tt_cuda_mem_alloc(&p->e, 0, &memory));
    end(p);
}

static void counting(void **state)
{
    (void)state;
    t_run(&(struct t_job){.n_ranks = 2, .body = counting_body, .no_comm = 1});
}

enum { N_WINDOWS = 40 };

/* Many windows of random sizes, come and gone in random order; the look-up against a plain search. */
static void finding_body(struct t_rank *t)
{
    const size_t slot = *(const size_t *)t->arg;
    struct part *p = begin(t);
    struct t_rng rng = {5}; /* the same on all ranks */
    tutti_window *w[N_WINDOWS] = {NULL};
    size_t at[N_WINDOWS] = {0}, bytes[N_WINDOWS] = {0};
    unsigned char *ours;
    void *memory;

    T_OK(tt_cuda_mem_alloc(&p->e, N_WINDOWS * slot, &memory));
    ours = memory;
    for (unsigned i = 0; i < t_times(300, 3000); i++) {
        const size_t k = t_random_below(&rng, N_WINDOWS);

        if (w[k]) {
            T_OK(tt_cuda_window_deregister(&p->e, w[k]));
            w[k] = NULL;
        } else { /* next to the one before or after, with some chance */
            at[k] = k * slot + t_random_below(&rng, 2) * t_random_below(&rng, slot / 3);
            bytes[k] = t_random_below(&rng, 2) ? (k + 1) * slot - at[k]
                                               : 1 + t_random_below(&rng, slot / 3 * 2);
            T_OK(tt_cuda_window_register(&p->e, ours + at[k], bytes[k], &w[k]));
        }
        for (int j = 0; j < 50; j++) {
            const size_t place = t_random_below(&rng, N_WINDOWS * slot);
            const size_t length = 1 + t_random_below(&rng, j % 2 ? 16 : slot / 3);
            tutti_window *want = NULL;

            for (int m = 0; m < N_WINDOWS; m++)
                if (w[m] && place >= at[m] && place + length <= at[m] + bytes[m])
                    want = w[m];
            T_CHECK(tt_cuda_window_find(&p->e, ours + place, length) == want,
                    "%zu bytes at %zu: not the window that they are in", length, place);
        }
    }
    tt_cuda_windows_free(&p->e); /* with some left, as a communicator may be destroyed */
    T_OK(tt_cuda_mem_free(&p->e, memory));
    end(p);
}

static void finding(void **state)
{
    size_t slots[] = {3 * MIB, 48 << 10}; /* many granules each; many in a granule */

    (void)state;
    for (size_t i = 0; i < T_LEN(slots); i++)
        t_run(&(struct t_job){.n_ranks = 2, .body = finding_body, .no_comm = 1, .arg = &slots[i]});
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices),        cmocka_unit_test(no_driver),
        cmocka_unit_test(alloc),          cmocka_unit_test(alloc_one_gpu),
        cmocka_unit_test(alloc_ipc),      cmocka_unit_test(alloc_fails),
        cmocka_unit_test(verify_fails),   cmocka_unit_test(existing),
        cmocka_unit_test(grown),          cmocka_unit_test(existing_refused),
        cmocka_unit_test(no_descriptors), cmocka_unit_test(existing_without_ipc),
        cmocka_unit_test(counting),       cmocka_unit_test(finding),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
