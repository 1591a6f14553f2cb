/* SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104), for handshakes: small, constant in time. */
#ifndef TT_BASE_SHA256_H
#define TT_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define TT_SHA256_BYTES 32

struct tt_sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    unsigned char block[64];
};

void tt_sha256_begin(struct tt_sha256 *hash);
void tt_sha256_add(struct tt_sha256 *hash, const void *data, size_t bytes);
void tt_sha256_end(struct tt_sha256 *hash, unsigned char digest_out[TT_SHA256_BYTES]);

struct tt_hmac {
    struct tt_sha256 inner;
    struct tt_sha256 outer;
};

void tt_hmac_begin(struct tt_hmac *hmac, const void *key, size_t key_bytes);
void tt_hmac_add(struct tt_hmac *hmac, const void *data, size_t bytes);
void tt_hmac_end(struct tt_hmac *hmac, unsigned char digest_out[TT_SHA256_BYTES]);

/* All of it in one call. */
void tt_hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t bytes,
                    unsigned char digest_out[TT_SHA256_BYTES]);

/* 1 if equal; takes the same time wherever they differ. */
int tt_equal_secret(const void *a, const void *b, size_t bytes);

#endif
