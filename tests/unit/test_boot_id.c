/* Unique ids: what they carry, their text, and that damage is seen. */
#include "base/error.h"
#include "boot/boot.h"
#include "boot/boot_address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

static tutti_unique_id from_address(const char *address)
{
    tutti_unique_id id;

    if (tt_boot_id_from_address(address, "secret", &id) != TUTTI_OK)
        fail_msg("%s: %s", address, tt_error_text());
    return id;
}

static void test_text_round_trip(void **state)
{
    static const char *const addresses[] = {"10.0.0.1:1", "[::1]:65535", "host-1.example:29500",
                                            "unix:name"};
    char text[TUTTI_UNIQUE_ID_TEXT_BYTES];
    tutti_unique_id back;

    (void)state;
    for (size_t i = 0; i < TT_LEN(addresses); i++) {
        tutti_unique_id id = from_address(addresses[i]);
        struct tt_boot_id parsed;
        char where[TT_BOOT_TEXT_BYTES];

        assert_int_equal(tt_boot_id_to_text(&id, text, sizeof(text)), TUTTI_OK);
        for (const char *p = text; *p; p++)
            assert_true(*p > ' ' && *p <= '~');
        assert_int_equal(tt_boot_id_from_text(text, &back), TUTTI_OK);
        assert_memory_equal(&id, &back, sizeof(id));
        assert_int_equal(tt_boot_id_parse(&id, &parsed), 0);
        tt_boot_id_where(&parsed, where, sizeof(where));
        assert_string_equal(where, addresses[i]);
    }
    assert_int_equal(tt_boot_id_to_text(&back, text, 263), TUTTI_E_ARG);
    assert_int_equal(tt_boot_id_to_text(&back, text, 264), TUTTI_OK);
}

static void expect_no_text(const char *text)
{
    tutti_unique_id id;

    memset(&id, 0x55, sizeof(id));
    if (tt_boot_id_from_text(text, &id) != TUTTI_E_ARG)
        fail_msg("accepted: %s", text);
    assert_int_equal(id.bytes[0], 0x55); /* outputs are set on success only */
    assert_int_equal(strncmp(tt_error_text(), "not the text of an id", 21), 0);
}

static void test_damaged_text(void **state)
{
    char text[TUTTI_UNIQUE_ID_TEXT_BYTES + 8];
    tutti_unique_id id = from_address("10.0.0.1:1");

    (void)state;
    assert_int_equal(tt_boot_id_to_text(&id, text, sizeof(text)), TUTTI_OK);
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++) { /* any one wrong character */
        char good = text[i];

        text[i] = good == '0' ? '1' : '0';
        expect_no_text(text);
        text[i] = 'G';
        expect_no_text(text);
        text[i] = good;
    }
    for (size_t i = 0; i < n; i++) { /* cut anywhere */
        char good = text[i];

        text[i] = 0;
        expect_no_text(text);
        text[i] = good;
    }
    text[n] = '\n';
    text[n + 1] = 0;
    expect_no_text(text);
    text[n] = 0;
    assert_int_equal(tt_boot_id_from_text(text, &id), TUTTI_OK);
}

static void test_zero_id_is_none(void **state)
{
    tutti_unique_id id;
    struct tt_boot_id parsed;
    struct tt_boot_args args = {.rank = 0, .n_ranks = 2};
    struct tt_boot *boot = NULL;

    (void)state;
    memset(&id, 0, sizeof(id));
    assert_int_equal(tt_boot_id_parse(&id, &parsed), -1);
    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "never filled in"));
    assert_null(boot);
}

static void test_bad_addresses(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:1x",
        ":80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1:80",
        "[1.2.3.4]:5",
        "[fe80::1%nosuchif0]:80",
        "a b:80",
        "unix:",
        "unix:a b",
        "ho\nst:80",
        "unix:0123456789012345678901234567890123456789012345678901234567890123456789",
        "0123456789012345678901234567890123456789012345678901234567890123456789:80",
    };
    tutti_unique_id id;

    (void)state;
    for (size_t i = 0; i < TT_LEN(bad); i++) {
        if (tt_boot_id_from_address(bad[i], "s", &id) != TUTTI_E_ARG)
            fail_msg("accepted: \"%s\"", bad[i]);
    }
    assert_int_equal(tt_boot_id_from_address(NULL, "s", &id), TUTTI_E_ARG);
    /* 66 characters of name are the most */
    from_address("unix:012345678901234567890123456789012345678901234567890123456789012345");
}

static void test_create_listens(void **state)
{
    tutti_unique_id a;
    tutti_unique_id b;
    struct tt_boot_id parsed;
    int listens = 0;
    socklen_t bytes = sizeof(listens);

    (void)state;
    assert_int_equal(tt_boot_id_create(&a), TUTTI_OK);
    assert_int_equal(tt_boot_id_create(&b), TUTTI_OK);
    assert_memory_not_equal(a.bytes + 20, b.bytes + 20, 32); /* secrets */
    assert_int_equal(tt_boot_id_parse(&a, &parsed), 0);
    assert_true(parsed.is_listening);
    assert_int_equal(parsed.pid, getpid());
    assert_true(parsed.port > 0);
    assert_int_equal(parsed.addresses[0].kind, TT_BOOT_IP4);
    assert_int_equal(parsed.addresses[0].ip[0], 127);
    assert_int_equal(getsockopt((int)parsed.fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes), 0);
    assert_true(listens);
    close((int)parsed.fd);

    /* The id is of no use any more, and says so. */
    struct tt_boot_args args = {.rank = 0, .n_ranks = 1, .id = a, .deadline_ns = UINT64_MAX};
    struct tt_boot *boot;

    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "nothing listens for this id any more"));
    args.id = b; /* taken over and closed, even by a job of one */
    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_OK);
    tt_boot_close(boot);
    assert_int_equal(tt_boot_id_parse(&b, &parsed), 0);
    assert_int_equal(getsockopt((int)parsed.fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes), -1);
}

static void test_interface(void **state)
{
    tutti_unique_id id;
    struct tt_boot_id parsed;

    (void)state;
    setenv("TUTTI_BOOT_IFACE", "lo", 1);
    assert_int_equal(tt_boot_id_create(&id), TUTTI_OK);
    assert_int_equal(tt_boot_id_parse(&id, &parsed), 0);
    assert_int_equal(parsed.n_addresses, 1);
    close((int)parsed.fd);
    setenv("TUTTI_BOOT_IFACE", "nosuchif0", 1);
    assert_int_equal(tt_boot_id_create(&id), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "TUTTI_BOOT_IFACE=nosuchif0"));
    unsetenv("TUTTI_BOOT_IFACE");
}

static void test_keys_differ_by_purpose(void **state)
{
    tutti_unique_id id = from_address("10.0.0.1:1");
    tutti_unique_id other;
    unsigned char a[32];
    unsigned char b[32];

    (void)state;
    tt_boot_derive_key(&id, "one", a);
    tt_boot_derive_key(&id, "two", b);
    assert_memory_not_equal(a, b, 32);
    assert_int_equal(tt_boot_id_from_address("10.0.0.2:1", "secret", &other), TUTTI_OK);
    tt_boot_derive_key(&other, "one", b); /* the secret counts, not the address */
    assert_memory_equal(a, b, 32);
    assert_int_equal(tt_boot_id_from_address("10.0.0.1:1", "Secret", &other), TUTTI_OK);
    tt_boot_derive_key(&other, "one", b);
    assert_memory_not_equal(a, b, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_round_trip),        cmocka_unit_test(test_damaged_text),
        cmocka_unit_test(test_zero_id_is_none),        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_create_listens),         cmocka_unit_test(test_interface),
        cmocka_unit_test(test_keys_differ_by_purpose),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
