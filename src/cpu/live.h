/* What live.c makes of bytes that another process has written: apart, so that the fuzzer reaches it. */
#ifndef TT_CPU_LIVE_H
#define TT_CPU_LIVE_H

#include <tutti/tutti.h>

#include "cpu/layout.h"

/* The counters of all ranks, [comm_out->n_ranks], for the caller to free; NULL where the segment is not one
 * of ours, or damaged. `head` is a copy of its first bytes, which its owner cannot change meanwhile;
 * `at`, page-aligned, is all of it. Fills in what the segment says of the communicator. */
tutti_stats *tt_live_read(const struct tt_segment *head, const void *at, size_t bytes,
                          tutti_live_comm *comm_out);

/* Whose byte a line of /proc/PID/fdinfo says to be locked; -1: it says nothing of that. */
int tt_live_rank(const char *line, int n_ranks);

#endif
