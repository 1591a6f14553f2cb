/*
 * Memory that all ranks of a run share with the program that began it: anonymous, so that nothing is
 * left behind whoever dies. Forked ranks inherit the mapping; those under mpirun open it by way of
 * /proc/<pid of the first program>/fd.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPINS_BEFORE_YIELD 20000

static size_t round_up(size_t x)
{
    return (x + 4095) / 4096 * 4096;
}

int bench_board_open(struct bench_board *board, const char *path, int n_ranks, int n_rows)
{
    const size_t head = round_up(sizeof(struct bench_shared));
    const size_t slots = round_up((size_t)n_ranks * sizeof(struct bench_slot));
    const size_t rows = round_up((size_t)n_rows * sizeof(struct bench_row));
    char *base;

    memset(board, 0, sizeof(*board));
    board->n_ranks = n_ranks;
    board->bytes = head + slots + rows;
    board->fd = path ? open(path, O_RDWR | O_CLOEXEC) : memfd_create("tutti bench", MFD_CLOEXEC);
    if (board->fd < 0 || (!path && ftruncate(board->fd, (off_t)board->bytes) != 0))
        return cli_error("memory shared by the ranks (%s): %s", path ? path : "memfd",
                         cli_reason());
    base = mmap(NULL, board->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, board->fd, 0);
    if (base == MAP_FAILED)
        return cli_error("memory shared by the ranks: %s", strerror(errno));
    board->shared = (struct bench_shared *)(void *)base;
    board->slots = (struct bench_slot *)(void *)(base + head);
    board->rows = (struct bench_row *)(void *)(base + head + slots);
    return 0;
}

void bench_board_close(struct bench_board *board)
{
    munmap(board->shared, board->bytes);
    close(board->fd);
}

static void pause_a_little(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* All ranks write their own word and read those of the others: for tens of ranks nothing is quicker,
 * and the ranks leave it close together. */
int bench_barrier(struct bench_board *board)
{
    const uint32_t epoch = ++board->epoch;

    if (board->job)
        return bench_job_meet(board);
    atomic_store_explicit(&board->slots[board->rank].arrived, epoch, memory_order_release);
    for (int r = 0; r < board->n_ranks; r++) {
        unsigned int n_spins = 0;

        while ((int32_t)(atomic_load_explicit(&board->slots[r].arrived, memory_order_acquire) -
                         epoch) < 0) {
            pause_a_little();
            if (++n_spins < SPINS_BEFORE_YIELD && !board->crowded)
                continue;
            if (atomic_load_explicit(&board->shared->abort, memory_order_relaxed))
                return -1;
            sched_yield();
        }
    }
    return atomic_load_explicit(&board->shared->abort, memory_order_relaxed) ? -1 : 0;
}

/* Without a common clock: no less than from the last arrival to the last completion. */
static float slowest_us(const struct bench_board *board)
{
    uint64_t most = 0;

    for (int r = 0; r < board->n_ranks; r++) {
        const uint64_t own = board->slots[r].t1 - board->slots[r].t0;

        most = own > most ? own : most;
    }
    return (float)most / 1000.0f;
}

/* Last arrival to last completion, in microseconds; slots are quiet until rank 0's next barrier. */
float bench_sample_us(const struct bench_board *board)
{
    uint64_t arrival = 0;
    uint64_t completion = 0;

    if (board->job && !board->job->has_one_clock)
        return slowest_us(board);
    for (int r = 0; r < board->n_ranks; r++) {
        if (board->slots[r].t0 > arrival)
            arrival = board->slots[r].t0;
        if (board->slots[r].t1 > completion)
            completion = board->slots[r].t1;
    }
    return completion > arrival ? (float)(completion - arrival) / 1000.0f : 0.0f;
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;

    return x < y ? -1 : x > y;
}

void bench_summarise(float *samples, uint32_t n, struct bench_result *result)
{
    qsort(samples, n, sizeof(*samples), compare_floats);
    result->n = n;
    result->p50_us = (double)samples[n / 2];
    result->p99_us = (double)samples[(n - 1) * 99ul / 100];
    result->min_us = (double)samples[0];
}

void bench_abort(struct bench_board *board, const char *format, ...)
{
    uint32_t free_slot = 0;
    va_list args;

    if (atomic_compare_exchange_strong(&board->shared->has_error, &free_slot, 1)) {
        va_start(args, format);
        vsnprintf(board->shared->error, sizeof(board->shared->error), format, args);
        va_end(args);
    }
    atomic_store(&board->shared->abort, 1);
    if (board->job && free_slot == 0) { /* else nobody reads it */
        cli_error("%s", board->shared->error);
        tutti_comm_abort(board->job->comm);
    }
    bench_wake(&board->shared->n_done);
    bench_wake(&board->shared->n_ids);
}

void bench_wait_change(_Atomic uint32_t *word, uint32_t old, int ms)
{
    const struct timespec limit = {ms / 1000, (long)(ms % 1000) * 1000000};

    syscall(SYS_futex, word, FUTEX_WAIT, old, &limit, NULL, 0);
}

void bench_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int bench_row_over(struct bench_board *board, int rank, int n_variants, int index)
{
    if (board->job && bench_job_row(board, n_variants, index) != 0)
        return -1;
    if (rank == 0) {
        atomic_fetch_add(&board->shared->n_done, 1);
        bench_wake(&board->shared->n_done);
    }
    return 0;
}
