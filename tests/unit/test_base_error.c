/* Error text, names, log lines, clock. */
/* ctest: quick tsan */
#include "base/call.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

static void test_text_is_kept(void **state)
{
    (void)state;
    assert_int_equal(TT_FAIL(TUTTI_E_ARG, "count %d is odd", 3), TUTTI_E_ARG);
    assert_string_equal(tt_error_text(), "count 3 is odd");
    TT_FAIL(TUTTI_E_PEER, "again: %s", tt_error_text()); /* its own text as an argument */
    assert_string_equal(tt_error_text(), "again: count 3 is odd");
    TT_FAIL(TUTTI_E_PEER, "two\nlines\x1b[31m");
    assert_string_equal(tt_error_text(), "two lines [31m");
}

static void test_errno_text(void **state)
{
    (void)state;
    errno = ENOENT;
    assert_int_equal(TT_FAIL_SYS("cannot open %s", "x"), TUTTI_E_SYSTEM);
    assert_string_equal(tt_error_text(), "cannot open x: No such file or directory");
    assert_int_equal(errno, ENOENT);
    errno = ENOMEM;
    assert_int_equal(TT_FAIL_SYS("cannot map"), TUTTI_E_MEMORY);
    errno = ENOSPC;
    assert_int_equal(TT_FAIL_SYS("cannot map"), TUTTI_E_MEMORY);
}

static void test_long_text_is_cut(void **state)
{
    char big[2000];

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    TT_FAIL(TUTTI_E_ARG, "%s", big);
    assert_int_equal(strlen(tt_error_text()), 511);
    errno = EIO;
    TT_FAIL_SYS("%s", big);
    assert_int_equal(strlen(tt_error_text()), 511);
}

static void *fail_elsewhere(void *context)
{
    if (*tt_error_text())
        return context; /* inherited */
    TT_FAIL(TUTTI_E_ARG, "of the other thread");
    return NULL;
}

static void test_text_is_per_thread(void **state)
{
    pthread_t thread;
    void *problem;

    (void)state;
    TT_FAIL(TUTTI_E_ARG, "mine");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &problem), 0);
    pthread_join(thread, &problem);
    assert_null(problem);
    assert_string_equal(tt_error_text(), "mine");
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(tt_result_name(TUTTI_OK), "TUTTI_OK");
    assert_string_equal(tt_result_name(TUTTI_E_PEER), "TUTTI_E_PEER");
    assert_string_equal(tt_result_name((tutti_result)-99), "TUTTI_?");
    assert_string_equal(tt_result_text(TUTTI_E_MEMORY), "out of memory");
    assert_non_null(tt_result_text((tutti_result)99));
    assert_int_equal(tt_dtype_bytes(TUTTI_DTYPE_BF16), 2);
    assert_int_equal(tt_dtype_bytes((tutti_dtype)TUTTI_N_DTYPES), 0);
    assert_int_equal(tt_dtype_bytes((tutti_dtype)-1), 0);
    assert_string_equal(tt_dtype_name(TUTTI_DTYPE_E5M2), "e5m2");
    assert_string_equal(tt_dtype_name((tutti_dtype)-1), "?");
    assert_string_equal(tt_op_name(TUTTI_OP_AVG), "avg");
    assert_string_equal(tt_op_name((tutti_op)TUTTI_N_OPS), "?");
    assert_int_equal(tt_version() >> 16, TUTTI_VERSION_MAJOR);
    for (int i = 0; i < TUTTI_N_DTYPES; i++)
        assert_true(tt_dtype_bytes((tutti_dtype)i) > 0);
}

static char last_line[1100];
static int n_lines;

static void collect(void *context, tutti_log_level level, const char *line)
{
    assert_ptr_equal(context, last_line);
    assert_true(level <= TUTTI_LOG_TRACE);
    snprintf(last_line, sizeof(last_line), "%s", line);
    n_lines++;
}

static void test_log_lines(void **state)
{
    (void)state;
    tt_log_set(collect, last_line);
    unsetenv("TUTTI_LOG");
    tt_log_init();
    n_lines = 0;
    TT_LOG(TUTTI_LOG_INFO, 1, 4, "not written");
    assert_int_equal(n_lines, 0);
    TT_LOG(TUTTI_LOG_WARN, 1, 4, "value %d", 5);
    assert_int_equal(n_lines, 1);
    assert_int_equal(strncmp(last_line, "tutti ", 6), 0);
    assert_non_null(strstr(last_line, " 1/4 warn value 5"));
    setenv("TUTTI_LOG", "trace", 1);
    tt_log_init();
    TT_LOG(TUTTI_LOG_TRACE, -1, 0, "a\nb");
    assert_non_null(strstr(last_line, " - trace a b"));
    setenv("TUTTI_LOG", "loud", 1); /* told, and otherwise ignored */
    tt_log_init();
    assert_non_null(strstr(last_line, "TUTTI_LOG=loud"));
    assert_int_equal(atomic_load(&tt_log_level), TUTTI_LOG_WARN);
    unsetenv("TUTTI_LOG");
    tt_log_set(NULL, NULL);
}

static void test_clock(void **state)
{
    uint64_t ns = tt_now_ns();
    double per_tick = tt_ns_per_tick();
    uint64_t ticks = tt_ticks();

    (void)state;
    ns = tt_now_ns();
    while (tt_now_ns() - ns < 20000000)
        ;
    double measured = (double)(tt_ticks() - ticks) * per_tick;

    assert_true(per_tick > 0);
    assert_true(measured > 15e6 && measured < 200e6);
    assert_true(tt_ns_per_tick() == per_tick);
}

static void check_ranks(const char *want, int n, const int ranks[])
{
    char text[TT_RANKS_TEXT];

    tt_ranks_text(ranks, n, text);
    assert_string_equal(text, want);
}

static void test_lists_of_ranks(void **state)
{
    int many[1024];

    (void)state;
    check_ranks("rank 7", 1, (const int[]){7});
    check_ranks("ranks 2 and 3", 2, (const int[]){2, 3});
    check_ranks("ranks 2, 3 and 5", 3, (const int[]){2, 3, 5});
    check_ranks("ranks 1-3", 3, (const int[]){1, 2, 3});
    check_ranks("ranks 0, 2-4 and 9", 5, (const int[]){0, 2, 3, 4, 9});
    check_ranks("ranks 1, 3, 5, 7, 9, 11 and 13-15", 9,
                (const int[]){1, 3, 5, 7, 9, 11, 13, 14, 15});
    check_ranks("ranks 1, 3, 5, 7, 9, 11 and 3 more", 9,
                (const int[]){1, 3, 5, 7, 9, 11, 13, 15, 17});
    for (int i = 0; i < 1024; i++)
        many[i] = i;
    check_ranks("ranks 0-1023", 1024, many);
    for (int i = 0; i < 768; i++) /* 0-2, 4-6 ...: all but every fourth */
        many[i] = i / 3 * 4 + i % 3;
    check_ranks("ranks 0-2, 4-6, 8-10, 12-14, 16-18, 20-22 and 750 more", 768, many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_kept),
        cmocka_unit_test(test_errno_text),
        cmocka_unit_test(test_long_text_is_cut),
        cmocka_unit_test(test_text_is_per_thread),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_lists_of_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
