/* A stream and its events. Waiting for an event takes the record that it had last, so each may be recorded
 * again while earlier waits are still ahead. */
#include <stdlib.h>

#include "base/error.h"
#include "cuda/cuda.h"
#include "cuda/share_map.h"
#include "cuda/side_stream.h"

struct tt_cuda_side {
    struct tt_engine *engine;
    CUstream stream;
    CUevent branch, marks[TT_CUDA_SIDE_MARKS];
    CUstream caller; /* that it was branched off last */
    int is_apart;    /* what was put on *own_out of the last branch is not on the caller's stream */
};

static tutti_result make(struct tt_cuda_side *s)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();

    TT_TRY(TT_CUDA(cu->cuStreamCreate(&s->stream, CU_STREAM_NON_BLOCKING)));
    TT_TRY(TT_CUDA(cu->cuEventCreate(&s->branch, CU_EVENT_DISABLE_TIMING)));
    for (int i = 0; i < TT_CUDA_SIDE_MARKS; i++)
        TT_TRY(TT_CUDA(cu->cuEventCreate(&s->marks[i], CU_EVENT_DISABLE_TIMING)));
    return TUTTI_OK;
}

tutti_result tt_cuda_side_open(struct tt_engine *engine, struct tt_cuda_side **side_out)
{
    struct tt_cuda_side *s = calloc(1, sizeof(*s));
    struct tt_cuda_scope scope;
    tutti_result res;

    if (!s)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a stream");
    s->engine = engine;
    res = tt_cuda_scope_enter(engine->device, &scope);
    if (res == TUTTI_OK) {
        res = make(s);
        tt_cuda_scope_leave(&scope);
    }
    if (res == TUTTI_OK)
        *side_out = s;
    else
        tt_cuda_side_close(s);
    return res;
}

void tt_cuda_side_close(struct tt_cuda_side *s)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    struct tt_cuda_scope scope;

    if (!s)
        return;
    if (tt_cuda_scope_enter(s->engine->device, &scope) == TUTTI_OK) {
        for (int i = 0; i < TT_CUDA_SIDE_MARKS; i++)
            if (s->marks[i])
                (void)cu->cuEventDestroy_v2(s->marks[i]);
        if (s->branch)
            (void)cu->cuEventDestroy_v2(s->branch);
        if (s->stream)
            (void)cu->cuStreamDestroy_v2(s->stream);
        tt_cuda_scope_leave(&scope);
    }
    free(s);
}

static tutti_result record(const struct tt_cuda_side *s, CUevent event, CUstream stream)
{
    tutti_result res;
    int entered;

    TT_TRY(tt_cuda_enter(s->engine->device, &entered));
    res = TT_CUDA(tt_cuda_driver()->cuEventRecord(event, stream));
    tt_cuda_leave(entered);
    return res;
}

static tutti_result await(const struct tt_cuda_side *s, CUevent event, CUstream stream)
{
    tutti_result res;
    int entered;

    TT_TRY(tt_cuda_enter(s->engine->device, &entered));
    res = TT_CUDA(tt_cuda_driver()->cuStreamWaitEvent(stream, event, 0));
    tt_cuda_leave(entered);
    return res;
}

/* Our stream leaves a capture only with that capture's end, and so does the stream that has brought it there. Who
 * is not in it may not branch: it would be drawn into it, or the driver would refuse. */
static tutti_result is_free(const struct tt_cuda_side *s, CUstream stream, int *is_free_out)
{
    CUstreamCaptureStatus ours = CU_STREAM_CAPTURE_STATUS_NONE;
    tutti_result res;
    int entered;

    TT_TRY(tt_cuda_enter(s->engine->device, &entered));
    res = TT_CUDA(tt_cuda_driver()->cuStreamIsCapturing(s->stream, &ours));
    tt_cuda_leave(entered);
    *is_free_out = ours == CU_STREAM_CAPTURE_STATUS_NONE || stream == s->caller;
    return res;
}

tutti_result tt_cuda_side_branch(struct tt_cuda_side *s, tutti_stream stream, tutti_stream *own_out)
{
    *own_out = stream;
    TT_TRY(is_free(s, stream, &s->is_apart));
    if (!s->is_apart)
        return TUTTI_OK;
    *own_out = s->stream;
    s->caller = stream;
    TT_TRY(record(s, s->branch, stream));
    return await(s, s->branch, s->stream);
}

tutti_result tt_cuda_side_mark(struct tt_cuda_side *s, int i)
{
    return s->is_apart ? record(s, s->marks[i], s->stream) : TUTTI_OK;
}

tutti_result tt_cuda_side_join(struct tt_cuda_side *s, int i, tutti_stream stream)
{
    return s->is_apart ? await(s, s->marks[i], stream) : TUTTI_OK;
}
