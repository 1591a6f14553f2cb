/* How much memory there is to take. */
#ifndef TT_BASE_MEMORY_H
#define TT_BASE_MEMORY_H

#include <stddef.h>
#include <tutti/tutti.h>

/* TUTTI_E_MEMORY if taking `bytes` now would exceed what the system, or the cgroup that this process
 * runs in, has left: the kernel would answer with a kill instead of an error. A look, not a promise. */
tutti_result tt_memory_check(size_t bytes);

/* Give the file of shared memory `fd` its size. TUTTI_E_MEMORY if this process may not have files of that
 * size: the kernel would answer with a signal that kills. */
tutti_result tt_memory_resize(int fd, size_t bytes);

/* The figure behind the check: what `limit` leaves when `usage` is taken, of which `cache` can be given back.
 * Pure, for its test. */
unsigned long long tt_memory_left(unsigned long long limit, unsigned long long usage,
                                  unsigned long long cache);

#endif
