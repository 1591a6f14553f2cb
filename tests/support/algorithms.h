/* The names that tutti_comm_config.algorithm accepts. */
#ifndef TUTTI_TESTS_ALGORITHMS_H
#define TUTTI_TESTS_ALGORITHMS_H

#include "support/job.h"

enum { T_MAX_ALGORITHMS = 32 };

/* All names of all collectives, each once, after NULL, which stands for the table's choice. */
size_t t_algorithms(const char *names[T_MAX_ALGORITHMS]);

/* Run a job once for each algorithm. One that this machine cannot run is passed over, saying so. */
void t_run_algorithms(const struct t_job *job);

#endif
