/* What is left of a limit, and that asking for more than there is says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "base/memory.h"

static void left_is_limit_less_what_cannot_be_given_back(void **state)
{
    (void)state;
    assert_int_equal(tt_memory_left(100, 40, 10), 70);
    assert_int_equal(tt_memory_left(100, 40, 50),
                     100); /* more cache than use: a race, not a debt */
    assert_int_equal(tt_memory_left(100, 140, 10), 0);
    assert_int_equal(tt_memory_left(100, 0, 0), 100);
}

static void a_page_is_there_and_an_exabyte_is_not(void **state)
{
    (void)state;
    assert_int_equal(tt_memory_check(4096), TUTTI_OK);
    assert_int_equal(tt_memory_check((size_t)1 << 60), TUTTI_E_MEMORY);
    assert_non_null(strstr(tt_error_text(), "are left"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(left_is_limit_less_what_cannot_be_given_back),
        cmocka_unit_test(a_page_is_there_and_an_exabyte_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
