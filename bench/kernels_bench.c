/*
 * How fast the kernels are on this machine, next to memcpy() and to a plain loop in the same run:
 *
 *     kernels_bench [all]
 *
 * Times are medians over rounds in which everything is measured once, so that a busy neighbour
 * slows down what is compared alike. GB/s count the bytes of one buffer; a reduction of two
 * sources moves three of them, memcpy() two. `all`: every dtype and operation too, out of caches.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/kernels.h"

#define ROUNDS      15
#define MAX_SOURCES 8

static const char *const isa_names[] = {"avx512", "avx2", "neon", "scalar"};

static char *buffers[MAX_SOURCES + 2];
static const void *sources[MAX_SOURCES];

struct job {
    tt_reduce_fn reduce; /* NULL: memcpy, or the plain loop */
    void (*copy)(void *dst, const void *src, size_t bytes, size_t ahead);
    int plain_loop;
    int n_src;
    int twice;
    size_t element_bytes;
    double ns[ROUNDS];
};

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* What one would write without tutti: the sum of two, no NaN rule. */
static __attribute__((noinline)) void plain_sum(float *restrict d, const float *a, const float *b,
                                                size_t n)
{
    for (size_t k = 0; k < n; k++)
        d[k] = a[k] + b[k];
}

static void run_once(const struct job *job, size_t bytes)
{
    char *dst = buffers[MAX_SOURCES];

    if (job->plain_loop)
        plain_sum((float *)dst, (const float *)buffers[0], (const float *)buffers[1], bytes / 4);
    else if (job->reduce)
        job->reduce(dst, job->twice ? buffers[MAX_SOURCES + 1] : NULL, sources, job->n_src,
                    bytes / job->element_bytes, 0);
    else if (job->copy)
        job->copy(dst, buffers[0], bytes, 0);
    else
        memcpy(dst, buffers[0], bytes);
    __asm__ volatile("" : : : "memory");
}

static double time_per_call(const struct job *job, size_t bytes)
{
    const size_t reps = bytes > (4u << 20) ? 1 : 1 + (2u << 20) / (bytes + 256);
    double start;

    run_once(job, bytes);
    start = now_ns();
    for (size_t k = 0; k < reps; k++)
        run_once(job, bytes);
    return (now_ns() - start) / (double)reps;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Median ns of every job, measured in turns. */
static void measure(struct job jobs[], size_t n_jobs, size_t bytes)
{
    for (int round = 0; round < ROUNDS; round++)
        for (size_t k = 0; k < n_jobs; k++)
            jobs[k].ns[round] = time_per_call(&jobs[k], bytes);
    for (size_t k = 0; k < n_jobs; k++)
        qsort(jobs[k].ns, ROUNDS, sizeof(double), compare);
}

static double median(const struct job *job)
{
    return job->ns[ROUNDS / 2];
}

/* Finite numbers in every format, so that no arithmetic takes a slow path that real data do not. */
static void fill(void)
{
    for (int k = 0; k < MAX_SOURCES; k++)
        for (size_t i = 0; i < (64u << 20); i++)
            buffers[k][i] = (char)(0x38 + (i * 7 + (size_t)k) % 7);
}

struct kind {
    const char *name;
    tutti_dtype dtype;
    tutti_op op;
    int n_src;
    int twice;
    size_t element_bytes;
};

static const struct kind main_kinds[] = {
    {"f32 sum", TUTTI_DTYPE_F32, TUTTI_OP_SUM, 2, 0, 4},
    {"f32 sum, dst2", TUTTI_DTYPE_F32, TUTTI_OP_SUM, 2, 1, 4},
    {"f32 sum of 8", TUTTI_DTYPE_F32, TUTTI_OP_SUM, 8, 0, 4},
    {"bf16 sum", TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 2, 0, 2},
    {"bf16 sum of 8", TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 8, 0, 2},
    {"f16 sum", TUTTI_DTYPE_F16, TUTTI_OP_SUM, 2, 0, 2},
    {"f16 sum of 8", TUTTI_DTYPE_F16, TUTTI_OP_SUM, 8, 0, 2},
};
#define N_MAIN_KINDS (sizeof(main_kinds) / sizeof(main_kinds[0]))

static const size_t sizes[] = {64, 1024, 8192, 256u << 10, 64u << 20};
#define N_SIZES        (sizeof(sizes) / sizeof(sizes[0]))
#define N_CACHED_SIZES (N_SIZES - 1)

static void print_row(const char *isa, const char *name, const double ns[], size_t n_sizes)
{
    printf("| %s | %s |", isa, name);
    for (size_t s = 0; s < n_sizes; s++) {
        if (sizes[s] <= 1024)
            printf(" %.1f ns |", ns[s]);
        else
            printf(" %.1f |", (double)sizes[s] / ns[s]);
    }
    printf("\n");
    fflush(stdout);
}

/* One line of the table for each set, and memcpy and the plain loop of the same rounds. */
static void bench_kind(const struct kind *kind, size_t n_sizes, int with_plain)
{
    struct job jobs[6] = {{.element_bytes = 1}, {.plain_loop = 1}};
    const char *labels[6] = {"memcpy", "plain loop"};
    double ns[6][N_SIZES];
    size_t n_jobs = 2;

    for (int i = 0; i < 4; i++) {
        const struct tt_kernels *set = tt_kernels_get(isa_names[i]);

        if (!set)
            continue;
        labels[n_jobs] = set->isa;
        jobs[n_jobs++] = (struct job){.reduce = set->reduce[kind->dtype][kind->op],
                                      .n_src = kind->n_src,
                                      .twice = kind->twice,
                                      .element_bytes = kind->element_bytes};
    }
    for (size_t s = 0; s < n_sizes; s++) {
        measure(jobs, n_jobs, sizes[s]);
        for (size_t k = 0; k < n_jobs; k++)
            ns[k][s] = median(&jobs[k]);
    }
    for (size_t k = with_plain ? 0 : 2; k < n_jobs; k++)
        print_row(labels[k], k < 2 ? "(same rounds)" : kind->name, ns[k], n_sizes);
}

/* copy_stream() takes no `ahead`. */
static void (*stream)(void *dst, const void *src, size_t bytes);

static void copy_past_caches(void *dst, const void *src, size_t bytes, size_t ahead)
{
    (void)ahead;
    stream(dst, src, bytes);
}

static void bench_copies(void)
{
    for (int i = 0; i < 4; i++) {
        const struct tt_kernels *set = tt_kernels_get(isa_names[i]);
        struct job jobs[3] = {{.element_bytes = 1}};
        static const char *const names[3] = {"(same rounds)", "copy", "copy_stream"};
        double ns[3][N_SIZES];

        if (!set)
            continue;
        jobs[1].copy = set->put;
        jobs[2].copy = copy_past_caches;
        stream = set->copy_stream;
        for (size_t s = 0; s < N_SIZES; s++) {
            measure(jobs, 3, sizes[s]);
            for (int k = 0; k < 3; k++)
                ns[k][s] = median(&jobs[k]);
        }
        for (int k = 0; k < 3; k++)
            print_row(k == 0 ? "memcpy" : set->isa, names[k], ns[k], N_SIZES);
    }
}

static void bench_everything(void)
{
    for (int t = 0; t < TUTTI_N_DTYPES; t++) {
        for (int op = 0; op < TUTTI_N_OPS; op++) {
            char name[32];
            struct kind kind = {
                name, (tutti_dtype)t, (tutti_op)op, 2, 0, tutti_dtype_bytes((tutti_dtype)t)};

            snprintf(name, sizeof(name), "%s %s", tutti_dtype_name((tutti_dtype)t),
                     tutti_op_name((tutti_op)op));
            bench_kind(&kind, N_CACHED_SIZES, 0);
        }
    }
}

int main(int argc, char **argv)
{
    for (int k = 0; k < MAX_SOURCES + 2; k++) {
        buffers[k] = aligned_alloc(4096, 64u << 20);
        if (!buffers[k])
            return 1;
        memset(buffers[k], 1, 64u << 20);
        if (k < MAX_SOURCES)
            sources[k] = buffers[k];
    }
    fill();
    printf("| set | what | 64 B | 1 KiB | 8 KiB, GB/s | 256 KiB, GB/s | 64 MiB, GB/s |\n");
    printf("|--|--|--|--|--|--|--|\n");
    for (size_t k = 0; k < N_MAIN_KINDS; k++)
        bench_kind(&main_kinds[k], N_SIZES, 1);
    bench_copies();
    if (argc > 1 && strcmp(argv[1], "all") == 0)
        bench_everything();
    return 0;
}
