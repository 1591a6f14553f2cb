/* The address of this host that a rendezvous works over. */
#include "boot_ranks.h"

static int wanted_kind; /* 0: none */

static tutti_result ask(struct job *job, int rank)
{
    static const unsigned char one[16] = {[15] = 1};
    struct tt_boot_address a = {0};
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, 3, 20000, "s", &boot);

    if (result == TUTTI_OK) {
        const int route = tt_boot_route(boot, &a), found = route >= 0;

        if (route > 0 || found != (wanted_kind != 0) || (found && (int)a.kind != wanted_kind) ||
            (wanted_kind == TT_BOOT_IP4 && (a.ip[0] != 127 || a.ip[3] != 1)) ||
            (wanted_kind == TT_BOOT_IP6 && memcmp(a.ip, one, sizeof(one)) != 0))
            result = TT_FAIL(TUTTI_E_INTERNAL, "route %d, kind %d, %d.%d.%d.%d", route, (int)a.kind,
                             a.ip[0], a.ip[1], a.ip[2], a.ip[3]);
        result = result == TUTTI_OK ? gather_checked(boot, rank, 3, 0, 8) : result;
    }
    tt_boot_close(boot);
    return result;
}

static void run(int kind, const char *address)
{
    wanted_kind = kind;
    job_expect(job_play(address, 3, ask), 3, TUTTI_OK, NULL, 0);
}

static void test_families(void **state)
{
    char address[96];

    (void)state;
    free_address(AF_INET, address, sizeof(address));
    run(TT_BOOT_IP4, address);
    free_address(AF_INET6, address, sizeof(address));
    if (*address)
        run(TT_BOOT_IP6, address);
}

/* Rank 0 listens for both families at once: what comes by IPv4 must not look like IPv6. */
static void test_any_and_local_socket(void **state)
{
    char address[96];

    (void)state;
    local_address(address, sizeof(address));
    run(0, address);
    run(TT_BOOT_IP4, ""); /* an id, whose rank 0 listens on all interfaces */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_any_and_local_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
