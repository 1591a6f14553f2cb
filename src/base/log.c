/* The log sink: the one piece of state that the process has in common. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"

#define LINE_BYTES 1024

atomic_int tt_log_level = TUTTI_LOG_WARN;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static tutti_log_fn sink_handler;
static void *sink_context;

static const char *level_name(tutti_log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug", "trace"};

    return (unsigned)level < sizeof(names) / sizeof(names[0]) ? names[level] : "?";
}

static size_t add_prefix(char *line, size_t bytes, tutti_log_level level, int rank, int n_ranks)
{
    char host[64];
    char place[32] = "-";

    if (gethostname(host, sizeof(host)) != 0)
        memcpy(host, "?", 2);
    host[sizeof(host) - 1] = 0;
    if (rank >= 0)
        snprintf(place, sizeof(place), "%d/%d", rank, n_ranks);
    int n =
        snprintf(line, bytes, "tutti %s:%d %s %s ", host, (int)getpid(), place, level_name(level));
    return n < 0 ? 0 : (size_t)n;
}

void tt_log_write(tutti_log_level level, int rank, int n_ranks, const char *format, ...)
{
    char line[LINE_BYTES];
    size_t n = add_prefix(line, sizeof(line), level, rank, n_ranks);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line + n, sizeof(line) - n, format, arguments);
    va_end(arguments);
    for (char *p = line; *p; p++) {
        if ((unsigned char)*p < 0x20)
            *p = ' ';
    }

    pthread_mutex_lock(&sink_lock);
    tutti_log_fn handler = sink_handler;
    void *context = sink_context;
    pthread_mutex_unlock(&sink_lock);
    if (handler)
        handler(context, level, line);
    else
        fprintf(stderr, "%s\n", line); /* one call, so that lines of several ranks do not mix */
}

void tt_log_set(tutti_log_fn handler, void *context)
{
    pthread_mutex_lock(&sink_lock);
    sink_handler = handler;
    sink_context = context;
    pthread_mutex_unlock(&sink_lock);
}

void tt_log_init(void)
{
    int level;

    /* A wrong TUTTI_LOG must not stop a job; it is reported like any other warning. */
    if (tt_env_choice(TT_ENV_TUTTI_LOG, &level) != TUTTI_OK) {
        level = TUTTI_LOG_WARN;
        if (atomic_exchange(&tt_log_level, level) != level)
            return;
        static atomic_flag told = ATOMIC_FLAG_INIT;
        if (!atomic_flag_test_and_set(&told))
            TT_LOG(TUTTI_LOG_WARN, -1, 0,
                   "TUTTI_LOG=%s is ignored: use error, warn, info, debug or trace",
                   tt_env_text(TT_ENV_TUTTI_LOG));
        return;
    }
    atomic_store_explicit(&tt_log_level, level, memory_order_relaxed);
}
