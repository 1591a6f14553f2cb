/*
 * Checks that work in every process of a test: in the test's own process they end the cmocka test;
 * in a rank they leave file, line and text where the parent finds them, and end the rank.
 */
#ifndef TUTTI_TESTS_T_H
#define TUTTI_TESTS_T_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>
#include <tutti/tutti.h>

#define T_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* Ends the rank, or the test. */
_Noreturn void t_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Ends the rank, or the test, as skipped, saying why. */
_Noreturn void t_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Remember what this rank is doing, for the report of a hang or a crash. */
void t_at(const char *file, int line, const char *call);

/* Compare a result; used by T_IS and T_OK. */
void t_check_result(const char *file, int line, const char *call, tutti_result want,
                    tutti_result got);

/* Fails unless `text` contains `part`. */
void t_check_contains(const char *file, int line, const char *text, const char *part);

#define T_FAIL(...) t_fail(__FILE__, __LINE__, __VA_ARGS__)

/* T_CHECK(condition, "text", values ...): the text says what was wrong. */
#define T_CHECK(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            t_fail(__FILE__, __LINE__, __VA_ARGS__);                                               \
    } while (0)

#define T_IS(want, call)                                                                           \
    do {                                                                                           \
        t_at(__FILE__, __LINE__, #call);                                                           \
        t_check_result(__FILE__, __LINE__, #call, (want), (call));                                 \
        t_at(__FILE__, __LINE__, NULL);                                                            \
    } while (0)

#define T_OK(call)             T_IS(TUTTI_OK, call)
#define T_CONTAINS(text, part) t_check_contains(__FILE__, __LINE__, (text), (part))

/* A call to the operating system that must give 0 or more. */
#define T_SYS(call) T_CHECK((call) >= 0, "%s: %s", #call, strerror(errno))

/* --- random numbers, times ------------------------------------------------------------------- */

struct t_rng {
    uint64_t state;
};
uint64_t t_random(struct t_rng *rng);
uint64_t t_random_below(struct t_rng *rng, uint64_t bound);
uint64_t t_hash(uint64_t a, uint64_t b); /* two numbers to a third, well mixed */

uint64_t t_now_ns(void);
void t_sleep_us(unsigned us);

/* Limits of time are multiplied by this: 1, more under sanitizers or as ctest says. */
unsigned t_scale(void);

/* Repetitions for a test: `quick`, or `full` where the program was started with the word "full". */
void t_arguments(int argc, char **argv);
unsigned t_times(unsigned quick, unsigned full);

#endif
