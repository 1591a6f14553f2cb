/* A team of threads that makes one call together, as an engine's pool would. */
#ifndef TUTTI_TESTS_TEAM_H
#define TUTTI_TESTS_TEAM_H

#include "support/job.h"

typedef tutti_result (*t_team_fn)(void *context, int thread, int n_threads);

/* Call fn(context, i, n_threads) on n_threads threads (this one is 0) and wait for all. Returns the
 * first failure. */
tutti_result t_team_run(struct t_rank *t, int n_threads, t_team_fn fn, void *context);

#endif
