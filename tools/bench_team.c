/* A rank that computes with several threads: they all make the call (tutti_all_reduce_team ...). */
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>

struct member {
    struct bench_team *team;
    pthread_t thread;
    int index;
    tutti_result result;
};

struct bench_team {
    _Atomic uint32_t turn; /* odd or even does not matter: a new number is a new call */
    _Atomic uint32_t n_returned;
    _Atomic int stop;
    int n_threads;
    int crowded;
    const struct place *place;
    int rank;
    int n_ranks;
    tutti_comm *comm;
    const struct bench_call *call;
    struct member *members;
};

static void *member_main(void *argument)
{
    struct member *member = argument;
    struct bench_team *team = member->team;
    uint32_t seen = 0;
    cpu_set_t set;

    place_of_thread(team->place, team->rank, team->n_ranks, member->index, team->n_threads, &set);
    sched_setaffinity(0, sizeof(set), &set);
    for (;;) {
        unsigned int n_spins = 0;

        while (atomic_load_explicit(&team->turn, memory_order_acquire) == seen)
            if (team->crowded || ++n_spins > 20000)
                sched_yield();
        seen++;
        if (atomic_load(&team->stop))
            return NULL;
        member->result =
            bench_call_run_team(team->comm, team->call, member->index, team->n_threads);
        atomic_fetch_add_explicit(&team->n_returned, 1, memory_order_release);
    }
}

struct bench_team *bench_team_start(const struct place *place, int rank, int n_ranks, int n_threads)
{
    struct bench_team *team = cli_alloc(sizeof(*team));

    team->n_threads = n_threads;
    team->place = place;
    team->rank = rank;
    team->n_ranks = n_ranks;
    team->crowded = place_is_crowded(place, n_ranks, n_threads);
    team->members = cli_alloc((size_t)n_threads * sizeof(*team->members));
    for (int i = 1; i < n_threads; i++) {
        team->members[i].team = team;
        team->members[i].index = i;
        if (pthread_create(&team->members[i].thread, NULL, member_main, &team->members[i]) != 0) {
            cli_error("cannot start thread %d of %d; try a smaller --threads", i, n_threads);
            exit(2);
        }
    }
    return team;
}

tutti_result bench_team_run(struct bench_team *team, tutti_comm *comm,
                            const struct bench_call *call)
{
    const uint32_t others = (uint32_t)team->n_threads - 1;
    tutti_result result;

    team->comm = comm;
    team->call = call;
    atomic_store_explicit(&team->n_returned, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&team->turn, 1, memory_order_release);
    result = bench_call_run_team(comm, call, 0, team->n_threads);
    while (atomic_load_explicit(&team->n_returned, memory_order_acquire) != others)
        if (team->crowded)
            sched_yield();
    for (int i = 1; i < team->n_threads && result == TUTTI_OK; i++)
        result = team->members[i].result;
    return result;
}

void bench_team_stop(struct bench_team *team)
{
    if (!team)
        return;
    atomic_store(&team->stop, 1);
    atomic_fetch_add(&team->turn, 1);
    for (int i = 1; i < team->n_threads; i++)
        pthread_join(team->members[i].thread, NULL);
    free(team->members);
    free(team);
}
