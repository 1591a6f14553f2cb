/*
 * The simulated libcuda: streams, launches, copies, events, graphs. What is put on a stream runs to
 * its end before the call returns, unless the stream is being captured: then it is kept, and runs
 * when the graph is launched.
 *
 *   T_SIM_LATE_COPIES   copies run when something needs them to be over; "stuck": not for events
 *   T_SIM_EARLY         so does everything else on a stream of one's own, and a launch that may begin early
 *                       (programmatic dependent launch) does, before what is late
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "support/sim/sim.h"
#include "support/sim/sim_driver.h"

enum node_kind { KERNEL, COPY, FILL };

struct node {
    enum node_kind kind;
    const struct tt_sim_entry *kernel;
    int n_blocks, n_threads;
    int may_be_early;
    void *args;
    void *to;
    const void *from;
    int byte;
    size_t bytes;
    struct node *next;
};

struct CUgraph_st {
    struct node *first, *last;
};
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraph_st *CUgraphExec; /* a copy of its own */
typedef struct CUgraphNode_st *CUgraphNode;

struct CUstream_st {
    int device;
    CUgraph graph; /* being captured, else NULL */
    int is_invalid, mode;
    unsigned n_broken;    /* captures had been, when this one began */
    CUstream next_joined; /* of those that have joined this one's capture */
    int has_joined;
    uint64_t n_nodes, n_awaited;         /* of a capture that it has joined */
    struct node *late_first, *late_last; /* what has not run yet */
    uint64_t n_late, n_run;
};

struct CUevent_st {
    uint64_t ns;
    CUstream stream;  /* that has late copies, else NULL ... */
    uint64_t n_late;  /* ... so many before the event */
    CUgraph graph;    /* the stream was being captured into it, else NULL ... */
    uint64_t n_nodes; /* ... and had so many nodes */
};
typedef struct CUevent_st *CUevent;

enum { CAPTURE_GLOBAL = 0, CAPTURE_THREAD_LOCAL = 1, CAPTURE_RELAXED = 2 };
static int n_captures, n_global_captures;
static unsigned n_broken;
static _Thread_local int n_captures_here;
static _Thread_local int thread_mode = CAPTURE_GLOBAL;

/* The legacy and the per-thread default streams are named by numbers. */
static int is_default(CUstream stream)
{
    return (uintptr_t)stream <= 2;
}

CUresult sim_not_in_capture(void)
{
    if (thread_mode == CAPTURE_RELAXED)
        return CUDA_SUCCESS;
    if (n_captures_here > 0)
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    if (thread_mode == CAPTURE_GLOBAL && __atomic_load_n(&n_global_captures, __ATOMIC_RELAXED) > 0)
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    return CUDA_SUCCESS;
}

static int is_broken(CUstream stream)
{
    return stream->is_invalid || (stream->graph != NULL &&
                                  stream->n_broken != __atomic_load_n(&n_broken, __ATOMIC_RELAXED));
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    const int before = thread_mode;

    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

/* ---- nodes ---- */

/* Zeros in whole pages are made by giving the pages back, so that large memory stays sparse. */
void sim_memset(void *p, int byte, size_t bytes)
{
    const uintptr_t begin = ((uintptr_t)p + 4095) & ~(uintptr_t)4095;
    const uintptr_t end = ((uintptr_t)p + bytes) & ~(uintptr_t)4095;

    if (byte == 0 && end > begin + (1 << 20) &&
        madvise((void *)begin, end - begin, MADV_REMOVE) == 0) {
        memset(p, 0, begin - (uintptr_t)p);
        memset((void *)end, 0, (uintptr_t)p + bytes - end);
        return;
    }
    memset(p, byte, bytes);
}

/* T_SIM_BREAK: see sim_stores.c. */
static void spoil(const struct tt_sim_entry *kernel, unsigned char *args)
{
    struct tt_cuda_base *base = (struct tt_cuda_base *)(args + kernel->base_at);

    if (tt_sim_breaks("no_meet"))
        base->meet = 0;
    if (tt_sim_breaks("one_half"))
        base->sentinel_half = base->one_shot_part = 0;
}

struct stream_part {
    CUstream stream;
    uint64_t n;
};

static void run_late(CUstream stream, uint64_t n);

static void run_late_part(void *context)
{
    const struct stream_part *part = context;

    run_late(part->stream, part->n);
}

/* before: what is late on its stream, if the node is a launch that begins early; else NULL. */
static void run_node(const struct node *node, struct stream_part *before)
{
    if (node->kind == COPY) {
        memmove(node->to, node->from, node->bytes);
    } else if (node->kind == FILL) {
        sim_memset(node->to, node->byte, node->bytes);
    } else {
        spoil(node->kernel, node->args);
        tt_sim_run_early(node->kernel->kernel, node->args, node->n_blocks, node->n_threads,
                         sim_n_sms() * (1024 / node->n_threads),
                         before != NULL ? run_late_part : NULL, before);
    }
}

/* What is late, up to the n'th of the stream. */
static void run_late(CUstream stream, uint64_t n)
{
    while (!is_default(stream) && stream->n_run < n) {
        struct node *node = stream->late_first;

        stream->late_first = node->next;
        run_node(node, NULL);
        if (node->kind == KERNEL)
            free(node->args);
        free(node);
        stream->n_run++;
    }
}

static struct node *copy_of(const struct node *node)
{
    struct node *copy = malloc(sizeof(*copy));

    if (copy == NULL)
        return NULL;
    *copy = *node;
    copy->next = NULL;
    if (node->kind == KERNEL) {
        copy->args = malloc(node->kernel->args_bytes);
        memcpy(copy->args, node->args, node->kernel->args_bytes);
    }
    return copy;
}

static int run_later(CUstream stream, const struct node *node)
{
    struct node *kept = copy_of(node);

    if (kept == NULL)
        return 0;
    if (stream->late_first != NULL)
        stream->late_last->next = kept;
    else
        stream->late_first = kept;
    stream->late_last = kept;
    stream->n_late++;
    return 1;
}

/* Now, or later; or early. */
static void run(CUstream stream, const struct node *node)
{
    const int waits = !is_default(stream) && getenv("T_SIM_EARLY") != NULL;
    struct stream_part late = {stream, is_default(stream) ? 0 : stream->n_late};

    if (!is_default(stream) && node->kind == COPY && getenv("T_SIM_LATE_COPIES") != NULL &&
        run_later(stream, node))
        return;
    if (waits && node->may_be_early && stream->n_run < stream->n_late) {
        run_node(node, &late);
        return;
    }
    run_late(stream, late.n);
    if (!waits || !run_later(stream, node))
        run_node(node, NULL);
}

/* Run it, or keep a copy in the graph. */
static CUresult submit(CUstream stream, const struct node *node)
{
    struct node *kept;
    int device;
    const CUresult result = sim_device(&device);

    if (result != CUDA_SUCCESS)
        return result;
    if (!is_default(stream) && is_broken(stream))
        return SIM_ERROR_CAPTURE_INVALIDATED;
    if (is_default(stream) || stream->graph == NULL) {
        run(stream, node);
        return CUDA_SUCCESS;
    }
    kept = copy_of(node);
    if (kept == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (stream->graph->last != NULL)
        stream->graph->last->next = kept;
    else
        stream->graph->first = kept;
    stream->graph->last = kept;
    stream->n_nodes++;
    return CUDA_SUCCESS;
}

/* ---- launches ---- */

static CUresult check_config(const CUlaunchConfig *c)
{
    if (c->gridDimX == 0 || c->gridDimY != 1 || c->gridDimZ != 1 || c->blockDimX == 0 ||
        c->blockDimY != 1 || c->blockDimZ != 1 || c->blockDimX > TT_CUDA_MAX_THREADS)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < c->numAttrs; i++)
        if (c->attrs[i].id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* `extra` is a list of words: 1, pointer, 2, pointer to the size, 0. */
static const void *arguments_of(void **arguments, void **extra, size_t *bytes)
{
    const void *buffer = NULL;

    if (arguments != NULL)
        return arguments[0];
    for (; extra != NULL && extra[0] != NULL; extra += 2)
        if ((uintptr_t)extra[0] == 1)
            buffer = extra[1];
        else
            *bytes = *(const size_t *)extra[1];
    return buffer;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments,
                          void **extra)
{
    const struct tt_sim_entry *entry = (const struct tt_sim_entry *)(const void *)function;
    const CUresult result = check_config(config);
    size_t bytes = entry->args_bytes;
    const void *args = arguments_of(arguments, extra, &bytes);
    struct node node = {.kind = KERNEL, .kernel = entry};
    CUresult submitted;

    if (result != CUDA_SUCCESS)
        return result;
    if (args == NULL || bytes != entry->args_bytes)
        return CUDA_ERROR_INVALID_VALUE;
    node.n_blocks = (int)config->gridDimX;
    node.n_threads = (int)config->blockDimX;
    node.may_be_early = config->numAttrs > 0;
    node.args = malloc(bytes);
    if (node.args == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(node.args, args, bytes);
    submitted = submit(config->hStream, &node);
    free(node.args);
    return submitted;
}

/* ---- copies ---- */

static CUresult copy(void *to, const void *from, size_t bytes, CUstream stream)
{
    const struct node node = {.kind = COPY, .to = to, .from = from, .bytes = bytes};

    return submit(stream, &node);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    const CUresult result = sim_check_range(to, bytes);

    return result != CUDA_SUCCESS ? result : copy((void *)(uintptr_t)to, from, bytes, stream);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    const CUresult result = sim_check_range(from, bytes);

    return result != CUDA_SUCCESS ? result : copy(to, (void *)(uintptr_t)from, bytes, stream);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    if (sim_check_range(to, bytes) != CUDA_SUCCESS || sim_check_range(from, bytes) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    return copy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes, stream);
}

CUresult cuMemsetD8Async(CUdeviceptr ptr, unsigned char byte, size_t bytes, CUstream stream)
{
    const struct node node = {
        .kind = FILL, .to = (void *)(uintptr_t)ptr, .byte = byte, .bytes = bytes};
    const CUresult result = sim_check_range(ptr, bytes);

    return result != CUDA_SUCCESS ? result : submit(stream, &node);
}

SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    const CUresult result = sim_not_in_capture();

    return result != CUDA_SUCCESS ? result : cuMemcpyHtoDAsync_v2(to, from, bytes, NULL);
}

SIM_API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    const CUresult result = sim_not_in_capture();

    return result != CUDA_SUCCESS ? result : cuMemcpyDtoHAsync_v2(to, from, bytes, NULL);
}

SIM_API CUresult cuMemsetD8_v2(CUdeviceptr ptr, unsigned char byte, size_t bytes);
CUresult cuMemsetD8_v2(CUdeviceptr ptr, unsigned char byte, size_t bytes)
{
    const CUresult result = sim_not_in_capture();

    return result != CUDA_SUCCESS ? result : cuMemsetD8Async(ptr, byte, bytes, NULL);
}

/* ---- streams ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    int device;
    const CUresult result = sim_device(&device);
    struct CUstream_st *s;

    if (result != CUDA_SUCCESS)
        return result;
    s = calloc(1, sizeof(*s));
    if (s == NULL || flags > CU_STREAM_NON_BLOCKING) {
        free(s);
        return CUDA_ERROR_INVALID_VALUE;
    }
    s->device = device;
    sim_count_object(1);
    *stream = s;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    if (is_default(stream))
        return CUDA_ERROR_INVALID_VALUE;
    run_late(stream, stream->n_late);
    free(stream);
    sim_count_object(-1);
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    int device;

    if (!is_default(stream) && stream->graph != NULL) {
        stream->is_invalid = 1;
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    }
    if (!is_default(stream))
        run_late(stream, stream->n_late);
    return sim_device(&device);
}

SIM_API CUresult cuStreamQuery(CUstream stream);
CUresult cuStreamQuery(CUstream stream)
{
    return cuStreamSynchronize(stream);
}

/* In no mode while anybody captures, and that is the end of the captures. */
CUresult cuCtxSynchronize(void)
{
    int device;

    if (__atomic_load_n(&n_captures, __ATOMIC_RELAXED) > 0) {
        __atomic_add_fetch(&n_broken, 1, __ATOMIC_RELAXED);
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    }
    return sim_device(&device);
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    *status = is_default(stream) || stream->graph == NULL ? CU_STREAM_CAPTURE_STATUS_NONE : 1;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode);
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    if (is_default(stream) || stream->graph != NULL)
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    stream->graph = calloc(1, sizeof(*stream->graph));
    stream->is_invalid = 0;
    stream->n_broken = __atomic_load_n(&n_broken, __ATOMIC_RELAXED);
    stream->mode = mode;
    __atomic_add_fetch(&n_captures, 1, __ATOMIC_RELAXED);
    n_captures_here += mode != CAPTURE_RELAXED;
    if (mode == CAPTURE_GLOBAL)
        __atomic_add_fetch(&n_global_captures, 1, __ATOMIC_RELAXED);
    sim_count_object(1);
    return stream->graph != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* The others of a capture leave it with its origin, which must have waited for all that they have. */
static int release_joined(CUstream origin)
{
    int is_ahead = 0;

    while (origin->next_joined != NULL) {
        CUstream s = origin->next_joined;

        origin->next_joined = s->next_joined;
        is_ahead |= s->n_awaited < s->n_nodes;
        s->graph = NULL;
        s->next_joined = NULL;
        s->has_joined = 0;
    }
    return is_ahead;
}

static CUresult free_graph(CUgraph graph)
{
    while (graph->first != NULL) {
        struct node *node = graph->first;

        graph->first = node->next;
        if (node->kind == KERNEL)
            free(node->args);
        free(node);
    }
    free(graph);
    sim_count_object(-1);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph);
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    CUgraph captured = stream->graph;
    int is_ahead;

    if (captured == NULL || stream->has_joined)
        return SIM_ERROR_ILLEGAL_STATE;
    is_ahead = release_joined(stream);
    stream->is_invalid = is_broken(stream);
    stream->graph = NULL;
    __atomic_sub_fetch(&n_captures, 1, __ATOMIC_RELAXED);
    n_captures_here -= stream->mode != CAPTURE_RELAXED;
    if (stream->mode == CAPTURE_GLOBAL)
        __atomic_sub_fetch(&n_global_captures, 1, __ATOMIC_RELAXED);
    if (stream->is_invalid) {
        stream->is_invalid = 0;
        free_graph(captured);
        *graph = NULL;
        return SIM_ERROR_CAPTURE_INVALIDATED;
    }
    if (is_ahead) {
        free_graph(captured);
        *graph = NULL;
        return SIM_ERROR_CAPTURE_UNJOINED;
    }
    *graph = captured;
    return CUDA_SUCCESS;
}

/* ---- graphs ---- */

SIM_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n_nodes);
CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n_nodes)
{
    (void)nodes; /* tests only count */
    *n_nodes = 0;
    for (const struct node *node = graph->first; node != NULL; node = node->next)
        (*n_nodes)++;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph,
                                             unsigned long long flags);
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    struct CUstream_st into = {.graph = calloc(1, sizeof(*into.graph))};

    if (flags != 0 || into.graph == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    sim_count_object(1);
    for (const struct node *node = graph->first; node != NULL; node = node->next)
        if (submit(&into, node) != CUDA_SUCCESS)
            return CUDA_ERROR_INVALID_CONTEXT;
    *exec = into.graph;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream);
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    int device;
    const CUresult result = sim_device(&device);

    if (result != CUDA_SUCCESS)
        return result;
    if (!is_default(stream) && stream->graph != NULL)
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    for (const struct node *node = exec->first; node != NULL; node = node->next)
        run(stream, node);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphDestroy(CUgraph graph);
CUresult cuGraphDestroy(CUgraph graph)
{
    return free_graph(graph);
}

SIM_API CUresult cuGraphExecDestroy(CUgraphExec exec);
CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    return free_graph(exec);
}

/* ---- events ---- */

SIM_API CUresult cuEventCreate(CUevent *event, unsigned int flags);
CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    (void)flags;
    *event = calloc(1, sizeof(**event));
    sim_count_object(1);
    return *event != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuEventRecord(CUevent event, CUstream stream);
CUresult cuEventRecord(CUevent event, CUstream stream)
{
    event->stream = is_default(stream) ? NULL : stream;
    event->n_late = event->stream != NULL ? stream->n_late : 0;
    event->graph = event->stream != NULL ? stream->graph : NULL;
    event->n_nodes = event->stream != NULL ? stream->n_nodes : 0;
    event->ns = tt_sim_now_ns();
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventSynchronize(CUevent event);
CUresult cuEventSynchronize(CUevent event)
{
    if (event->stream != NULL)
        run_late(event->stream, event->n_late);
    return CUDA_SUCCESS;
}

/* Late copies run when they have been asked for a few times. */
SIM_API CUresult cuEventQuery(CUevent event);
CUresult cuEventQuery(CUevent event)
{
    static unsigned n_asked;
    const char *late = getenv("T_SIM_LATE_COPIES");

    if (event->stream == NULL || event->stream->n_run >= event->n_late)
        return CUDA_SUCCESS;
    if (late != NULL && strcmp(late, "stuck") == 0)
        return SIM_ERROR_NOT_READY;
    if (__atomic_add_fetch(&n_asked, 1, __ATOMIC_RELAXED) * 2654435761u >> 30 != 0)
        return SIM_ERROR_NOT_READY;
    run_late(event->stream, event->n_late);
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    (void)flags;
    if (event->graph != NULL) {
        CUstream other = event->stream;

        if (is_default(stream) || other->graph != event->graph ||
            (stream->graph != NULL && stream->graph != event->graph))
            return SIM_ERROR_CAPTURE_UNSUPPORTED;
        if (event->n_nodes > other->n_awaited)
            other->n_awaited = event->n_nodes;
        if (stream->graph == NULL) {
            stream->graph = event->graph;
            stream->has_joined = 1;
            stream->n_broken = other->n_broken;
            stream->n_nodes = stream->n_awaited = 0;
            stream->next_joined = other->next_joined;
            other->next_joined = stream;
        }
        return CUDA_SUCCESS;
    }
    if (!is_default(stream) && stream->graph != NULL) { /* on work outside of the capture */
        stream->is_invalid = 1;
        return SIM_ERROR_CAPTURE_UNSUPPORTED;
    }
    if (event->stream != NULL)
        run_late(event->stream, event->n_late);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end);
CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    *ms = (float)(end->ns - start->ns) * 1e-6f;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end);
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime_v2(ms, start, end);
}

SIM_API CUresult cuEventDestroy_v2(CUevent event);
CUresult cuEventDestroy_v2(CUevent event)
{
    free(event);
    sim_count_object(-1);
    return CUDA_SUCCESS;
}
