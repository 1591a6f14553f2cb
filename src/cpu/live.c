/*
 * Counters, from inside and from outside. A communicator's segment is a memfd that its processes
 * hold open, so another process of the same user finds it under /proc/PID/fd, maps it read-only and
 * looks, without the ranks noticing.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "cpu/cpu_engine.h"
#include "cpu/live.h"

void tt_stats_read(const struct tt_stats_area *area, tutti_stats *stats)
{
    stats->n_calls = tt_load_relaxed(&area->n_calls);
    stats->n_bytes = tt_load_relaxed(&area->n_bytes);
    stats->wait_ns = tt_load_relaxed(&area->wait_ns);
    stats->copy_ns = tt_load_relaxed(&area->copy_ns);
    stats->reduce_ns = tt_load_relaxed(&area->reduce_ns);
    stats->sync_ns = tt_load_relaxed(&area->sync_ns);
    stats->n_sleeps = tt_load_relaxed(&area->n_sleeps);
    stats->sequence = tt_load_relaxed(&area->sequence);
    stats->last_bytes = tt_load_relaxed(&area->last_bytes);
    stats->n_refused = tt_load_relaxed(&area->n_refused);
    if (stats->n_calls == 0)
        snprintf(stats->last_call, sizeof(stats->last_call), "-");
    else
        tt_what_text(tt_load_relaxed(&area->last_what), stats->last_call, sizeof(stats->last_call));
}

int tt_live_rank(const char *line, int n_ranks)
{
    const char *at = strstr(line, "WRITE");
    unsigned long from, to;

    if (strncmp(line, "lock:", 5) != 0 || !at ||
        sscanf(at, "WRITE %*s %*s %lu %lu", &from, &to) != 2 || from >= (unsigned long)n_ranks)
        return -1;
    return (int)from;
}

/* Which rank is process `pid`? The one whose byte it has locked; seen from outside, where one cannot
 * tell by the lock, the order of the locks in /proc/PID/fdinfo does. */
static int rank_from_fdinfo(int pid, const char *fd, int n_ranks)
{
    char path[320], line[256];
    int rank = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", pid, fd);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        const int locked = tt_live_rank(line, n_ranks);

        rank = locked >= 0 ? locked : rank;
    }
    if (f)
        fclose(f);
    return rank;
}

static int plausible(const struct tt_segment *s, size_t bytes)
{
    return s->magic == TT_SEGMENT_MAGIC && s->layout == TT_SEGMENT_LAYOUT && s->n_ranks > 0 &&
           s->n_ranks <= TT_CPU_MAX_RANKS && s->total_bytes == bytes && s->area_offset < bytes &&
           s->area_offset % TT_PAGE == 0 && s->area_stride % TT_PAGE == 0 &&
           s->area_stride >= sizeof(struct tt_rank_area) &&
           s->area_stride <= (bytes - s->area_offset) / s->n_ranks;
}

tutti_stats *tt_live_read(const struct tt_segment *head, const void *at, size_t bytes,
                          tutti_live_comm *comm_out)
{
    tutti_stats *stats = plausible(head, bytes) ? calloc(head->n_ranks, sizeof(*stats)) : NULL;
    char *name = comm_out->name;

    if (!stats)
        return NULL;
    comm_out->n_ranks = (int32_t)head->n_ranks;
    comm_out->failed = tt_load_relaxed(&head->failure) != 0;
    snprintf(name, sizeof(comm_out->name), "%.*s", (int)sizeof(head->name) - 1, head->name);
    for (; *name; name++) /* for a terminal */
        if (*name < 0x20 || *name >= 0x7f)
            *name = '?';
    for (uint32_t r = 0; r < head->n_ranks; r++) {
        const struct tt_rank_area *area =
            (const struct tt_rank_area *)(const void *)((const unsigned char *)at +
                                                        head->area_offset + r * head->area_stride);

        stats[r].size = sizeof(*stats);
        stats[r].rank = (int32_t)r;
        tt_stats_read(&area->stats, &stats[r]);
    }
    return stats;
}

/* The segment in `file`, whose owner may be anybody: only one that cannot shrink under our eyes. */
static int show(int pid, const char *fd, int file, tutti_live_fn visit, void *context)
{
    tutti_live_comm comm = {.size = sizeof(comm), .pid = pid};
    struct tt_segment head;
    tutti_stats *stats;
    struct stat st;
    void *at;
    int seals, stop = 0;

    seals = fcntl(file, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(file, &st) != 0 ||
        pread(file, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
        return 0;
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        return 0;
    stats = tt_live_read(&head, at, (size_t)st.st_size, &comm);
    munmap(at, (size_t)st.st_size);
    if (stats) {
        comm.rank = rank_from_fdinfo(pid, fd, comm.n_ranks);
        stop = visit(context, &comm, stats);
    }
    free(stats);
    return stop;
}

static int visit_fd(int pid, const char *fd, tutti_live_fn visit, void *context)
{
    char path[320], target[128];
    ssize_t n;
    int file, stop;

    snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, fd);
    n = readlink(path, target, sizeof(target) - 1);
    if (n <= 0)
        return 0;
    target[n] = 0;
    if (strncmp(target, "/memfd:" TT_SEGMENT_NAME ":", sizeof("/memfd:" TT_SEGMENT_NAME ":") - 1))
        return 0;
    file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* it may be another file by now */
    if (file < 0)
        return 0;
    stop = show(pid, fd, file, visit, context);
    close(file);
    return stop;
}

static int visit_process(int pid, tutti_live_fn visit, void *context)
{
    char path[64];
    struct dirent *entry;
    DIR *dir;
    int stop = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    dir = opendir(path);
    while (dir && !stop && (entry = readdir(dir)))
        if (isdigit((unsigned char)entry->d_name[0]))
            stop = visit_fd(pid, entry->d_name, visit, context);
    if (dir)
        closedir(dir);
    return stop;
}

tutti_result tt_cpu_live_visit(int pid, tutti_live_fn visit, void *context)
{
    struct dirent *entry;
    DIR *proc;
    int stop = 0;

    if (pid > 0) {
        (void)visit_process(pid, visit, context);
        return TUTTI_OK;
    }
    proc = opendir("/proc");
    if (!proc)
        return TT_FAIL_SYS("/proc");
    while (!stop && (entry = readdir(proc))) {
        const long p = strtol(entry->d_name, NULL, 10);

        if (p > 0)
            stop = visit_process((int)p, visit, context);
    }
    closedir(proc);
    return TUTTI_OK;
}
