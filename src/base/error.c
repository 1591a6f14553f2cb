/* Error text of the thread, and the names of results, dtypes and operations. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define TEXT_BYTES 512

static _Thread_local char error_text[TEXT_BYTES];

/* One line, whatever came in from a peer or a file name. */
static void set_text(char *text)
{
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    }
    memcpy(error_text, text, strlen(text) + 1);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static tutti_result set_error(const char *file, int line, tutti_result code, int error,
                              const char *format, va_list arguments)
    __attribute__((format(printf, 5, 0)));

static tutti_result set_error(const char *file, int line, tutti_result code, int error,
                              const char *format, va_list arguments)
{
    char text[TEXT_BYTES]; /* an argument may be the text that is replaced */
    int n = vsnprintf(text, sizeof(text), format, arguments);

    if (n < 0)
        n = snprintf(text, sizeof(text), "%s", tt_result_text(code));
    if (error && n < (int)sizeof(text) - 1) {
        char reason[128];

        snprintf(text + n, sizeof(text) - (size_t)n, ": %s",
                 strerror_r(error, reason, sizeof(reason)));
    }
    set_text(text);
    TT_LOG(TUTTI_LOG_DEBUG, -1, 0, "%s at %s:%d: %s", tt_result_name(code), base_name(file), line,
           error_text);
    return code;
}

tutti_result tt_fail(const char *file, int line, tutti_result code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    set_error(file, line, code, 0, format, arguments);
    va_end(arguments);
    return code;
}

tutti_result tt_fail_errno(const char *file, int line, const char *format, ...)
{
    int error = errno;
    tutti_result code = error == ENOMEM || error == ENOSPC ? TUTTI_E_MEMORY : TUTTI_E_SYSTEM;
    va_list arguments;

    va_start(arguments, format);
    set_error(file, line, code, error, format, arguments);
    va_end(arguments);
    errno = error;
    return code;
}

const char *tt_error_text(void)
{
    return error_text;
}

const char *tt_result_name(tutti_result result)
{
    switch (result) {
#define NAME(name, value, survives, text)                                                          \
    case TUTTI_##name: return "TUTTI_" #name;
        TUTTI_RESULT_MAP(NAME)
#undef NAME
    }
    return "TUTTI_?";
}

const char *tt_result_text(tutti_result result)
{
    switch (result) {
#define TEXT(name, value, survives, text)                                                          \
    case TUTTI_##name: return text;
        TUTTI_RESULT_MAP(TEXT)
#undef TEXT
    }
    return "not a result of tutti";
}

uint32_t tt_version(void)
{
    return (uint32_t)TUTTI_VERSION_MAJOR << 16 | (uint32_t)TUTTI_VERSION_MINOR << 8 |
           (uint32_t)TUTTI_VERSION_PATCH;
}

const char *tt_dtype_name(tutti_dtype dtype)
{
    switch (dtype) {
#define NAME(name, value, bytes, text)                                                             \
    case TUTTI_DTYPE_##name: return text;
        TUTTI_DTYPE_MAP(NAME)
#undef NAME
    }
    return "?";
}

const char *tt_op_name(tutti_op op)
{
    switch (op) {
#define NAME(name, value, text)                                                                    \
    case TUTTI_OP_##name: return text;
        TUTTI_OP_MAP(NAME)
#undef NAME
    }
    return "?";
}

#define MOST_RUNS 6 /* that are written out, if there are more than one more */

/* How many of ranks[0 .. n) are written as one: from three in sequence on, all of these. */
static int run_of(const int ranks[], int n)
{
    int length = 1;

    while (length < n && ranks[length] == ranks[0] + length)
        length++;
    return length < 3 ? 1 : length;
}

void tt_ranks_text(const int ranks[], int n, char text[TT_RANKS_TEXT])
{
    size_t at = (size_t)snprintf(text, TT_RANKS_TEXT, "rank%s", n == 1 ? "" : "s");

    for (int i = 0, n_runs = 0, length; i < n && at < TT_RANKS_TEXT; i += length, n_runs++) {
        char run[32];

        length = run_of(ranks + i, n - i);
        if (n_runs >= MOST_RUNS && i + length < n) {
            length = n - i;
            snprintf(run, sizeof(run), "%d more", length);
        } else if (length == 1) {
            snprintf(run, sizeof(run), "%d", ranks[i]);
        } else {
            snprintf(run, sizeof(run), "%d-%d", ranks[i], ranks[i + length - 1]);
        }
        at += (size_t)snprintf(text + at, TT_RANKS_TEXT - at, "%s%s",
                               i == 0            ? " "
                               : i + length == n ? " and "
                                                 : ", ",
                               run);
    }
}
