/*
 * What `tutti bench --against mpi` measures: MPI calls behind the table of bench_peer.h. A module of
 * its own, so that the program needs no MPI. bf16, which MPI does not know, is MPI_UINT16_T with an
 * operation of ours, as fast as the CPU allows: the comparison is with MPI's transport.
 */
#include "../bench_peer.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static MPI_Op bf16_sum;
static int *ints; /* counts and displacements as MPI wants them: 4 * n_ranks */
static int rank_of_us;
static int ranks;
static int initialised;

static void sum_bf16_plain(const uint16_t *in, uint16_t *inout, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t a = (uint32_t)in[i] << 16;
        uint32_t b = (uint32_t)inout[i] << 16;
        float x;
        float y;

        memcpy(&x, &a, 4);
        memcpy(&y, &b, 4);
        x += y;
        memcpy(&a, &x, 4);
        inout[i] = (uint16_t)((a + 0x7fff + (a >> 16 & 1)) >> 16);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512bf16"))) static int
sum_bf16_avx512(const uint16_t *in, uint16_t *inout, int n)
{
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    int i = 0;

    for (; i + 32 <= n; i += 32) {
        const __m512i p = _mm512_loadu_si512(in + i);
        const __m512i q = _mm512_loadu_si512(inout + i);
        const __m512 even = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32(p, 16)),
                                          _mm512_castsi512_ps(_mm512_slli_epi32(q, 16)));
        const __m512 odd = _mm512_add_ps(_mm512_castsi512_ps(_mm512_and_si512(p, high)),
                                         _mm512_castsi512_ps(_mm512_and_si512(q, high)));
        const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
        const __m512i up = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));

        _mm512_storeu_si512(inout + i, _mm512_or_si512(low, _mm512_slli_epi32(up, 16)));
    }
    return i;
}

__attribute__((target("avx2"))) static __m256i round_bf16(__m256 x)
{
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}

__attribute__((target("avx2"))) static int sum_bf16_avx2(const uint16_t *in, uint16_t *inout, int n)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000);
    int i = 0;

    for (; i + 16 <= n; i += 16) {
        const __m256i p = _mm256_loadu_si256((const __m256i *)(const void *)(in + i));
        const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)(inout + i));
        const __m256 even = _mm256_add_ps(_mm256_castsi256_ps(_mm256_slli_epi32(p, 16)),
                                          _mm256_castsi256_ps(_mm256_slli_epi32(q, 16)));
        const __m256 odd = _mm256_add_ps(_mm256_castsi256_ps(_mm256_and_si256(p, high)),
                                         _mm256_castsi256_ps(_mm256_and_si256(q, high)));
        const __m256i low = _mm256_srli_epi32(round_bf16(even), 16);
        const __m256i up = _mm256_and_si256(round_bf16(odd), high);

        _mm256_storeu_si256((__m256i *)(void *)(inout + i), _mm256_or_si256(low, up));
    }
    return i;
}
#endif

static void sum_bf16(void *in, void *inout, int *n, MPI_Datatype *type)
{
    int done = 0;

    (void)type;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw"))
        done = sum_bf16_avx512(in, inout, *n);
    else if (__builtin_cpu_supports("avx2"))
        done = sum_bf16_avx2(in, inout, *n);
#endif
    sum_bf16_plain((const uint16_t *)in + done, (uint16_t *)inout + done, *n - done);
}

static int peer_init(const struct bench_exchange *exchange)
{
    int provided;

    (void)exchange;
    if (MPI_Initialized(&initialised) == MPI_SUCCESS && !initialised &&
        MPI_Init_thread(NULL, NULL, MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS)
        return -1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_of_us);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Op_create(sum_bf16, 1, &bf16_sum);
    ints = malloc(4 * (size_t)ranks * sizeof(*ints));
    return ints ? 0 : -1;
}

static void peer_finalize(void)
{
    MPI_Op_free(&bf16_sum);
    free(ints);
    MPI_Finalize();
}

static int peer_rank(void)
{
    return rank_of_us;
}

static int peer_n_ranks(void)
{
    return ranks;
}

/* The library that is loaded, which need not be the one that was compiled against. Open MPI says
 * "Open MPI v4.1.6, package: ...", MPICH "MPICH Version:      4.0.2" and more lines. */
static const char *peer_name(void)
{
    static char name[40];
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "", version[24] = "";
    int length;

    if (MPI_Get_library_version(text, &length) == MPI_SUCCESS &&
        (sscanf(text, "Open MPI v%23[^, ]", version) == 1 ||
         sscanf(text, "MPICH Version: %23s", version) == 1))
        snprintf(name, sizeof(name), "%s %s", text[0] == 'O' ? "Open MPI" : "MPICH", version);
    else
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, ",\n"), text[0] ? text : "MPI");
    return name;
}

static MPI_Datatype type_of(tutti_dtype dtype)
{
    switch (dtype) {
    case TUTTI_DTYPE_F32: return MPI_FLOAT;
    case TUTTI_DTYPE_F64: return MPI_DOUBLE;
    case TUTTI_DTYPE_F16:
    case TUTTI_DTYPE_BF16: return MPI_UINT16_T;
    case TUTTI_DTYPE_I8: return MPI_INT8_T;
    case TUTTI_DTYPE_I32: return MPI_INT32_T;
    case TUTTI_DTYPE_U32: return MPI_UINT32_T;
    case TUTTI_DTYPE_I64: return MPI_INT64_T;
    case TUTTI_DTYPE_U64: return MPI_UINT64_T;
    default: return MPI_UINT8_T;
    }
}

/* MPI_OP_NULL where MPI has no such reduction. */
static MPI_Op op_of(const struct bench_call *call)
{
    switch (call->dtype) {
    case TUTTI_DTYPE_BF16: return call->op == TUTTI_OP_SUM ? bf16_sum : MPI_OP_NULL;
    case TUTTI_DTYPE_F16:
    case TUTTI_DTYPE_E4M3:
    case TUTTI_DTYPE_E5M2: return MPI_OP_NULL;
    default: break;
    }
    switch (call->op) {
    case TUTTI_OP_SUM: return MPI_SUM;
    case TUTTI_OP_PROD: return MPI_PROD;
    case TUTTI_OP_MAX: return MPI_MAX;
    case TUTTI_OP_MIN: return MPI_MIN;
    default: return MPI_OP_NULL;
    }
}

static int peer_prepare(const struct bench_call *call)
{
    const int reduces = call->id == BENCH_ALL_REDUCE || call->id == BENCH_REDUCE ||
                        call->id == BENCH_REDUCE_SCATTER || call->id == BENCH_REDUCE_SCATTERV;

    if (call->id == BENCH_ALL_GATHERV_ROWS || call->count > 0x7fffffff)
        return -1;
    if (reduces && op_of(call) == MPI_OP_NULL)
        return -1;
    for (int r = 0; r < ranks; r++) {
        ints[r] = (int)(call->id == BENCH_ALL_TO_ALLV ? call->send_counts[r] : call->counts[r]);
        ints[ranks + r] = (int)call->recv_counts[r];
        ints[2 * ranks + r] = (int)call->displs[r];
    }
    return 0;
}

static int run_reduction(const struct bench_call *c, const void *send)
{
    const MPI_Datatype type = type_of(c->dtype);
    const MPI_Op op = op_of(c);
    const int n = (int)c->count;

    switch (c->id) {
    case BENCH_ALL_REDUCE: return MPI_Allreduce(send, c->recv, n, type, op, MPI_COMM_WORLD);
    case BENCH_REDUCE:
        if (c->rank != c->root)
            return MPI_Reduce(c->send, NULL, n, type, op, c->root, MPI_COMM_WORLD);
        return MPI_Reduce(send, c->recv, n, type, op, c->root, MPI_COMM_WORLD);
    case BENCH_REDUCE_SCATTER:
        return MPI_Reduce_scatter_block(send, c->recv, n, type, op, MPI_COMM_WORLD);
    default: return MPI_Reduce_scatter(send, c->recv, ints, type, op, MPI_COMM_WORLD);
    }
}

static int peer_run(const struct bench_call *c)
{
    const MPI_Datatype type = type_of(c->dtype);
    const void *send = c->in_place ? MPI_IN_PLACE : c->send;
    const int n = (int)c->count;
    const int next = (rank_of_us + 1) % ranks;
    const int previous = (rank_of_us + ranks - 1) % ranks;

    switch (c->id) {
    case BENCH_ALL_GATHER: return MPI_Allgather(send, n, type, c->recv, n, type, MPI_COMM_WORLD);
    case BENCH_ALL_GATHERV:
        return MPI_Allgatherv(send, ints[rank_of_us], type, c->recv, ints, ints + 2 * ranks, type,
                              MPI_COMM_WORLD);
    case BENCH_ALL_TO_ALL: return MPI_Alltoall(send, n, type, c->recv, n, type, MPI_COMM_WORLD);
    case BENCH_ALL_TO_ALLV:
        return MPI_Alltoallv(send, ints, ints + 2 * ranks, type, c->recv, ints + ranks,
                             ints + 2 * ranks, type, MPI_COMM_WORLD);
    case BENCH_BROADCAST: return MPI_Bcast(c->recv, n, type, c->root, MPI_COMM_WORLD);
    case BENCH_GATHER: return MPI_Gather(send, n, type, c->recv, n, type, c->root, MPI_COMM_WORLD);
    case BENCH_SCATTER:
        if (c->in_place)
            return MPI_Scatter(c->send, n, type, MPI_IN_PLACE, n, type, c->root, MPI_COMM_WORLD);
        return MPI_Scatter(c->send, n, type, c->recv, n, type, c->root, MPI_COMM_WORLD);
    case BENCH_SENDRECV:
        return MPI_Sendrecv(send, n, type, next, 0, c->recv, n, type, previous, 0, MPI_COMM_WORLD,
                            MPI_STATUS_IGNORE);
    case BENCH_BARRIER: return MPI_Barrier(MPI_COMM_WORLD);
    default: return run_reduction(c, send);
    }
}

__attribute__((visibility("default"))) const struct bench_peer *tutti_bench_peer(void);

const struct bench_peer *tutti_bench_peer(void)
{
    static const struct bench_peer peer = {
        sizeof(peer), peer_name,    peer_init,    peer_finalize,
        peer_rank,    peer_n_ranks, peer_prepare, peer_run,
    };

    return &peer;
}
