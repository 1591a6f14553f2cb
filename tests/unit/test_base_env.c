/* TUTTI_* variables: parsers, defaults, errors that name the variable, unknown names. */
#include "base/env.h"
#include "base/error.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

static void test_numbers(void **state)
{
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "-1",
                                      "+1",
                                      "0x10",
                                      "1.0",
                                      "1e3",
                                      "18446744073709551616",
                                      "99999999999999999999999"};
    uint64_t value = 7;

    (void)state;
    assert_int_equal(tt_env_parse_number("0", &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(tt_env_parse_number("18446744073709551615", &value), 0);
    assert_true(value == UINT64_MAX);
    for (size_t i = 0; i < TT_LEN(bad); i++) {
        value = 7;
        assert_int_equal(tt_env_parse_number(bad[i], &value), -1);
        assert_int_equal(value, 7);
    }
}

static void test_bytes_and_times(void **state)
{
    uint64_t v;

    (void)state;
    assert_int_equal(tt_env_parse_bytes("4096", &v), 0);
    assert_int_equal(v, 4096);
    assert_int_equal(tt_env_parse_bytes("64K", &v), 0);
    assert_int_equal(v, 65536);
    assert_int_equal(tt_env_parse_bytes("3M", &v), 0);
    assert_int_equal(v, 3 << 20);
    assert_int_equal(tt_env_parse_bytes("16777216G", &v), 0);
    assert_int_equal(tt_env_parse_bytes("17179869184G", &v), -1); /* 2^64 */
    assert_int_equal(tt_env_parse_bytes("4KB", &v), -1);
    assert_int_equal(tt_env_parse_bytes("K", &v), -1);
    assert_int_equal(tt_env_parse_time("250", &v), 0);
    assert_int_equal(v, 250);
    assert_int_equal(tt_env_parse_time("250ms", &v), 0);
    assert_int_equal(v, 250);
    assert_int_equal(tt_env_parse_time("30s", &v), 0);
    assert_int_equal(v, 30000);
    assert_int_equal(tt_env_parse_time("2m", &v), 0);
    assert_int_equal(v, 120000);
    assert_int_equal(tt_env_parse_time("2h", &v), -1);
    assert_int_equal(tt_env_parse_time("30 s", &v), -1);
    assert_int_equal(tt_env_parse_time("307445734561825861m", &v), -1);
}

static void test_defaults_and_values(void **state)
{
    uint64_t v;
    int i;

    (void)state;
    unsetenv("TUTTI_TIMEOUT");
    assert_int_equal(tt_env_number(TT_ENV_TUTTI_TIMEOUT, &v), TUTTI_OK);
    assert_int_equal(v, 30000);
    setenv("TUTTI_TIMEOUT", "5s", 1);
    assert_int_equal(tt_env_number(TT_ENV_TUTTI_TIMEOUT, &v), TUTTI_OK);
    assert_int_equal(v, 5000);
    setenv("TUTTI_TIMEOUT", "soon", 1);
    assert_int_equal(tt_env_number(TT_ENV_TUTTI_TIMEOUT, &v), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "TUTTI_TIMEOUT=soon"));
    setenv("TUTTI_TIMEOUT", "", 1); /* empty is unset */
    assert_false(tt_env_is_set(TT_ENV_TUTTI_TIMEOUT));
    assert_int_equal(tt_env_number(TT_ENV_TUTTI_TIMEOUT, &v), TUTTI_OK);
    unsetenv("TUTTI_TIMEOUT");

    assert_int_equal(tt_env_choice(TT_ENV_TUTTI_CPU_XMEM, &i), TUTTI_OK);
    assert_int_equal(i, 0);
    setenv("TUTTI_CPU_XMEM", "on", 1);
    assert_int_equal(tt_env_choice(TT_ENV_TUTTI_CPU_XMEM, &i), TUTTI_OK);
    assert_int_equal(i, 2);
    setenv("TUTTI_CPU_XMEM", "o", 1); /* the beginning of a word is not the word */
    assert_int_equal(tt_env_choice(TT_ENV_TUTTI_CPU_XMEM, &i), TUTTI_E_ARG);
    unsetenv("TUTTI_CPU_XMEM");
}

static void test_describe_every_row(void **state)
{
    tutti_env_entry entry = TUTTI_ENV_ENTRY_INIT;
    size_t n = 0;

    (void)state;
    setenv("TUTTI_SECRET", "hunter2", 1);
    while (tt_env_describe(n, &entry) == TUTTI_OK) {
        assert_int_equal(strncmp(entry.name, "TUTTI_", 6), 0);
        assert_non_null(entry.help);
        assert_null(strstr(entry.value, "hunter2"));
        if (strcmp(entry.name, "TUTTI_SECRET") == 0)
            assert_string_equal(entry.source, "environment");
        n++;
    }
    unsetenv("TUTTI_SECRET");
    assert_int_equal(n, TT_ENV_COUNT);
    assert_int_equal(tt_env_describe(n, &entry), TUTTI_E_ARG);
    assert_int_equal(tt_env_describe(0, NULL), TUTTI_E_ARG);

    tutti_env_entry old = {.help = "untouched"};

    old.size = offsetof(tutti_env_entry, help);
    assert_int_equal(tt_env_describe(0, &old), TUTTI_OK);
    assert_string_equal(old.help, "untouched");
}

static void test_nearest_name(void **state)
{
    (void)state;
    assert_string_equal(tt_env_nearest("TUTTI_TIMEOUT_MS"), "TUTTI_TIMEOUT");
    assert_string_equal(tt_env_nearest("TUTTI_LOGS"), "TUTTI_LOG");
    assert_string_equal(tt_env_nearest("TUTTI_ALGORITHM"), "TUTTI_ALGO");
    assert_null(tt_env_nearest("TUTTI_SOMETHING_ELSE_ENTIRELY"));
    assert_null(
        tt_env_nearest("TUTTI_A_NAME_THAT_IS_LONGER_THAN_ANY_TABLE_WOULD_EVER_WANT_TO_HOLD"));
}

static char lines[8][256];
static int n_lines;

static void collect(void *context, tutti_log_level level, const char *line)
{
    (void)context;
    (void)level;
    if (n_lines < 8)
        snprintf(lines[n_lines++], sizeof(lines[0]), "%s", line);
}

static void test_unknown_is_told_once(void **state)
{
    (void)state;
    setenv("TUTTI_TIMEOOT", "1s", 1);
    tt_log_set(collect, NULL);
    tt_env_check_unknown();
    tt_env_check_unknown();
    tt_log_set(NULL, NULL);
    unsetenv("TUTTI_TIMEOOT");
    int n_about_it = 0;

    for (int i = 0; i < n_lines; i++) {
        if (!strstr(lines[i], "TUTTI_TIMEOOT"))
            continue;
        n_about_it++;
        assert_non_null(strstr(lines[i], "did you mean TUTTI_TIMEOUT?"));
        assert_non_null(strstr(lines[i], " warn "));
    }
    assert_int_equal(n_about_it, 1);
}

static void test_foreign_numbers(void **state)
{
    uint64_t v;

    (void)state;
    unsetenv("WORLD_SIZE");
    assert_int_equal(tt_env_foreign_number("WORLD_SIZE", &v), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "WORLD_SIZE is not set"));
    setenv("WORLD_SIZE", "four", 1);
    assert_int_equal(tt_env_foreign_number("WORLD_SIZE", &v), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "WORLD_SIZE=four"));
    unsetenv("WORLD_SIZE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_bytes_and_times),
        cmocka_unit_test(test_defaults_and_values),
        cmocka_unit_test(test_describe_every_row),
        cmocka_unit_test(test_nearest_name),
        cmocka_unit_test(test_unknown_is_told_once),
        cmocka_unit_test(test_foreign_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
