/*
 * gpu_sweep COLLECTIVE N_GPUS FIRST LAST SHAPE...: microseconds per call, in graphs of 20, for every
 * size from FIRST to LAST bytes by powers of two and every SHAPE ("one_shot:32x256", an
 * algorithm and a launch), best shapes first. One thread per GPU, ranks in one process.
 * The figures behind src/cuda/shape_table.inc; results are not checked here: `tutti bench` does.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tutti/tutti.h>

#include "../tools/gpu_driver.h"

enum { OPS = 20, WARMUPS = 3, REPLAYS = 11, MAX_GPUS = 8, MAX_SIZES = 32, MAX_SHAPES = 128 };

static const struct gpu_driver *cu;
static int n_gpus, n_sizes, n_shapes;
static char **shapes;
static const char *collective;
static size_t sizes[MAX_SIZES];
static float best[MAX_SHAPES][MAX_SIZES]; /* microseconds; 0: not run */
static float times[MAX_GPUS][REPLAYS];
static tutti_unique_id id;
static char algorithm[32];
static pthread_barrier_t barrier;

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "gpu_sweep: %s: %s\n", what, tutti_last_error());
        exit(1);
    }
}

struct rank {
    int rank;
    tutti_stream stream;
    gpu_ptr send, recv;
    tutti_comm *comm;
    gpu_event from, to;
};

static tutti_result call(struct rank *r, size_t bytes)
{
    void *send = (void *)(uintptr_t)r->send, *recv = (void *)(uintptr_t)r->recv;
    const size_t count = bytes / 2, block = count / (size_t)n_gpus;

    if (strcmp(collective, "all_reduce") == 0)
        return tutti_all_reduce(r->comm, send, recv, count, TUTTI_DTYPE_BF16, TUTTI_OP_SUM,
                                r->stream);
    if (strcmp(collective, "reduce_scatter") == 0)
        return tutti_reduce_scatter(r->comm, send, recv, block, TUTTI_DTYPE_BF16, TUTTI_OP_SUM,
                                    r->stream);
    if (strcmp(collective, "all_gather") == 0)
        return tutti_all_gather(r->comm, send, recv, block, TUTTI_DTYPE_BF16, r->stream);
    return tutti_all_to_all(r->comm, send, recv, block, TUTTI_DTYPE_BF16, r->stream);
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void measure(struct rank *r, int shape, int size)
{
    gpu_graph graph;
    gpu_graph_exec exec;

    need(cu->cuStreamBeginCapture(r->stream, GPU_CAPTURE_THREAD_LOCAL) == 0, "capture");
    for (int i = 0; i < OPS; i++)
        need(call(r, sizes[size]) == TUTTI_OK, shapes[shape]);
    need(cu->cuStreamEndCapture(r->stream, &graph) == 0, "end of capture");
    need(cu->cuGraphInstantiateWithFlags(&exec, graph, 0) == 0, "graph");
    for (int i = -WARMUPS; i < REPLAYS; i++) {
        float ms = 0;

        pthread_barrier_wait(&barrier);
        cu->cuEventRecord(r->from, r->stream);
        need(cu->cuGraphLaunch(exec, r->stream) == 0, "launch");
        cu->cuEventRecord(r->to, r->stream);
        need(cu->cuStreamSynchronize(r->stream) == 0, "synchronise");
        cu->cuEventElapsedTime(&ms, r->from, r->to);
        if (i >= 0)
            times[r->rank][i] = ms * 1e3f / OPS;
    }
    cu->cuGraphExecDestroy(exec);
    cu->cuGraphDestroy(graph);
    pthread_barrier_wait(&barrier);
    if (r->rank == 0) { /* of every replay the slowest rank, of those the median */
        for (int g = 1; g < n_gpus; g++)
            for (int i = 0; i < REPLAYS; i++)
                times[0][i] = times[g][i] > times[0][i] ? times[g][i] : times[0][i];
        qsort(times[0], REPLAYS, sizeof(float), by_value);
        best[shape][size] = times[0][REPLAYS / 2];
    }
    pthread_barrier_wait(&barrier);
}

static void run_shape(struct rank *r, int shape)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_window *w1 = NULL, *w2 = NULL;
    const int direct = strncmp(shapes[shape], "direct", 6) == 0;
    size_t bytes = sizes[n_sizes - 1];

    config.rank = r->rank;
    config.n_ranks = n_gpus;
    config.device = TUTTI_DEVICE_CUDA;
    config.device_index = r->rank;
    if (r->rank == 0) {
        snprintf(algorithm, sizeof(algorithm), "%.*s", (int)strcspn(shapes[shape], ":"),
                 shapes[shape]);
        setenv("TUTTI_CUDA_SHAPE", strchr(shapes[shape], ':') ? strchr(shapes[shape], ':') + 1 : "",
               1);
        need(tutti_unique_id_create(&id) == TUTTI_OK, "id");
    }
    pthread_barrier_wait(&barrier);
    config.algorithm = algorithm;
    config.id = &id;
    need(tutti_comm_create(&config, &r->comm) == TUTTI_OK, shapes[shape]);
    if (direct) {
        need(tutti_window_register(r->comm, (void *)(uintptr_t)r->send, bytes, &w1) == TUTTI_OK &&
                 tutti_window_register(r->comm, (void *)(uintptr_t)r->recv, bytes, &w2) == TUTTI_OK,
             "windows");
    }
    for (int s = 0; s < n_sizes; s++)
        measure(r, shape, s);
    if (direct) {
        tutti_window_deregister(r->comm, w1);
        tutti_window_deregister(r->comm, w2);
    }
    pthread_barrier_wait(&barrier);
    tutti_comm_destroy(r->comm);
    pthread_barrier_wait(&barrier);
}

static void *run_rank(void *argument)
{
    struct rank *r = argument;
    gpu_context context;
    int device;

    need(cu->cuDeviceGet(&device, r->rank) == 0 &&
             cu->cuDevicePrimaryCtxRetain(&context, device) == 0 &&
             cu->cuCtxSetCurrent(context) == 0 &&
             cu->cuStreamCreate(&r->stream, GPU_STREAM_NON_BLOCKING) == 0 &&
             cu->cuMemAlloc(&r->send, sizes[n_sizes - 1]) == 0 &&
             cu->cuMemAlloc(&r->recv, sizes[n_sizes - 1]) == 0 &&
             cu->cuEventCreate(&r->from, 0) == 0 && cu->cuEventCreate(&r->to, 0) == 0,
         "GPU set-up");
    cu->cuMemsetD8Async(r->send, 0, sizes[n_sizes - 1], r->stream);
    for (int s = 0; s < n_shapes; s++)
        run_shape(r, s);
    return NULL;
}

static void print(void)
{
    for (int s = 0; s < n_sizes; s++) {
        char done[MAX_SHAPES] = {0};

        printf("%s %d %zu:", collective, n_gpus, sizes[s]);
        for (int k = 0; k < 6 && k < n_shapes; k++) {
            int least = -1;

            for (int i = 0; i < n_shapes; i++)
                if (!done[i] && (least < 0 || best[i][s] < best[least][s]))
                    least = i;
            done[least] = 1;
            printf(" %s %.2f", shapes[least], (double)best[least][s]);
        }
        for (int i = 0; i < n_shapes; i++) /* the best of each algorithm that is not among those */
            if (!done[i]) {
                int is_first = 1;
                const size_t name = strcspn(shapes[i], ":");

                for (int j = 0; j < n_shapes; j++)
                    if (j != i && strncmp(shapes[i], shapes[j], name + 1) == 0 &&
                        (done[j] || best[j][s] < best[i][s]))
                        is_first = 0;
                if (is_first)
                    printf(" | %s %.2f", shapes[i], (double)best[i][s]);
            }
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    static struct rank ranks[MAX_GPUS];
    pthread_t threads[MAX_GPUS];
    char text[256];

    if (argc < 6) {
        fprintf(stderr, "usage: gpu_sweep COLLECTIVE N_GPUS FIRST LAST SHAPE...\n");
        return 2;
    }
    cu = gpu_driver_load(text, sizeof(text));
    if (!cu || cu->cuInit(0) != 0) {
        fprintf(stderr, "gpu_sweep: %s\n", cu ? "cuInit failed" : text);
        return 77;
    }
    collective = argv[1];
    n_gpus = (int)strtol(argv[2], NULL, 10);
    for (size_t b = strtoull(argv[3], NULL, 0);
         b <= strtoull(argv[4], NULL, 0) && n_sizes < MAX_SIZES; b *= 2)
        sizes[n_sizes++] = b;
    shapes = argv + 5;
    n_shapes = argc - 5;
    need(n_gpus >= 1 && n_gpus <= MAX_GPUS && n_shapes <= MAX_SHAPES && n_sizes > 0, "arguments");
    pthread_barrier_init(&barrier, NULL, (unsigned)n_gpus);
    for (int g = 0; g < n_gpus; g++) {
        ranks[g].rank = g;
        pthread_create(&threads[g], NULL, run_rank, &ranks[g]);
    }
    for (int g = 0; g < n_gpus; g++)
        pthread_join(threads[g], NULL);
    print();
    return 0;
}
