/* Teams of threads: see team.h. */
#include "support/team.h"

#include <pthread.h>

enum { MAX_TEAM = 16 };

struct member {
    struct t_rank *t;
    t_team_fn fn;
    void *context;
    int thread, n_threads;
    tutti_result result;
    pthread_t id;
};

static void *member_main(void *context)
{
    struct member *m = context;

    t_adopt(m->t);
    m->result = m->fn(m->context, m->thread, m->n_threads);
    return NULL;
}

tutti_result t_team_run(struct t_rank *t, int n_threads, t_team_fn fn, void *context)
{
    struct member members[MAX_TEAM];
    tutti_result result;

    T_CHECK(n_threads >= 1 && n_threads <= MAX_TEAM, "a team of %d", n_threads);
    for (int i = 0; i < n_threads; i++) {
        members[i] = (struct member){.t = t, .fn = fn, .context = context, .thread = i};
        members[i].n_threads = n_threads;
        if (i > 0)
            T_CHECK(pthread_create(&members[i].id, NULL, member_main, &members[i]) == 0,
                    "pthread_create failed");
    }
    member_main(&members[0]);
    result = members[0].result;
    for (int i = 1; i < n_threads; i++) {
        pthread_join(members[i].id, NULL);
        if (result == TUTTI_OK)
            result = members[i].result;
    }
    return result;
}
