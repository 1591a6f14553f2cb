/* For the tests of the rendezvous: ranks as processes, and what became of each. */
#ifndef TUTTI_TESTS_BOOT_RANKS_H
#define TUTTI_TESTS_BOOT_RANKS_H

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "boot/boot.h"
#include "boot/boot_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#include "support/held_up.h"

#define MAX_PROCESSES 72
#define MS            UINT64_C(1000000)

struct outcome {
    int is_done;
    tutti_result result;
    char text[512];
    double seconds;
    struct t_time end;
};

/* In memory that all processes share. */
struct job {
    atomic_int stage; /* tests tell the processes by it how far they may go */
    atomic_int n_here;
    atomic_int abort;
    atomic_int has_id;
    tutti_unique_id id;
    struct outcome outcomes[MAX_PROCESSES];
    pid_t pids[MAX_PROCESSES];
    int n;
    uint64_t start_ns;
    char address[96]; /* the known address, or "" for an id that rank 0 makes */
};

typedef tutti_result (*rank_fn)(struct job *job, int rank);

static inline void sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

static inline struct job *job_new(const char *address)
{
    struct job *job =
        mmap(NULL, sizeof(*job), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(job != MAP_FAILED);
    snprintf(job->address, sizeof(job->address), "%s", address);
    return job;
}

static inline void be_rank(struct job *job, int index, int rank, rank_fn fn)
{
    struct outcome *mine = &job->outcomes[index];

    /* cmocka's handlers would jump back into the test in this process too. */
    for (int s = 1; s < 32; s++)
        signal(s, SIG_DFL);
    alarm(60); /* a hang is a failure, not a hang */
    mine->result = fn(job, rank);
    snprintf(mine->text, sizeof(mine->text), "%s", tt_error_text());
    mine->end = t_time_of(0);
    mine->seconds = (double)(tt_now_ns() - job->start_ns) / 1e9;
    mine->is_done = 1;
    _exit(0);
}

/* One more process, as `rank`; its outcome is outcomes[the number returned]. */
static inline int job_add(struct job *job, int rank, rank_fn fn)
{
    int index = job->n++;

    assert_true(index < MAX_PROCESSES);
    if (index == 0)
        job->start_ns = tt_now_ns();
    fflush(NULL);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        be_rank(job, index, rank, fn);
    job->pids[index] = pid;
    return index;
}

static inline void job_wait(struct job *job)
{
    for (int i = 0; i < job->n; i++) {
        int status;

        while (waitpid(job->pids[i], &status, 0) < 0 && errno == EINTR)
            ;
        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
            fail_msg("process %d ended by signal %d", i, WTERMSIG(status));
    }
}

/* What every process has used up until now. */
struct job_times {
    struct t_time of[MAX_PROCESSES];
};

static inline struct job_times job_times(const struct job *job)
{
    struct job_times times = {0};

    for (int i = 0; i < job->n; i++)
        times.of[i] = t_time_of((int)job->pids[i]);
    return times;
}

/* All but `victim` have ended within `most_ms` of those times, which processes that they had to wait for a core, and
 * that rank 0 had, through which all they hear goes, do not count for. */
static inline void expect_soon(const struct job *job, const struct job_times *from, int victim,
                               uint64_t most_ms)
{
    for (int i = 0; i < job->n; i++) {
        const struct t_time root = t_time_from(from->of[0], job->outcomes[0].end);
        const struct t_time took = t_time_from(from->of[i], job->outcomes[i].end);

        if (i != victim && t_time_left_ms(took, i == 0 ? 0 : root.held_up_ns) >= most_ms)
            fail_msg("process %d knew after %d ms", i, (int)(took.ns / 1000000));
    }
}

static inline void job_free(struct job *job)
{
    munmap(job, sizeof(*job));
}

static inline void expect(const struct job *job, int index, tutti_result result, const char *part)
{
    const struct outcome *o = &job->outcomes[index];

    if (!o->is_done)
        fail_msg("process %d did not come to an end", index);
    if (o->result != result || (part && !strstr(o->text, part))) {
        for (int i = 0; i < job->n; i++) {
            if (job->outcomes[i].result != TUTTI_OK)
                print_message("process %d: after %.3f s: %s\n", i, job->outcomes[i].seconds,
                              job->outcomes[i].text);
        }
        fail_msg("process %d: %s \"%s\" instead of %s \"%s\"", index, tt_result_name(o->result),
                 o->text, tt_result_name(result), part ? part : "");
    }
}

/* Ranks 0 .. n - 1, each of which plays `fn`, to their end. */
static inline struct job *job_play(const char *address, int n, rank_fn fn)
{
    struct job *job = job_new(address);

    for (int rank = 0; rank < n; rank++)
        job_add(job, rank, fn);
    job_wait(job);
    return job;
}

/* The first `n` processes ended so, within `limit_s` seconds (0: any time); the job is over. */
static inline void job_expect(struct job *job, int n, tutti_result result, const char *part,
                              double limit_s)
{
    for (int i = 0; i < n; i++) {
        expect(job, i, result, part);
        if (limit_s > 0 && job->outcomes[i].seconds >= limit_s)
            fail_msg("process %d took %.2f s", i, job->outcomes[i].seconds);
    }
    job_free(job);
}

/* The id of the job: from the known address, or made by rank 0 and waited for by the others. */
static inline tutti_result job_id(struct job *job, int rank, const char *secret,
                                  tutti_unique_id *id_out)
{
    if (*job->address)
        return tt_boot_id_from_address(job->address, secret, id_out);
    if (rank == 0) {
        tutti_result result = tt_boot_id_create(&job->id);

        atomic_store(&job->has_id, 1);
        *id_out = job->id;
        return result;
    }
    while (!atomic_load(&job->has_id))
        sleep_ms(1);
    *id_out = job->id;
    return TUTTI_OK;
}

static inline tutti_result open_boot(struct job *job, int rank, int n_ranks, int timeout_ms,
                                     const char *secret, struct tt_boot **boot_out)
{
    struct tt_boot_args args = {.rank = rank, .n_ranks = n_ranks, .abort = &job->abort};

    args.deadline_ns = tt_now_ns() + (uint64_t)timeout_ms * MS;
    tutti_result result = job_id(job, rank, secret, &args.id);

    return result == TUTTI_OK ? tt_boot_open(&args, boot_out) : result;
}

/* Bytes that tell ranks and rounds apart, eight at a time: thousands of ranks check millions. */
static inline void fill_record(unsigned char *record, int rank, int round, size_t bytes)
{
    uint64_t word = (uint64_t)rank * UINT64_C(0x9e3779b97f4a7c15) +
                    (uint64_t)round * UINT64_C(0xc2b2ae3d27d4eb4f);

    for (size_t i = 0; i < bytes; i += sizeof(word), word += UINT64_C(0x0101010101010101))
        memcpy(record + i, &word, bytes - i < sizeof(word) ? bytes - i : sizeof(word));
}

/* Gather such records, and check all of them. `recv` has room for them and a byte more. */
static inline tutti_result gather_into(unsigned char *recv, struct tt_boot *boot, int rank,
                                       int n_ranks, int round, size_t bytes)
{
    unsigned char record[TT_BOOT_MAX_RECORD];
    tutti_result result;

    fill_record(record, rank, round, bytes);
    recv[bytes * (size_t)n_ranks] = 0xa5;
    result = tt_boot_all_gather(boot, record, recv, bytes);
    for (int r = 0; result == TUTTI_OK && r < n_ranks; r++) {
        fill_record(record, r, round, bytes);
        if (memcmp(recv + (size_t)r * bytes, record, bytes) != 0)
            result = TT_FAIL(TUTTI_E_INTERNAL, "wrong bytes of rank %d in round %d", r, round);
    }
    if (result == TUTTI_OK && recv[bytes * (size_t)n_ranks] != 0xa5)
        result = TT_FAIL(TUTTI_E_INTERNAL, "wrote past the end");
    return result;
}

static inline tutti_result gather_checked(struct tt_boot *boot, int rank, int n_ranks, int round,
                                          size_t bytes)
{
    unsigned char *recv = malloc(bytes * (size_t)n_ranks + 1);
    const tutti_result result = gather_into(recv, boot, rank, n_ranks, round, bytes);

    free(recv);
    return result;
}

/* A port that nobody uses just now. */
static inline void free_address(int family, char *out, size_t bytes)
{
    struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
    socklen_t n = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int fd = socket(family, SOCK_STREAM, 0);

    if (family == AF_INET)
        ((struct sockaddr_in *)(void *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)(void *)&address)->sin6_addr = in6addr_loopback;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, n) != 0) {
        if (fd >= 0)
            close(fd);
        out[0] = 0;
        return;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    snprintf(out, bytes, family == AF_INET ? "127.0.0.1:%d" : "[::1]:%d",
             ntohs(((struct sockaddr_in *)(void *)&address)->sin_port));
}

static inline void local_address(char *out, size_t bytes)
{
    snprintf(out, bytes, "unix:tutti-test-%d-%llx", (int)getpid(), (unsigned long long)tt_now_ns());
}

static inline void test_address(int is_local, char *out, size_t bytes)
{
    if (is_local)
        local_address(out, bytes);
    else
        free_address(AF_INET, out, bytes);
}

#endif
