/* Failures: the first function that detects one writes its text; callers only pass the code up. */
#ifndef TT_BASE_ERROR_H
#define TT_BASE_ERROR_H

#include <tutti/tutti.h>

/* Write this thread's last error text and return `code`. */
tutti_result tt_fail(const char *file, int line, tutti_result code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with ": <strerror(errno)>" appended; code is E_MEMORY for ENOMEM and ENOSPC, else
 * E_SYSTEM. */
tutti_result tt_fail_errno(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__ /* which cannot see that these never return 0 */
#define TT_FAIL(code, ...) (tt_fail(__FILE__, __LINE__, (code), __VA_ARGS__), (code))
#define TT_FAIL_SYS(...)   (tt_fail_errno(__FILE__, __LINE__, __VA_ARGS__), TUTTI_E_SYSTEM)
#else
#define TT_FAIL(code, ...) tt_fail(__FILE__, __LINE__, (code), __VA_ARGS__)
#define TT_FAIL_SYS(...)   tt_fail_errno(__FILE__, __LINE__, __VA_ARGS__)
#endif

#define TT_TRY(expression)                                                                         \
    do {                                                                                           \
        tutti_result tt_try_ = (expression);                                                       \
        if (tt_try_ < TUTTI_OK)                                                                    \
            return tt_try_;                                                                        \
    } while (0)

/* What the public functions of these names return; their only other caller is src/api. */
const char *tt_error_text(void);
const char *tt_result_name(tutti_result result);
const char *tt_result_text(tutti_result result);
uint32_t tt_version(void);
const char *tt_dtype_name(tutti_dtype dtype);
const char *tt_op_name(tutti_op op);

/* "rank 3", "ranks 2 and 3", "ranks 1-3, 5 and 9", "ranks 1, 3, 5, 7, 9, 11 and 40 more": n of them, at
 * least one, in ascending order. */
#define TT_RANKS_TEXT 128
void tt_ranks_text(const int ranks[], int n, char text[TT_RANKS_TEXT]);

#define TT_LEN(array) (sizeof(array) / sizeof((array)[0]))

#endif
