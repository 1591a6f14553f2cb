/* SHA-256 and HMAC. Written from FIPS 180-4 and RFC 2104; vectors in test_base_sha256.c. */
#include "base/sha256.h"

#include <string.h>

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t load_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static void expand(uint32_t w[64], const unsigned char block[64])
{
    for (int i = 0; i < 16; i++)
        w[i] = load_be32(block + 4 * i);
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
}

static void compress(uint32_t state[8], const unsigned char block[64])
{
    uint32_t w[64];
    uint32_t v[8];

    expand(w, block);
    memcpy(v, state, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t t1 = v[7] + s1 + choice + k[i] + w[i];
        uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);

        memmove(v + 1, v, 7 * sizeof(v[0]));
        v[4] += t1;
        v[0] = t1 + s0 + majority;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

void tt_sha256_begin(struct tt_sha256 *hash)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(hash->state, start, sizeof(start));
    hash->n_bytes = 0;
}

void tt_sha256_add(struct tt_sha256 *hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    while (bytes > 0) {
        size_t have = (size_t)(hash->n_bytes % 64);
        size_t take = bytes < 64 - have ? bytes : 64 - have;

        memcpy(hash->block + have, p, take);
        hash->n_bytes += take;
        p += take;
        bytes -= take;
        if (have + take == 64)
            compress(hash->state, hash->block);
    }
}

void tt_sha256_end(struct tt_sha256 *hash, unsigned char digest_out[TT_SHA256_BYTES])
{
    uint64_t n_bits = hash->n_bytes * 8;
    size_t have = (size_t)(hash->n_bytes % 64);

    hash->block[have++] = 0x80;
    if (have > 56) {
        memset(hash->block + have, 0, 64 - have);
        compress(hash->state, hash->block);
        have = 0;
    }
    memset(hash->block + have, 0, 56 - have);
    store_be32(hash->block + 56, (uint32_t)(n_bits >> 32));
    store_be32(hash->block + 60, (uint32_t)n_bits);
    compress(hash->state, hash->block);
    for (int i = 0; i < 8; i++)
        store_be32(digest_out + 4 * i, hash->state[i]);
    explicit_bzero(hash, sizeof(*hash));
}

void tt_hmac_begin(struct tt_hmac *hmac, const void *key, size_t key_bytes)
{
    unsigned char pad[64] = {0};

    if (key_bytes > sizeof(pad)) {
        tt_sha256_begin(&hmac->inner);
        tt_sha256_add(&hmac->inner, key, key_bytes);
        tt_sha256_end(&hmac->inner, pad);
    } else if (key_bytes > 0) {
        memcpy(pad, key, key_bytes);
    }
    for (size_t i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36;
    tt_sha256_begin(&hmac->inner);
    tt_sha256_add(&hmac->inner, pad, sizeof(pad));
    for (size_t i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36 ^ 0x5c;
    tt_sha256_begin(&hmac->outer);
    tt_sha256_add(&hmac->outer, pad, sizeof(pad));
    explicit_bzero(pad, sizeof(pad));
}

void tt_hmac_add(struct tt_hmac *hmac, const void *data, size_t bytes)
{
    tt_sha256_add(&hmac->inner, data, bytes);
}

void tt_hmac_end(struct tt_hmac *hmac, unsigned char digest_out[TT_SHA256_BYTES])
{
    unsigned char digest[TT_SHA256_BYTES];

    tt_sha256_end(&hmac->inner, digest);
    tt_sha256_add(&hmac->outer, digest, sizeof(digest));
    tt_sha256_end(&hmac->outer, digest_out);
}

void tt_hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t bytes,
                    unsigned char digest_out[TT_SHA256_BYTES])
{
    struct tt_hmac hmac;

    tt_hmac_begin(&hmac, key, key_bytes);
    tt_hmac_add(&hmac, data, bytes);
    tt_hmac_end(&hmac, digest_out);
}

int tt_equal_secret(const void *a, const void *b, size_t bytes)
{
    const unsigned char *x = a;
    const unsigned char *y = b;
    unsigned char difference = 0;

    for (size_t i = 0; i < bytes; i++)
        difference |= (unsigned char)(x[i] ^ y[i]);
    /* Keeps the compiler from turning the loop into one that stops early. */
    __asm__ volatile("" : "+r"(difference));
    return difference == 0;
}
