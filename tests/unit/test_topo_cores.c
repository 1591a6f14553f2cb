/* Lists of cores as the kernel writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "topo/cores.h"

static void lists_are_read(void **state)
{
    cpu_set_t cores;

    (void)state;
    assert_int_equal(tt_cores_parse("0-3,8,10-11\n", &cores), 0);
    assert_int_equal(CPU_COUNT(&cores), 7);
    assert_true(CPU_ISSET(0, &cores) && CPU_ISSET(3, &cores) && CPU_ISSET(8, &cores));
    assert_true(CPU_ISSET(10, &cores) && CPU_ISSET(11, &cores) && !CPU_ISSET(4, &cores));
    assert_int_equal(tt_cores_parse("5", &cores), 0);
    assert_true(CPU_COUNT(&cores) == 1 && CPU_ISSET(5, &cores));
    assert_int_equal(tt_cores_parse("\n", &cores), 0); /* a device without a node */
    assert_int_equal(CPU_COUNT(&cores), 0);
}

static void what_is_no_list_is_refused(void **state)
{
    static const char *const lists[] = {"a",  "1-",      "3-1", "1,,2", "1 2",
                                        "-4", "1-99999", "0x3", "1;"};
    cpu_set_t cores;

    (void)state;
    CPU_ZERO(&cores);
    CPU_SET(7, &cores);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        assert_int_equal(tt_cores_parse(lists[i], &cores), -1);
    assert_true(CPU_COUNT(&cores) == 1 && CPU_ISSET(7, &cores));
    assert_int_equal(tt_cores_near("no:such:device.0", &cores), 0);
    assert_int_equal(tt_cores_near("../../../proc", &cores), 0);
    assert_true(CPU_COUNT(&cores) == 1 && CPU_ISSET(7, &cores));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read),
        cmocka_unit_test(what_is_no_list_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
