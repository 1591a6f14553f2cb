/* What the network would use: public addresses, networks in common, another UCX in here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#include <arpa/inet.h>

#include "net/interface.h"
#ifdef TUTTI_HAVE_UCX
#include "net/ucx.h"
#endif

static int is_public(const char *text)
{
    unsigned char ip[16] = {0};
    const int six = strchr(text, ':') != NULL;

    assert_int_equal(inet_pton(six ? AF_INET6 : AF_INET, text, ip), 1);
    return tt_net_is_public(six ? TT_BOOT_IP6 : TT_BOOT_IP4, ip);
}

static void test_public(void **state)
{
    static const char *const private[] = {
        "10.1.2.3",        "127.0.0.1",   "169.254.7.7", "172.16.0.1",
        "172.31.255.255",  "192.168.1.1", "100.64.0.1",  "192.0.2.2",
        "198.51.100.9",    "203.0.113.4", "198.19.0.1",  "::1",
        "fe80::1",         "fd00::2",     "fc12::1",     "2001:db8::1",
        "::ffff:10.0.0.1", "0.0.0.0",     "::",          "255.255.255.255"};
    static const char *const public[] = {
        "8.8.8.8",     "172.15.0.1", "172.32.0.1",     "192.169.0.1", "100.63.255.255",
        "100.128.0.1", "11.0.0.1",   "198.20.0.1",     "2a00::1",     "2001:db7::1",
        "2001:db9::1", "3fff::1",    "::ffff:8.8.8.8", "192.0.3.1",   "223.1.1.1"};

    (void)state;
    for (size_t i = 0; i < sizeof(private) / sizeof(private[0]); i++) {
        if (is_public(private[i]))
            fail_msg("%s is taken for public", private[i]);
    }
    for (size_t i = 0; i < sizeof(public) / sizeof(public[0]); i++) {
        if (!is_public(public[i]))
            fail_msg("%s is taken for private", public[i]);
    }
}

static struct tt_net_subnet subnet(const char *text, uint8_t bits)
{
    struct tt_net_subnet s = {.bits = bits};

    s.kind = strchr(text, ':') ? TT_BOOT_IP6 : TT_BOOT_IP4;
    assert_int_equal(inet_pton(s.kind == TT_BOOT_IP6 ? AF_INET6 : AF_INET, text, s.ip), 1);
    return s;
}

static int same(const char *mine, uint8_t bits, const char *theirs)
{
    const struct tt_net_subnet a = subnet(mine, bits), b = subnet(theirs, 0);

    return tt_net_same_subnet(&a, &b);
}

static void test_subnets(void **state)
{
    (void)state;
    assert_true(same("10.1.0.1", 16, "10.1.255.9"));
    assert_false(same("10.1.0.1", 16, "10.2.0.1"));
    assert_true(same("10.0.0.1", 30, "10.0.0.2"));
    assert_false(same("10.0.0.1", 30, "10.0.0.4"));
    assert_true(same("fd77::1", 64, "fd77::ffff:2"));
    assert_false(same("fd77::1", 64, "fd78::1"));
    assert_false(same("10.0.0.1", 0, "10.0.0.2"));  /* a way to everywhere is no network */
    assert_false(same("10.0.0.1", 33, "10.0.0.1")); /* from another process */
    assert_false(same("10.0.0.1", 8, "fd77::1"));
    assert_true(same("10.0.0.1", 32, "10.0.0.1"));
}

static void test_mapped(void **state)
{
    (void)state;
#ifdef TUTTI_HAVE_UCX
    static const char maps[] = "7f00-7f10 r-xp 0 08:01 11 /usr/lib/libucs_signal.so.0\n"
                               "7f10-7f20 r-xp 0 08:01 12 /opt/libucs/readme\n"
                               "7f20-7f30 rw-p 0 00:00 0 \n"
                               "7f30-7f40 r-xp 0 08:01 13 /opt/a b/x.libs/libucs-1a2b3c.so.0.0.0\n"
                               "7f40-7f50 r-xp 0 08:01 14 /usr/lib/libucp.so.0.0.0";
    char path[128];

    assert_true(tt_ucx_find_mapped(maps, "libucs", path, sizeof(path)));
    assert_string_equal(path, "/opt/a b/x.libs/libucs-1a2b3c.so.0.0.0");
    assert_true(tt_ucx_find_mapped(maps, "libucp", path, sizeof(path)));
    assert_string_equal(path, "/usr/lib/libucp.so.0.0.0");
    assert_false(tt_ucx_find_mapped(maps, "libuct", path, sizeof(path)));
    assert_false(tt_ucx_find_mapped(maps, "libucp", path, 10));
    assert_false(tt_ucx_find_mapped("", "libucp", path, sizeof(path)));
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public),
        cmocka_unit_test(test_subnets),
        cmocka_unit_test(test_mapped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
