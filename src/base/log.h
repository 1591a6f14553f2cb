/* Log lines: "tutti host:pid rank/size level text", to standard error or the caller's handler. */
#ifndef TT_BASE_LOG_H
#define TT_BASE_LOG_H

#include <stdatomic.h>
#include <tutti/tutti.h>

extern atomic_int tt_log_level; /* finest level that is written; from TUTTI_LOG */

/* rank < 0 when there is none yet. */
void tt_log_write(tutti_log_level level, int rank, int n_ranks, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Lines go to `handler` from now on, to standard error if it is NULL. */
void tt_log_set(tutti_log_fn handler, void *context);

void tt_log_init(void); /* reads TUTTI_LOG; cheap to repeat; any thread */

#define TT_LOG(level, rank, n_ranks, ...)                                                          \
    do {                                                                                           \
        if ((int)(level) <= atomic_load_explicit(&tt_log_level, memory_order_relaxed))             \
            tt_log_write((level), (rank), (n_ranks), __VA_ARGS__);                                 \
    } while (0)

#endif
