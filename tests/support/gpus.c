/* GPUs for tests: see gpus.h. */
#include "support/gpus.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/driver.h"
#include "support/hosts.h"

typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;

/* What driver.h does not have. X(name, arguments) */
#define MORE_FUNCTIONS(X)                                                                          \
    X(cuCtxSetCurrent, (CUcontext context))                                                        \
    X(cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode))                        \
    X(cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                      \
    X(cuGraphGetNodes, (CUgraph graph, CUgraphNode * nodes, size_t * n_nodes))                     \
    X(cuGraphInstantiateWithFlags, (t_graph * exec, CUgraph graph, unsigned long long flags))      \
    X(cuGraphLaunch, (t_graph exec, CUstream stream))                                              \
    X(cuGraphDestroy, (CUgraph graph))                                                             \
    X(cuGraphExecDestroy, (t_graph exec))

enum { CAPTURE_THREAD_LOCAL = 1 };

static struct {
    void *library;
#define MEMBER(name, arguments) CUresult(*name) arguments;
    TT_CUDA_FUNCTIONS(MEMBER)
    MORE_FUNCTIONS(MEMBER)
#undef MEMBER
} cu;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char why[256];

int t_is_simulated(void)
{
    return getenv("TUTTI_CUDA_LIBRARY") != NULL;
}

int t_is_large(void)
{
    const char *text = getenv("T_GPU_LARGE");

    return text != NULL && strcmp(text, "0") != 0;
}

static void load(void)
{
    const char *name = getenv("TUTTI_CUDA_LIBRARY");
    const char *missing = NULL;
    void *at;

    cu.library = dlopen(name != NULL ? name : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (cu.library == NULL) {
        snprintf(why, sizeof(why), "%s", dlerror());
        return;
    }
#define FIND(name, arguments)                                                                      \
    at = dlsym(cu.library, #name);                                                                 \
    memcpy(&cu.name, &at, sizeof(at));                                                             \
    missing = at == NULL ? #name : missing;
    TT_CUDA_FUNCTIONS(FIND)
    MORE_FUNCTIONS(FIND)
#undef FIND
    if (missing != NULL)
        snprintf(why, sizeof(why), "libcuda has no %s", missing);
    else if (cu.cuInit(0) != CUDA_SUCCESS)
        snprintf(why, sizeof(why), "cuInit failed: no GPU?");
}

#define CU(call) check(__LINE__, #call, (cu.call))
static void check(int line, const char *call, CUresult result)
{
    const char *name = NULL;

    if (result == CUDA_SUCCESS)
        return;
    cu.cuGetErrorName(result, &name);
    t_fail(__FILE__, line, "%s: %s", call, name != NULL ? name : "?");
}

static void need_driver(void)
{
    pthread_once(&once, load);
    if (why[0] != 0)
        t_skip("no CUDA driver: %s", why);
}

/* In a process of its own: one that has initialised CUDA must not fork. */
static int count_devices(void)
{
    int status = 0;
    const pid_t pid = fork();

    if (pid == 0) {
        int n = 0;

        load();
        if (why[0] == 0)
            cu.cuDeviceGetCount(&n);
        _exit(n < 100 ? n : 100);
    }
    T_CHECK(pid > 0 && waitpid(pid, &status, 0) == pid, "cannot fork");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

int t_n_devices(void)
{
    static int n = -1;

    if (n < 0)
        n = count_devices();
    if (n == 0)
        t_skip("no GPU, or no driver for one");
    return n;
}

/* --- jobs --- */

struct t_job t_cuda_job(int n_ranks, void (*body)(struct t_rank *t))
{
    const char *ranks = getenv("T_GPU_RANKS");
    struct t_job job = {.n_ranks = n_ranks, .body = body};

    job.config.size = sizeof(job.config);
    job.config.device = TUTTI_DEVICE_CUDA;
    job.n_devices = t_n_devices();
    job.limit_s = 240;
    /* Processes on one real GPU take turns, and a turn of milliseconds is spent waiting. But hosts have
     * processes of their own. */
    job.threads = ranks != NULL ? strcmp(ranks, "threads") == 0
                                : !t_is_simulated() && n_ranks > job.n_devices && !t_has_hosts();
    if (job.threads)
        setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0); /* queues: see use_alone() */
    return job;
}

tutti_comm_config t_cuda_config(const struct t_rank *t)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;

    config.device = TUTTI_DEVICE_CUDA;
    config.device_index = t->rank % t->job->n_devices;
    return config;
}

/* What T_RANKS says, up to a 0; NULL if nothing. */
static const int *asked_for(void)
{
    static int numbers[16];
    const char *text = getenv("T_RANKS");
    char *end;
    size_t n = 0;

    if (text == NULL || *text == 0)
        return NULL;
    for (; n + 1 < T_LEN(numbers); text = end + 1) {
        const long number = strtol(text, &end, 10);

        T_CHECK(end != text && number > 0 && number <= T_MAX_RANKS && (*end == 0 || *end == ','),
                "T_RANKS=%s is no list of numbers", getenv("T_RANKS"));
        numbers[n++] = (int)number;
        if (*end == 0)
            break;
    }
    numbers[n] = 0;
    return numbers;
}

int t_is_wanted(int n_ranks)
{
    const int *asked = asked_for();

    while (asked != NULL && *asked != 0 && *asked != n_ranks)
        asked++;
    return asked == NULL || *asked != 0;
}

const int *t_wanted_ranks(const int list[])
{
    static int wanted[16];
    const int *asked = asked_for();
    size_t n = 0;

    if (asked == NULL)
        return list;
    for (; *asked != 0; asked++)
        if (*asked > 1 || list[0] == 1)
            wanted[n++] = *asked;
    wanted[n] = 0;
    if (n == 0)
        t_skip("one rank is not enough: T_RANKS=%s", getenv("T_RANKS"));
    return wanted;
}

void t_cuda_ranks(const int list[], void (*body)(struct t_rank *t))
{
    for (const int *n = t_wanted_ranks(list); *n != 0; n++) {
        const struct t_job job = t_cuda_job(*n, body);

        t_run(&job);
    }
}

/* --- devices and memory --- */

/* The driver chooses a stream's hardware queue when it is first used. Streams that begin at the same moment may get
 * one together, where a rank's second kernel, which waits for its first, keeps another rank's first from running. So
 * ranks that share a GPU begin theirs one after the other, on words that stay: to free memory waits for all kernels. */
static void use_alone(const struct t_device *d)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    static void *words[64]; /* by device, whose context they keep */
    CUcontext kept;

    pthread_mutex_lock(&one_at_a_time);
    T_CHECK(d->index < (int)T_LEN(words), "GPU %d: more than this is made for", d->index);
    if (words[d->index] == NULL) {
        CU(cuDevicePrimaryCtxRetain(&kept, d->index));
        words[d->index] = t_device_alloc(sizeof(int));
    }
    t_device_fill(d, words[d->index], 0, sizeof(int));
    t_device_sync(d);
    pthread_mutex_unlock(&one_at_a_time);
}

void t_device_open(struct t_device *d, const struct t_rank *t)
{
    CUcontext context;
    CUdevice device;

    need_driver();
    *d = (struct t_device){.index = t->rank % t->job->n_devices};
    CU(cuDeviceGet(&device, d->index));
    CU(cuDevicePrimaryCtxRetain(&context, device));
    CU(cuCtxSetCurrent(context));
    CU(cuStreamCreate(&d->stream, CU_STREAM_NON_BLOCKING));
    d->context = context;
    if (t->job->threads && !t_is_simulated())
        use_alone(d);
}

void t_device_enter(const struct t_device *d)
{
    CU(cuCtxSetCurrent(d->context));
}

void t_device_close(struct t_device *d)
{
    CU(cuStreamSynchronize(d->stream));
    CU(cuStreamDestroy_v2(d->stream));
    CU(cuCtxSetCurrent(NULL));
    CU(cuDevicePrimaryCtxRelease_v2(d->index));
}

void *t_device_alloc(size_t bytes)
{
    CUdeviceptr p;

    CU(cuMemAlloc_v2(&p, bytes));
    return (void *)(uintptr_t)p;
}

void t_device_free(void *p)
{
    CU(cuMemFree_v2((CUdeviceptr)(uintptr_t)p));
}

/* Nothing may be running on the stream: a copy from or to pageable memory waits for it inside the
 * driver, where it keeps other threads' launches out, for which a collective may be waiting. */
void t_device_push(const struct t_device *d, void *to, const void *from, size_t bytes)
{
    t_device_sync(d);
    if (bytes > 0)
        CU(cuMemcpyHtoDAsync_v2((CUdeviceptr)(uintptr_t)to, from, bytes, d->stream));
}

void t_device_pull(const struct t_device *d, void *to, const void *from, size_t bytes)
{
    t_device_sync(d);
    if (bytes > 0)
        CU(cuMemcpyDtoHAsync_v2(to, (CUdeviceptr)(uintptr_t)from, bytes, d->stream));
}

void t_device_sync(const struct t_device *d)
{
    CU(cuStreamSynchronize(d->stream));
}

void t_device_copy(const struct t_device *d, void *to, const void *from, size_t bytes)
{
    CU(cuMemcpyDtoDAsync_v2((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from, bytes,
                            d->stream));
}

void t_device_fill(const struct t_device *d, void *to, int byte, size_t bytes)
{
    CU(cuMemsetD8Async((CUdeviceptr)(uintptr_t)to, (unsigned char)byte, bytes, d->stream));
}

void *t_device_alloc_private(const struct t_device *d, size_t bytes, size_t *bytes_out)
{
    const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {CU_MEM_LOCATION_TYPE_DEVICE, d->index}};
    const CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, d->index},
                                    CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle handle;
    CUdeviceptr p;
    size_t unit;

    CU(cuMemGetAllocationGranularity(&unit, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    *bytes_out = (bytes + unit - 1) / unit * unit;
    CU(cuMemCreate(&handle, *bytes_out, &prop, 0));
    CU(cuMemAddressReserve(&p, *bytes_out, 0, 0, 0));
    CU(cuMemMap(p, *bytes_out, 0, handle, 0));
    CU(cuMemSetAccess(p, *bytes_out, &access, 1));
    CU(cuMemRelease(handle));
    return (void *)(uintptr_t)p;
}

void t_device_free_private(void *p, size_t bytes)
{
    CU(cuMemUnmap((CUdeviceptr)(uintptr_t)p, bytes));
    CU(cuMemAddressFree((CUdeviceptr)(uintptr_t)p, bytes));
}

int t_device_n_objects(void)
{
    int (*count)(void) = NULL;
    void *at;

    need_driver();
    at = dlsym(cu.library, "tt_sim_n_objects");
    memcpy(&count, &at, sizeof(at));
    return count != NULL ? count() : -1;
}

/* --- graphs --- */

void t_capture_begin(const struct t_device *d)
{
    CU(cuStreamBeginCapture_v2(d->stream, CAPTURE_THREAD_LOCAL));
}

t_graph t_capture_end(const struct t_device *d, size_t *n_nodes_out)
{
    CUgraph graph;
    t_graph exec;

    CU(cuStreamEndCapture(d->stream, &graph));
    if (n_nodes_out != NULL)
        CU(cuGraphGetNodes(graph, NULL, n_nodes_out));
    CU(cuGraphInstantiateWithFlags(&exec, graph, 0));
    CU(cuGraphDestroy(graph));
    return exec;
}

void t_capture_drop(const struct t_device *d)
{
    CUgraph graph = NULL;

    if (cu.cuStreamEndCapture(d->stream, &graph) == 0)
        CU(cuGraphDestroy(graph));
}

void t_graph_launch(const struct t_device *d, t_graph graph)
{
    CU(cuGraphLaunch(graph, d->stream));
}

void t_graph_free(t_graph graph)
{
    CU(cuGraphExecDestroy(graph));
}
