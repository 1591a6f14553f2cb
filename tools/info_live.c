/* `tutti info --live`: where the time of running communicators goes, and who is late. */
#include "cli.h"
#include "info.h"
#include "ranks.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <tutti/tutti.h>
#include <unistd.h>

#define MOST_COMMS 256

struct seen { /* a communicator as one of its processes shows it */
    tutti_live_comm comm;
    tutti_stats *stats; /* [n_ranks] */
};

struct snapshot {
    struct seen seen[MOST_COMMS];
    int n;
};

/* All ranks of a communicator show the same counters, so one of them is enough. Two processes that
 * show communicators which look alike are in the same one if they map the same anonymous memory. */
static int is_known(const struct snapshot *snapshot, const tutti_live_comm *comm)
{
    for (int i = 0; i < snapshot->n; i++) {
        const tutti_live_comm *c = &snapshot->seen[i].comm;

        if (c->n_ranks == comm->n_ranks && c->rank != comm->rank && c->pid != comm->pid &&
            strcmp(c->name, comm->name) == 0 && info_share_memory(c->pid, comm->pid))
            return 1;
    }
    return 0;
}

static int visit(void *context, const tutti_live_comm *comm, const tutti_stats stats[])
{
    struct snapshot *snapshot = context;
    struct seen *seen = &snapshot->seen[snapshot->n];
    const size_t bytes = (size_t)comm->n_ranks * sizeof(*stats);

    if (snapshot->n == MOST_COMMS || comm->n_ranks < 1)
        return snapshot->n == MOST_COMMS;
    if (is_known(snapshot, comm))
        return 0;
    seen->comm = *comm;
    seen->stats = cli_alloc(bytes);
    memcpy(seen->stats, stats, bytes);
    snapshot->n++;
    return 0;
}

static void free_snapshot(struct snapshot *snapshot)
{
    for (int i = 0; i < snapshot->n; i++)
        free(snapshot->seen[i].stats);
    free(snapshot);
}

/* What happened between two looks. */
static tutti_stats difference(const tutti_stats *now, const tutti_stats *before)
{
    tutti_stats d = *now;

    if (!before || before->n_calls > now->n_calls)
        return d;
    d.n_calls -= before->n_calls;
    d.n_bytes -= before->n_bytes;
    d.wait_ns -= before->wait_ns;
    d.copy_ns -= before->copy_ns;
    d.reduce_ns -= before->reduce_ns;
    d.sync_ns -= before->sync_ns;
    d.n_sleeps -= before->n_sleeps;
    d.n_refused -= before->n_refused;
    return d;
}

static const struct seen *find_before(const struct snapshot *before, const struct seen *now)
{
    for (int i = 0; before && i < before->n; i++) {
        const tutti_live_comm *c = &before->seen[i].comm;

        if (c->pid == now->comm.pid && c->rank == now->comm.rank &&
            c->n_ranks == now->comm.n_ranks && strcmp(c->name, now->comm.name) == 0)
            return &before->seen[i];
    }
    return NULL;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* The rank that the others wait for: the one that itself waited least, if others waited much longer. */
static int find_late(const tutti_stats *stats, int n)
{
    int late = 0;
    uint64_t most = 0;

    for (int r = 0; r < n; r++) {
        if (stats[r].wait_ns < stats[late].wait_ns)
            late = r;
        if (stats[r].wait_ns > most)
            most = stats[r].wait_ns;
    }
    return most > 1000 && stats[late].wait_ns < most / 2 ? late : -1;
}

static void print_comm(const struct seen *seen, const struct seen *before)
{
    static const char *const headings[] = {"rank",   "calls",   "MiB",      "in calls",
                                           "wait %", "copy %",  "reduce %", "sync %",
                                           "sleeps", "refused", "last call"};
    const int n = seen->comm.n_ranks;
    struct table *table = table_new(11, headings, "rrrrrrrrrrl");
    tutti_stats *stats = cli_alloc((size_t)n * sizeof(*stats));
    int late;
    char bytes[32];

    for (int r = 0; r < n; r++)
        stats[r] = difference(&seen->stats[r], before ? &before->stats[r] : NULL);
    late = find_late(stats, n);
    for (int r = 0; r < n; r++) {
        const tutti_stats *s = &stats[r];
        const uint64_t all = s->wait_ns + s->copy_ns + s->reduce_ns + s->sync_ns;

        table_cell(table, "%d", r);
        table_cell(table, "%llu", (unsigned long long)s->n_calls);
        table_cell(table, "%.1f", (double)s->n_bytes / 1048576);
        table_cell(table, "%.1f ms", (double)all / 1e6);
        table_cell(table, "%.0f", percent(s->wait_ns, all));
        table_cell(table, "%.0f", percent(s->copy_ns, all));
        table_cell(table, "%.0f", percent(s->reduce_ns, all));
        table_cell(table, "%.0f", percent(s->sync_ns, all));
        table_cell(table, "%llu", (unsigned long long)s->n_sleeps);
        table_cell(table, "%llu", (unsigned long long)s->n_refused);
        table_cell(table, "#%llu %s, %s%s", (unsigned long long)s->sequence, s->last_call,
                   cli_bytes_text(s->last_bytes, bytes, sizeof(bytes)),
                   r == late ? "  <- the others wait for this rank" : "");
    }
    printf("communicator %s: %d ranks, seen in process %d (rank %d)%s\n",
           seen->comm.name[0] ? seen->comm.name : "(no name)", n, seen->comm.pid, seen->comm.rank,
           seen->comm.failed ? ", FAILED" : "");
    table_print(table, stdout);
    printf("\n");
    table_free(table);
    free(stats);
}

static void print_json(const struct snapshot *snapshot)
{
    printf("[");
    for (int i = 0; i < snapshot->n; i++) {
        const struct seen *seen = &snapshot->seen[i];

        printf("%s\n{\"name\": ", i ? "," : "");
        info_json_text(seen->comm.name);
        printf(", \"pid\": %d, \"rank\": %d, \"n_ranks\": %d, \"failed\": %s, \"ranks\": [",
               seen->comm.pid, seen->comm.rank, seen->comm.n_ranks,
               seen->comm.failed ? "true" : "false");
        for (int r = 0; r < seen->comm.n_ranks; r++) {
            const tutti_stats *s = &seen->stats[r];

            printf("%s\n {\"rank\": %d, \"calls\": %llu, \"bytes\": %llu, \"wait_ns\": %llu, "
                   "\"copy_ns\": %llu, \"reduce_ns\": %llu, \"sync_ns\": %llu, \"sleeps\": %llu, "
                   "\"refused\": %llu, "
                   "\"sequence\": %llu, \"last_bytes\": %llu, \"last_call\": ",
                   r ? "," : "", r, (unsigned long long)s->n_calls, (unsigned long long)s->n_bytes,
                   (unsigned long long)s->wait_ns, (unsigned long long)s->copy_ns,
                   (unsigned long long)s->reduce_ns, (unsigned long long)s->sync_ns,
                   (unsigned long long)s->n_sleeps, (unsigned long long)s->n_refused,
                   (unsigned long long)s->sequence, (unsigned long long)s->last_bytes);
            info_json_text(s->last_call);
            printf("}");
        }
        printf("]}");
    }
    printf("]\n");
}

static struct snapshot *look(int pid)
{
    struct snapshot *snapshot = cli_alloc(sizeof(*snapshot));
    const tutti_result result = tutti_live_visit(pid, visit, snapshot);

    if (result == TUTTI_OK)
        return snapshot;
    cli_error("%s", tutti_last_error());
    free_snapshot(snapshot);
    return NULL;
}

static void print_all(const struct snapshot *snapshot, const struct snapshot *before, int pid)
{
    for (int i = 0; i < snapshot->n; i++)
        print_comm(&snapshot->seen[i], find_before(before, &snapshot->seen[i]));
    if (snapshot->n == 0 && pid)
        printf("process %d has no communicator (or may not be read: same user, or root)\n", pid);
    else if (snapshot->n == 0)
        printf("no process that may be read has a communicator\n");
    cli_flush();
}

int info_live(const struct info_options *options)
{
    struct snapshot *before = NULL;
    struct snapshot *now;
    int found;

    if (options->watch && options->interval < 0.01)
        return cli_error("--interval %g: 10ms at least", options->interval);
    for (;;) {
        now = look(options->pid);
        if (!now)
            return 1;
        if (options->watch && cli_is_terminal(STDOUT_FILENO))
            printf("\033[H\033[2J");
        if (options->json)
            print_json(now);
        else
            print_all(now, before, options->pid);
        if (before)
            free_snapshot(before);
        if (!options->watch)
            break;
        before = now;
        ranks_sleep_ms((int)(options->interval * 1000));
    }
    found = now->n;
    free_snapshot(now);
    return found || !options->pid ? 0 : 1;
}
