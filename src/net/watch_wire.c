/* Packing and parsing of notices. */
#include "net/watch_wire.h"

#include <string.h>

#include "base/sha256.h"

static const unsigned char magic[4] = {'t', 't', 'n', '1'};

#define TAGGED 32 /* magic, kind, number, about, zeros; then the tag */

static void put32(unsigned char *out, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        out[i] = (unsigned char)(v >> 8 * i);
}

static uint32_t get32(const unsigned char *in)
{
    return in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

void tt_notice_key(const unsigned char key[32], int from_connector, const unsigned char *packed,
                   size_t bytes, unsigned char key_out[32])
{
    const unsigned char direction = from_connector ? 'c' : 'a';
    struct tt_hmac hmac;

    tt_hmac_begin(&hmac, key, 32);
    tt_hmac_add(&hmac, &direction, 1);
    tt_hmac_add(&hmac, packed, bytes);
    tt_hmac_end(&hmac, key_out);
}

void tt_notice_pack(const unsigned char key[32], uint64_t number, const struct tt_notice *notice,
                    unsigned char out[TT_NOTICE_BYTES])
{
    memset(out, 0, TAGGED);
    memcpy(out, magic, sizeof(magic));
    put32(out + 4, (uint32_t)notice->kind);
    put32(out + 8, (uint32_t)number);
    put32(out + 12, (uint32_t)(number >> 32));
    put32(out + 16, notice->about);
    tt_hmac_sha256(key, 32, out, TAGGED, out + TAGGED);
}

int tt_notice_parse(const unsigned char key[32], uint64_t number, const unsigned char *in,
                    size_t bytes, int n_ranks, struct tt_notice *out)
{
    unsigned char expected[TT_NOTICE_BYTES];
    uint32_t kind, about;

    if (bytes != TT_NOTICE_BYTES)
        return -1;
    kind = get32(in + 4);
    about = get32(in + 16);
    if (kind < TT_NOTICE_ABORT || kind > TT_NOTICE_WAITS || about >= (uint32_t)n_ranks)
        return -1;
    out->kind = (enum tt_notice_kind)kind;
    out->about = about;
    tt_notice_pack(key, number, out, expected);
    return tt_equal_secret(expected, in, sizeof(expected)) ? 0 : -1;
}
