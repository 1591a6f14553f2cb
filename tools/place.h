/* The cores that this process may use, and which rank gets which. */
#ifndef TUTTI_TOOLS_PLACE_H
#define TUTTI_TOOLS_PLACE_H

#include <sched.h>
#include <stdint.h>

struct place_core {
    cpu_set_t threads; /* the hardware threads of the core that may be used */
    int first;         /* the lowest of them */
    int node;          /* NUMA node */
    int package;
};

struct place {
    int n_cores;   /* in order of NUMA node */
    int n_threads; /* hardware threads in all */
    int n_nodes;   /* NUMA nodes that have cores of ours */
    int n_packages;
    double quota;       /* CPUs that the control group grants; 0: no limit */
    const char *source; /* "hwloc" or "sysfs" */
    struct place_core *cores;
};

enum place_bind {
    PLACE_NONE, /* leave it to the scheduler */
    PLACE_CORE, /* an equal share of the cores, no core shared */
    PLACE_NUMA, /* all cores of one NUMA node */
};

void place_read(struct place *place);
void place_free(struct place *place);

/* Ranks that fit: one a core, less if the control group grants less. At least 1. */
int place_fit(const struct place *place);

/* CPUs that the control groups around this process grant; 0: no limit. */
double place_quota(void);

/* Bytes behind that key, "MemTotal:", of what the system says of its memory; `missing` if it says nothing. */
double place_meminfo(const char *key, double missing);

/* Bytes that can still be taken; INFINITY where that is not known. A look, not a promise. */
struct place_memory {
    double system;
    double group;      /* within the control group around this process that leaves the least */
    uint64_t group_id; /* which one of this machine's that is */
};
struct place_memory place_memory(void);

/* 1 if n ranks of n_threads threads must share cores. */
int place_is_crowded(const struct place *place, int n_ranks, int n_threads);

/* Where rank of n_ranks runs. Ranks next to each other are near each other; all NUMA nodes get
 * equal numbers. */
void place_of_rank(const struct place *place, enum place_bind bind, int rank, int n_ranks,
                   cpu_set_t *set_out);

/* The core of one thread, for one thread a core. */
void place_of_thread(const struct place *place, int rank, int n_ranks, int thread, int n_threads,
                     cpu_set_t *set_out);

#endif
