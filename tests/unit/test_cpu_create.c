/* Creating the CPU engine where there is no memory for it: an error, and what is the program's stays. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#include "base/error.h"
#include "cpu/cpu_engine.h"

/* Tables for that many ranks are more than the address space, so one of the first allocations fails. */
static void without_memory_standard_input_stays_open(void **state)
{
    const struct tt_engine_config config = {.n_ranks = INT_MAX, .name = "many"};
    struct tt_engine *e = NULL;
    struct rlimit old, tight;
    tutti_result result;

    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    puts("skipped: sanitizers need the address space");
    skip();
#endif
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    tight = old;
    tight.rlim_cur = (rlim_t)1 << 30;
    if (fcntl(0, F_GETFD) < 0)
        assert_int_equal(open("/dev/null", O_RDONLY), 0);
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    result = tt_cpu_engine.create(&config, &e);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    assert_int_equal(result, TUTTI_E_MEMORY);
    assert_null(e);
    assert_true(fcntl(0, F_GETFD) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_memory_standard_input_stays_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
