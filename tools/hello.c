/* `tutti hello`: the first ten seconds with tutti, a line for every step. */
#include "commands.h"
#include "place.h"
#include "ranks.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tutti/tutti.h>

#define MOST_RANKS 256
#define N_FLOATS   1024

struct hall { /* memory that all ranks see; how they get the id here. Any other way is as good */
    tutti_unique_id id;
    _Atomic int id_ready;
    _Atomic int n_failed;
};

static int n_ranks; /* of all; CLI_NOT_GIVEN until it is known */

static const struct cli_option options[] = {
    {'n', "ranks", CLI_NUMBER, &n_ranks, "N", "ranks; default: one a core, at least 2"},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_hello = {
    "hello", "[-n N]", "see tutti work: a few ranks meet and add their numbers",
    "Starts N processes, makes a communicator of them, adds an array over all of them and checks "
    "the\n"
    "sum. The same in a program of your own is examples/01_hello.c. Under a launcher it is one of\n"
    "the ranks that were started, on whatever hosts: the first thing to try on a cluster.\n"
    "\n"
    "  tutti hello\n"
    "  tutti hello -n 4\n"
    "  tutti run --hosts alpha:2,beta:2 -- tutti hello\n",
    options};

static int say(struct hall *hall, int rank, const char *what, tutti_result result)
{
    if (result == TUTTI_OK)
        return 0;
    atomic_fetch_add(&hall->n_failed, 1);
    cli_error("rank %d: %s: %s: %s", rank, what, tutti_result_name(result), tutti_last_error());
    return 1;
}

static void meet(struct hall *hall, int rank)
{
    char text[TUTTI_UNIQUE_ID_TEXT_BYTES];

    if (rank != 0) {
        while (!atomic_load(&hall->id_ready) && !atomic_load(&hall->n_failed))
            ranks_sleep_ms(1);
        return;
    }
    if (say(hall, rank, "tutti_unique_id_create", tutti_unique_id_create(&hall->id)))
        return;
    if (tutti_unique_id_to_text(&hall->id, text, sizeof(text)) == TUTTI_OK)
        printf("1. Rank 0 made an id, %.20s..., and hands it to the others.\n", text);
    cli_flush();
    atomic_store(&hall->id_ready, 1);
}

static int add_numbers(struct hall *hall, tutti_comm *comm, int rank)
{
    static const char *const terms[] = {"", "", " + 1", " + 1 + 2", " + 1 + ..."};
    static float x[N_FLOATS];
    const float sum = (float)(n_ranks * (n_ranks - 1)) / 2;
    uint64_t begin;
    uint64_t best = UINT64_MAX;
    int n_wrong = 0;

    for (int i = 0; i < N_FLOATS; i++)
        x[i] = (float)rank;
    if (say(hall, rank, "tutti_all_reduce",
            tutti_all_reduce(comm, x, x, N_FLOATS, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL)))
        return 1;
    for (int i = 0; i < N_FLOATS; i++)
        n_wrong += x[i] != sum;
    if (n_wrong) {
        atomic_fetch_add(&hall->n_failed, 1);
        return cli_error("rank %d: %d of %d sums are not %g: a bug, please report it", rank,
                         n_wrong, N_FLOATS, (double)sum);
    }
    if (rank == 0)
        printf("3. Every rank gave %d numbers, its rank; tutti_all_reduce left 0%s = %g on all.\n",
               N_FLOATS, terms[n_ranks < 4 ? n_ranks : 4], (double)sum);
    for (int k = 0; k < 200; k++) {
        begin = ranks_now_ns();
        if (say(hall, rank, "tutti_all_reduce",
                tutti_all_reduce(comm, x, x, N_FLOATS, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL)))
            return 1;
        if (ranks_now_ns() - begin < best)
            best = ranks_now_ns() - begin;
    }
    if (rank == 0)
        printf("4. Again, 200 times: %.1f us at best for these 4 KiB.\n", (double)best / 1000);
    cli_flush();
    return 0;
}

static int work(struct hall *hall, tutti_comm *comm, int rank)
{
    tutti_comm_info info = {.size = sizeof(info)};
    int status;

    if (rank == 0 && tutti_comm_query(comm, &info) == TUTTI_OK)
        printf("2. %d rank%s a process, %s a communicator now. Engine %s: %s.\n", n_ranks,
               n_ranks > 1 ? "s, each" : ",", n_ranks > 1 ? "are" : "is", info.engine,
               info.details ? info.details : "");
    cli_flush();
    status = add_numbers(hall, comm, rank);
    tutti_barrier(comm, NULL); /* so that nobody leaves while others still work */
    return status;
}

static int rank_main(void *context, int rank)
{
    struct hall *hall = context;
    tutti_comm_config config = {.size = sizeof(config)};
    tutti_comm *comm = NULL;
    struct place place;
    cpu_set_t set;
    int status;

    place_read(&place);
    place_of_thread(&place, rank, n_ranks, 0, 1, &set);
    sched_setaffinity(0, sizeof(set), &set);
    meet(hall, rank);
    if (atomic_load(&hall->n_failed))
        return 1;
    config.rank = rank;
    config.n_ranks = n_ranks;
    config.id = &hall->id;
    config.name = "hello";
    if (say(hall, rank, "tutti_comm_create", tutti_comm_create(&config, &comm)))
        return 1;
    status = work(hall, comm, rank);
    tutti_comm_destroy(comm);
    place_free(&place);
    return status;
}

static void all_is_well(void)
{
    printf("5. All is well. Next: `tutti bench` measures this machine, `tutti help` lists the "
           "rest.\n");
}

/* The ranks that a launcher has started, if there is one: *joined_out. */
static int join(int *joined_out)
{
    tutti_comm_config config = {.size = sizeof(config), .name = "hello"};
    tutti_comm_info info = {.size = sizeof(info)};
    struct hall hall = {0};
    tutti_comm *comm = NULL;
    tutti_result result;
    int status;

    *joined_out = 0;
    /* Which rank this is the library finds out, and says where it matters. */
    result = tutti_comm_create_from_env(&config, &comm);
    if (result == TUTTI_OK)
        result = tutti_comm_query(comm, &info);
    if (result != TUTTI_OK) {
        cli_error("tutti_comm_create: %s: %s", tutti_result_name(result), tutti_last_error());
        return 1;
    }
    *joined_out = info.n_ranks > 1;
    if (info.n_ranks > 1 && n_ranks != CLI_NOT_GIVEN && n_ranks != info.n_ranks) {
        status = cli_error("-n %d: a launcher has started %d ranks", n_ranks, info.n_ranks);
    } else if (info.n_ranks > 1) {
        n_ranks = info.n_ranks;
        if (info.rank == 0)
            printf("1. A launcher started %d ranks on %d host%s, and they found rank 0.\n", n_ranks,
                   info.n_hosts, info.n_hosts > 1 ? "s" : "");
        status = work(&hall, comm, info.rank);
        if (status == 0 && info.rank == 0)
            all_is_well();
    } else {
        status = 0;
    }
    tutti_comm_destroy(comm);
    return status;
}

int command_hello_run(int argc, char **argv)
{
    char **words = cli_alloc((size_t)(argc + 1) * sizeof(*words));
    struct place place;
    struct ranks ranks;
    struct hall *hall;
    char text[96];
    int failed = -1;
    int joined = 0, status;

    n_ranks = CLI_NOT_GIVEN;
    status = cli_parse(&command_hello, argc, argv, 0, words);
    if (status == CLI_GO && words[0])
        status = cli_error("%s: nothing is expected here; `tutti help hello`", words[0]);
    free(words);
    if (status != CLI_GO)
        return status;
    status = join(&joined);
    if (joined || status != 0)
        return status;
    place_read(&place);
    if (n_ranks == CLI_NOT_GIVEN)
        n_ranks = place_fit(&place) < 2 ? 2 : place_fit(&place) > 16 ? 16 : place_fit(&place);
    place_free(&place);
    if (n_ranks < 1 || n_ranks > MOST_RANKS)
        return cli_error("-n %d: 1 to %d ranks", n_ranks, MOST_RANKS);
    hall = mmap(NULL, sizeof(*hall), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hall == MAP_FAILED)
        return cli_error("mmap: %s", strerror(errno));
    if (ranks_start(&ranks, n_ranks, rank_main, hall) != 0)
        return 1;
    while (ranks_poll(&ranks, &failed) > 0 && failed < 0)
        ranks_sleep_ms(2);
    if (failed >= 0) {
        ranks_finish(&ranks, 2);
        return cli_error("rank %d: %s; `tutti info` may know why", failed,
                         ranks_describe(ranks.status[failed], text, sizeof(text))) -
               1;
    }
    all_is_well();
    ranks_free(&ranks);
    munmap(hall, sizeof(*hall));
    return 0;
}
