/* Public functions: the hooks of torch's memory pools. */
#include "base/error.h"
#include "base/log.h"
#include "coll/comm.h"
#ifdef TUTTI_HAVE_CUDA
#include "coll/hier_gpu.h"
#include "cuda/cuda_engine.h"

#define MAX_DEPTH 16

/* What this thread has pushed. The pool outlives the communicator and knows when that is gone. */
struct frame {
    tutti_comm *comm;
    struct tt_cuda_pool *pool; /* NULL: of none */
};
static _Thread_local struct frame stack[MAX_DEPTH];
static _Thread_local int depth;

/* All that torch tells of a NULL is "out of memory", and that it will do with memory that it has cached. */
static void log_failure(const char *what, tutti_result result)
{
    TT_LOG(result == TUTTI_E_MEMORY ? TUTTI_LOG_INFO : TUTTI_LOG_WARN, -1, 0, "%s: %s", what,
           tt_error_text());
}

void *tutti_torch_alloc(ptrdiff_t bytes, int device, tutti_stream stream)
{
    void *ptr = NULL;
    tutti_result result;

    (void)stream;
    if (bytes <= 0)
        result = TT_FAIL(TUTTI_E_ARG, "torch_alloc of %td bytes", bytes);
    else
        result = tt_cuda_pool_alloc(depth > 0 ? stack[depth - 1].pool : NULL, device, (size_t)bytes,
                                    &ptr);
    if (result != TUTTI_OK)
        log_failure("torch_alloc", result);
    return ptr;
}

void tutti_torch_free(void *ptr, ptrdiff_t bytes, int device, tutti_stream stream)
{
    tutti_result result = TUTTI_OK;

    (void)bytes;
    (void)device;
    (void)stream;
    if (ptr)
        result = tt_cuda_pool_free(ptr);
    if (result != TUTTI_OK)
        log_failure("torch_free", result);
}

tutti_result tutti_torch_push_comm(tutti_comm *comm)
{
    struct frame frame = {.comm = comm};

    if (depth == MAX_DEPTH)
        return TT_FAIL(TUTTI_E_ARG, "torch_push_comm: %d are pushed already: pop them", depth);
    if (comm && comm->device != TUTTI_DEVICE_CUDA)
        return TT_FAIL(TUTTI_E_ARG, "torch_push_comm: communicator %s is for host memory",
                       comm->name);
    if (comm)
        TT_TRY(tt_cuda_pool_of(comm->n_hosts > 1 ? tt_hier_gpu_local(comm->engine) : comm->engine,
                               &frame.pool));
    stack[depth++] = frame;
    return TUTTI_OK;
}

static tutti_result bring_up_to_date(const struct frame *frame)
{
    if (!tt_cuda_pool_is_alive(frame->pool))
        return TT_FAIL(TUTTI_E_ARG,
                       "torch_pop_comm: the communicator was destroyed while it was pushed");
    if (frame->comm->group)
        return TT_FAIL(TUTTI_E_ARG, "torch_pop_comm inside a group");
    return tt_cuda_pool_register(frame->pool);
}

tutti_result tutti_torch_pop_comm(void)
{
    struct frame frame;
    tutti_result result;

    if (depth == 0)
        return TT_FAIL(TUTTI_E_ARG, "torch_pop_comm: this thread has pushed nothing");
    frame = stack[--depth];
    if (!frame.pool)
        return TUTTI_OK;
    result = bring_up_to_date(&frame);
    tt_cuda_pool_put(frame.pool);
    return result;
}
#else
static tutti_result no_gpus(const char *function)
{
    return TT_FAIL(TUTTI_E_UNSUPPORTED, "%s: this build has no engine for GPUs", function);
}

void *tutti_torch_alloc(ptrdiff_t bytes, int device, tutti_stream stream)
{
    (void)bytes;
    (void)device;
    (void)stream;
    (void)no_gpus("torch_alloc");
    return NULL;
}

void tutti_torch_free(void *ptr, ptrdiff_t bytes, int device, tutti_stream stream)
{
    (void)ptr;
    (void)bytes;
    (void)device;
    (void)stream;
}

tutti_result tutti_torch_push_comm(tutti_comm *comm)
{
    (void)comm;
    return no_gpus("torch_push_comm");
}

tutti_result tutti_torch_pop_comm(void)
{
    return no_gpus("torch_pop_comm");
}
#endif
