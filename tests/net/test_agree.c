/* Steps of creation that all ranks take or none: who could not says why by its own reason, whatever becomes of the
 * exchange. */
#include <string.h>

#include "base/error.h"
#include "boot/boot.h"
#include "net/net_parts.h"
#include "support/t.h"

/* Between two ranks, of which this one is the first; *context is what becomes of it. */
static tutti_result gather(void *context, const void *send, void *recv, size_t bytes)
{
    const tutti_result *exchange = context;

    if (*exchange != TUTTI_OK)
        return TT_FAIL(*exchange, "the others have gone");
    memcpy(recv, send, bytes);
    memcpy((unsigned char *)recv + bytes, send, bytes);
    return TUTTI_OK;
}

static tutti_result step(tutti_result exchange, tutti_result mine, const char *why)
{
    const struct tt_exchange x = {.n_ranks = 2, .all_gather = gather, .context = &exchange};
    struct tt_net_rank ranks[2] = {0};
    const struct tt_net net = {.ranks = ranks, .n_ranks = 2};
    const uint64_t record = 7;
    uint64_t records[2] = {0};
    const tutti_result result =
        tt_net_gather(&net, &x, mine == TUTTI_OK ? mine : TT_FAIL(mine, "%s", why), &record,
                      records, sizeof(record));

    if (result == TUTTI_OK)
        assert_true(records[0] == 7 && records[1] == 7);
    return result;
}

static void all_can(void **state)
{
    (void)state;
    assert_int_equal(step(TUTTI_OK, TUTTI_OK, ""), TUTTI_OK);
}

static void this_one_cannot(void **state)
{
    (void)state;
    assert_int_equal(step(TUTTI_OK, TUTTI_E_UNSUPPORTED, "no card"), TUTTI_E_UNSUPPORTED);
    assert_non_null(strstr(tt_error_text(), "no card"));
    /* The others do something else by now. */
    assert_int_equal(step(TUTTI_E_MISMATCH, TUTTI_E_TIMEOUT, "nobody came"), TUTTI_E_TIMEOUT);
    assert_non_null(strstr(tt_error_text(), "nobody came"));
}

static void the_exchange_fails(void **state)
{
    (void)state;
    assert_int_equal(step(TUTTI_E_PEER, TUTTI_OK, ""), TUTTI_E_PEER);
    assert_non_null(strstr(tt_error_text(), "the others have gone"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_can),
        cmocka_unit_test(this_one_cannot),
        cmocka_unit_test(the_exchange_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
