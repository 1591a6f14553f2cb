/* After a death or at the time limit: what every rank last began, read from the living. */
#include "cli.h"
#include "run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tutti/tutti.h>

#define MOST_LINES 16

struct story {
    int n_ranks;
    int asked; /* the rank whose process is being looked at */
    int found;
    char name[32];
    tutti_stats *stats;
};

/* Of the communicators of all ranks, keep the one that was used most. */
static int visit(void *context, const tutti_live_comm *comm, const tutti_stats stats[])
{
    struct story *story = context;

    if (comm->n_ranks != story->n_ranks || comm->rank != story->asked)
        return 0;
    if (story->found && stats[story->asked].n_calls <= story->stats[story->asked].n_calls)
        return 0;
    story->found = 1;
    snprintf(story->name, sizeof(story->name), "%s", comm->name);
    memcpy(story->stats, stats, (size_t)story->n_ranks * sizeof(*stats));
    return 0;
}

static void put_rank(const struct story *story, int rank, const char *remark)
{
    const tutti_stats *s = &story->stats[rank];
    char bytes[32];

    if (s->sequence == 0)
        fprintf(stderr, "  rank %d: began no collective yet%s\n", rank, remark);
    else
        fprintf(stderr, "  rank %d: collective %llu, %s, %s%s\n", rank,
                (unsigned long long)s->sequence, s->last_call,
                cli_bytes_text(s->last_bytes, bytes, sizeof(bytes)), remark);
}

void story_tell(struct ranks *ranks, int dead)
{
    struct story story = {0};
    int n_lines = 0;

    story.n_ranks = ranks->n;
    story.stats = cli_alloc((size_t)ranks->n * sizeof(*story.stats));
    /* They are about to find out and leave, so they are halted while they are read. */
    ranks_kill(ranks, SIGSTOP);
    for (int r = 0; r < ranks->n && !story.found; r++) {
        story.asked = r;
        if (ranks->pids[r] > 0)
            tutti_live_visit((int)ranks->pids[r], visit, &story);
    }
    ranks_kill(ranks, SIGCONT);
    if (story.found) {
        fprintf(stderr, "tutti run: last collectives of the ranks%s%s:\n",
                story.name[0] ? " in communicator " : "", story.name);
        if (dead >= 0)
            put_rank(&story, dead, "   <- the one that died");
        for (int r = 0; r < ranks->n && n_lines < MOST_LINES; r++) {
            if (r == dead)
                continue;
            put_rank(&story, r, "");
            n_lines++;
        }
        if (ranks->n > MOST_LINES + 1)
            fprintf(stderr, "  ...\n");
    }
    free(story.stats);
}
