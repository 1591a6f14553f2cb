/* The CPU engine as the rooms above see it. */
#ifndef TT_CPU_CPU_ENGINE_H
#define TT_CPU_CPU_ENGINE_H

#include "base/engine.h"

extern const struct tt_engine_ops tt_cpu_engine;

/* Is that rank still there? Two system calls. Any thread. */
enum tt_presence tt_cpu_presence(struct tt_engine *engine, int rank);

#define TT_CPU_MAX_RANKS 1024

/* ---- for an engine that is composed of this one (compose.c) ---- */

/* Count a call, or sends and receives, that the other engine carries out in several steps. */
void tt_cpu_note(struct tt_engine *e, const struct tt_call *call, uint64_t bytes);
void tt_cpu_note_p2p(struct tt_engine *e, size_t n_ops, uint64_t bytes);

/* A call in 64 bits that ranks compare, and its words ("all_reduce f32 sum"); a hash of counts. */
uint64_t tt_cpu_what(const struct tt_call *call);
void tt_cpu_call_text(uint64_t what, char *text, size_t bytes);
uint64_t tt_cpu_counts_hash(const size_t *counts, size_t n);

/* Sends and receives that are not counted. */
tutti_result tt_cpu_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops);

/* What has failed, with its text, else TUTTI_OK; and to fail on all ranks for a reason from outside:
 * the first failure counts, and is returned. `peer` is a rank as texts call it, or -1. */
tutti_result tt_cpu_failed(const struct tt_engine *e);
tutti_result tt_cpu_fail(struct tt_engine *e, tutti_result result, int peer, const char *text);

/* This rank has waited for long for something else: who waits for it is to have patience. */
void tt_cpu_waits(struct tt_engine *e);
int tt_cpu_has_waited(const struct tt_engine *e); /* it has, here, and still does */

/* This rank's counter of what was refused (tutti_stats), for who refuses: any thread, while the engine lives. */
_Atomic uint64_t *tt_cpu_refused(struct tt_engine *e);

int tt_cpu_polls(const struct tt_engine *e); /* ranks have cores of their own: waits may poll */

/* Behind tutti_live_visit() (live.c). */
tutti_result tt_cpu_live_visit(int pid, tutti_live_fn visit, void *context);

#endif
