/* From a shape to a call of the library. */
#include "bench.h"

#include <string.h>

/* Where send and recv are, in place or not. The in-place forms lie in `out`. */
void bench_call_make(const struct bench_shape *shape, int in_place, char *in, char *out,
                     struct bench_call *call)
{
    const size_t own = shape->count * shape->element_bytes * (size_t)shape->rank;
    const int is_root = shape->rank == shape->root;
    char *send = in;
    char *recv = out;

    in_place = in_place && bench_traits[shape->cell.id].in_place;
    switch (shape->cell.id) {
    case BENCH_BROADCAST:
        send = out;
        in_place = 1;
        break;
    case BENCH_ALL_REDUCE:
    case BENCH_REDUCE:
    case BENCH_ALL_TO_ALL: send = in_place ? out : in; break;
    case BENCH_REDUCE_SCATTER:
        if (in_place) {
            send = out;
            recv = out + own;
        }
        break;
    case BENCH_ALL_GATHER: send = in_place ? out + own : in; break;
    case BENCH_GATHER:
        in_place = in_place && is_root;
        send = in_place ? out + own : in;
        break;
    case BENCH_SCATTER:
        in_place = in_place && is_root;
        if (in_place) {
            send = out;
            recv = out + own;
        }
        break;
    default: break;
    }
    memset(call, 0, sizeof(*call));
    call->id = shape->cell.id;
    call->dtype = shape->cell.dtype;
    call->op = shape->cell.op;
    call->send = send;
    call->recv = recv;
    call->count = shape->count;
    call->root = shape->root;
    call->rank = shape->rank;
    call->n_ranks = shape->n_ranks;
    call->in_place = in_place;
    call->counts = shape->counts;
    call->send_counts = shape->send_counts;
    call->recv_counts = shape->recv_counts;
    call->displs = shape->displs;
    for (int p = 0; p < BENCH_N_PARTS; p++) {
        call->parts[p].send = send + shape->send_part[p];
        call->parts[p].recv = recv + shape->recv_part[p];
        call->parts[p].row_bytes = shape->row_bytes[p];
    }
}

static tutti_result sendrecv(tutti_comm *comm, const struct bench_call *c)
{
    const int n = c->n_ranks;
    tutti_result first = tutti_group_begin(comm);
    tutti_result result;

    if (first != TUTTI_OK)
        return first;
    first = tutti_send(comm, c->send, c->count, c->dtype, (c->rank + 1) % n, c->stream);
    result = tutti_recv(comm, c->recv, c->count, c->dtype, (c->rank + n - 1) % n, c->stream);
    if (first == TUTTI_OK)
        first = result;
    result = tutti_group_end(comm);
    return first != TUTTI_OK ? first : result;
}

int bench_call_has_counts(const struct bench_call *c)
{
    return c->id == BENCH_REDUCE_SCATTERV || c->id == BENCH_ALL_GATHERV ||
           c->id == BENCH_ALL_GATHERV_ROWS || c->id == BENCH_ALL_TO_ALLV;
}

static tutti_result run_counted(tutti_comm *comm, const struct bench_call *c)
{
    switch (c->id) {
    case BENCH_REDUCE_SCATTERV:
        return tutti_reduce_scatterv_device(comm, c->send, c->recv, c->device_counts, c->dtype,
                                            c->op, c->stream);
    case BENCH_ALL_GATHERV:
        return tutti_all_gatherv_device(comm, c->send, c->recv, c->device_counts, c->dtype,
                                        c->stream);
    case BENCH_ALL_GATHERV_ROWS:
        return tutti_all_gatherv_rows_device(comm, c->parts, BENCH_N_PARTS, c->device_counts,
                                             c->stream);
    default:
        return tutti_all_to_allv_device(comm, c->send, c->recv, c->device_counts, c->dtype,
                                        c->stream);
    }
}

tutti_result bench_call_run(tutti_comm *comm, const struct bench_call *c)
{
    if (c->device_counts)
        return run_counted(comm, c);
    switch (c->id) {
    case BENCH_ALL_REDUCE:
        return tutti_all_reduce(comm, c->send, c->recv, c->count, c->dtype, c->op, c->stream);
    case BENCH_REDUCE_SCATTER:
        return tutti_reduce_scatter(comm, c->send, c->recv, c->count, c->dtype, c->op, c->stream);
    case BENCH_REDUCE_SCATTERV:
        return tutti_reduce_scatterv(comm, c->send, c->recv, c->counts, c->dtype, c->op, c->stream);
    case BENCH_ALL_GATHER:
        return tutti_all_gather(comm, c->send, c->recv, c->count, c->dtype, c->stream);
    case BENCH_ALL_GATHERV:
        return tutti_all_gatherv(comm, c->send, c->recv, c->counts, c->dtype, c->stream);
    case BENCH_ALL_GATHERV_ROWS:
        return tutti_all_gatherv_rows(comm, c->parts, BENCH_N_PARTS, c->counts, c->stream);
    case BENCH_ALL_TO_ALL:
        return tutti_all_to_all(comm, c->send, c->recv, c->count, c->dtype, c->stream);
    case BENCH_ALL_TO_ALLV:
        return tutti_all_to_allv(comm, c->send, c->send_counts, c->displs, c->recv, c->recv_counts,
                                 c->displs, c->dtype, c->stream);
    case BENCH_BROADCAST:
        return tutti_broadcast(comm, c->recv, c->count, c->dtype, c->root, c->stream);
    case BENCH_REDUCE:
        return tutti_reduce(comm, c->send, c->recv, c->count, c->dtype, c->op, c->root, c->stream);
    case BENCH_GATHER:
        return tutti_gather(comm, c->send, c->recv, c->count, c->dtype, c->root, c->stream);
    case BENCH_SCATTER:
        return tutti_scatter(comm, c->send, c->recv, c->count, c->dtype, c->root, c->stream);
    case BENCH_SENDRECV: return sendrecv(comm, c);
    case BENCH_BARRIER: return tutti_barrier(comm, c->stream);
    default: return TUTTI_E_UNSUPPORTED;
    }
}

tutti_result bench_call_run_team(tutti_comm *comm, const struct bench_call *c, int thread,
                                 int n_threads)
{
    switch (c->id) {
    case BENCH_ALL_REDUCE:
        return tutti_all_reduce_team(comm, c->send, c->recv, c->count, c->dtype, c->op, thread,
                                     n_threads);
    case BENCH_REDUCE_SCATTER:
        return tutti_reduce_scatter_team(comm, c->send, c->recv, c->count, c->dtype, c->op, thread,
                                         n_threads);
    case BENCH_ALL_GATHER:
        return tutti_all_gather_team(comm, c->send, c->recv, c->count, c->dtype, thread, n_threads);
    case BENCH_ALL_TO_ALL:
        return tutti_all_to_all_team(comm, c->send, c->recv, c->count, c->dtype, thread, n_threads);
    case BENCH_BROADCAST:
        return tutti_broadcast_team(comm, c->recv, c->count, c->dtype, c->root, thread, n_threads);
    default: return TUTTI_E_UNSUPPORTED;
    }
}
