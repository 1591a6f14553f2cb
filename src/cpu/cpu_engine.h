/* The CPU engine as the rooms above see it. */
#ifndef TT_CPU_CPU_ENGINE_H
#define TT_CPU_CPU_ENGINE_H

#include "base/engine.h"

extern const struct tt_engine_ops tt_cpu_engine;

/* Is that rank still there? Two system calls. Any thread. */
enum tt_presence tt_cpu_presence(struct tt_engine *engine, int rank);

#define TT_CPU_MAX_RANKS 1024

/* Behind tutti_live_visit() (live.c). */
tutti_result tt_cpu_live_visit(int pid, tutti_live_fn visit, void *context);

#endif
