/* SHA-256 and HMAC against FIPS 180-4 and RFC 4231, and whole against piecewise. */
#include "base/random.h"
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

static void to_hex(const unsigned char *bytes, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void check_hash(const void *data, size_t n, const char *expected)
{
    struct tt_sha256 hash;
    unsigned char digest[32];
    char hex[65];

    tt_sha256_begin(&hash);
    tt_sha256_add(&hash, data, n);
    tt_sha256_end(&hash, digest);
    to_hex(digest, sizeof(digest), hex);
    assert_string_equal(hex, expected);
}

static void test_hash_vectors(void **state)
{
    char *million = malloc(1000000);

    (void)state;
    check_hash("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_hash("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
               "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    assert_non_null(million);
    memset(million, 'a', 1000000);
    check_hash(million, 1000000,
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

static void check_hmac(const void *key, size_t n_key, const void *data, size_t n,
                       const char *expected)
{
    unsigned char digest[32];
    char hex[65];

    tt_hmac_sha256(key, n_key, data, n, digest);
    to_hex(digest, sizeof(digest), hex);
    assert_string_equal(hex, expected);
}

static void test_hmac_vectors(void **state)
{
    unsigned char key[131];
    unsigned char data[50];
    const char *long_key = "Test Using Larger Than Block-Size Key - Hash Key First";

    (void)state;
    memset(key, 0x0b, 20);
    check_hmac(key, 20, "Hi There", 8,
               "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    check_hmac("Jefe", 4, "what do ya want for nothing?", 28,
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    memset(data, 0xdd, sizeof(data));
    check_hmac(key, 20, data, 50,
               "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
    check_hmac(key, 131, long_key, strlen(long_key),
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void test_pieces_equal_whole(void **state)
{
    unsigned char data[300];
    unsigned char whole[32];
    unsigned char pieces[32];

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 7);
    for (size_t n = 0; n <= sizeof(data); n++) {
        struct tt_hmac hmac;

        tt_hmac_sha256("key", 3, data, n, whole);
        tt_hmac_begin(&hmac, "key", 3);
        tt_hmac_add(&hmac, data, n / 3);
        tt_hmac_add(&hmac, data + n / 3, n - n / 3);
        tt_hmac_end(&hmac, pieces);
        assert_memory_equal(whole, pieces, 32);
        if (n > 0) { /* and the check can fail */
            data[n - 1] ^= 1;
            tt_hmac_sha256("key", 3, data, n, pieces);
            data[n - 1] ^= 1;
            assert_memory_not_equal(whole, pieces, 32);
        }
    }
}

static void test_equal_secret(void **state)
{
    unsigned char a[32];
    unsigned char b[32];

    (void)state;
    assert_int_equal(tt_random_bytes(a, sizeof(a)), TUTTI_OK);
    memcpy(b, a, sizeof(a));
    assert_true(tt_equal_secret(a, b, sizeof(a)));
    for (size_t bit = 0; bit < 8 * sizeof(b); bit++) {
        b[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_false(tt_equal_secret(a, b, sizeof(a)));
        b[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_true(tt_equal_secret(a, b, 0));
}

static void test_random_bytes_differ(void **state)
{
    unsigned char a[1000];
    unsigned char b[1000];

    (void)state;
    assert_int_equal(tt_random_bytes(a, sizeof(a)), TUTTI_OK);
    assert_int_equal(tt_random_bytes(b, sizeof(b)), TUTTI_OK);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(tt_random_bytes(a, 0), TUTTI_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_vectors),        cmocka_unit_test(test_hmac_vectors),
        cmocka_unit_test(test_pieces_equal_whole),  cmocka_unit_test(test_equal_secret),
        cmocka_unit_test(test_random_bytes_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
