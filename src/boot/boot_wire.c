/* The only parser of bytes from other processes. */
#include "boot/boot_wire.h"

#include <string.h>

#include "base/sha256.h"
#include "boot/boot.h"

static const unsigned char magic[8] = {'t', 'u', 't', 't', 'i', 0x0d, 0x0a, 0x1a};
static const unsigned char fd_magic[8] = {'t', 'u', 't', 't', 'i', '-', 'f', 'd'};

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (24 - 8 * i));
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put64(unsigned char *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

static uint64_t get64(const unsigned char *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

/* Magic, version: how all frames of the handshake begin. */
static void put_start(unsigned char *p, uint32_t version)
{
    memcpy(p, magic, sizeof(magic));
    put32(p + 8, version);
}

static int get_start(const unsigned char *p, size_t bytes, size_t expected, uint32_t *version_out)
{
    if (bytes != expected || memcmp(p, magic, sizeof(magic)) != 0)
        return -1;
    *version_out = get32(p + 8);
    return 0;
}

void tt_wire_pack_challenge(const struct tt_wire_challenge *in, unsigned char *out)
{
    put_start(out, in->version);
    put32(out + 12, 0);
    memcpy(out + 16, in->nonce, sizeof(in->nonce));
}

int tt_wire_parse_challenge(const unsigned char *in, size_t bytes, struct tt_wire_challenge *out)
{
    if (get_start(in, bytes, TT_WIRE_CHALLENGE_BYTES, &out->version) != 0)
        return -1;
    memcpy(out->nonce, in + 16, sizeof(out->nonce));
    return 0;
}

void tt_wire_pack_proof(const struct tt_wire_proof *in, unsigned char *out)
{
    put_start(out, in->version);
    put32(out + 12, in->rank);
    put32(out + 16, in->n_ranks);
    put32(out + 20, in->pid);
    put64(out + 24, in->instance);
    memcpy(out + 32, in->nonce, sizeof(in->nonce));
    memcpy(out + 64, in->tag, sizeof(in->tag));
}

int tt_wire_parse_proof(const unsigned char *in, size_t bytes, struct tt_wire_proof *out)
{
    if (get_start(in, bytes, TT_WIRE_PROOF_BYTES, &out->version) != 0)
        return -1;
    out->rank = get32(in + 12);
    out->n_ranks = get32(in + 16);
    out->pid = get32(in + 20);
    out->instance = get64(in + 24);
    memcpy(out->nonce, in + 32, sizeof(out->nonce));
    memcpy(out->tag, in + 64, sizeof(out->tag));
    return 0;
}

int tt_wire_is_proof_prefix(const unsigned char *in, size_t bytes)
{
    return memcmp(in, magic, bytes < sizeof(magic) ? bytes : sizeof(magic)) == 0;
}

void tt_wire_pack_welcome(const struct tt_wire_welcome *in, unsigned char *out)
{
    put_start(out, in->version);
    put32(out + 12, in->status);
    put32(out + 16, in->n_ranks);
    put32(out + 20, in->pid);
    memcpy(out + 24, in->tag, sizeof(in->tag));
}

int tt_wire_parse_welcome(const unsigned char *in, size_t bytes, struct tt_wire_welcome *out)
{
    if (get_start(in, bytes, TT_WIRE_WELCOME_BYTES, &out->version) != 0)
        return -1;
    out->status = get32(in + 12);
    out->n_ranks = get32(in + 16);
    out->pid = get32(in + 20);
    memcpy(out->tag, in + 24, sizeof(out->tag));
    return out->status < TT_WIRE_N_STATUS ? 0 : -1;
}

void tt_wire_tag_proof(const unsigned char key[32], const unsigned char *challenge,
                       const unsigned char *proof, unsigned char tag_out[TT_WIRE_TAG_BYTES])
{
    struct tt_hmac hmac;

    tt_hmac_begin(&hmac, key, 32);
    tt_hmac_add(&hmac, challenge, TT_WIRE_CHALLENGE_BYTES);
    tt_hmac_add(&hmac, proof, TT_WIRE_PROOF_BYTES - TT_WIRE_TAG_BYTES);
    tt_hmac_end(&hmac, tag_out);
}

void tt_wire_tag_welcome(const unsigned char key[32], const unsigned char *challenge,
                         const unsigned char *proof, const unsigned char *welcome,
                         unsigned char tag_out[TT_WIRE_TAG_BYTES])
{
    struct tt_hmac hmac;

    tt_hmac_begin(&hmac, key, 32);
    tt_hmac_add(&hmac, challenge, TT_WIRE_CHALLENGE_BYTES);
    tt_hmac_add(&hmac, proof, TT_WIRE_PROOF_BYTES);
    tt_hmac_add(&hmac, welcome, TT_WIRE_WELCOME_BYTES - TT_WIRE_TAG_BYTES);
    tt_hmac_end(&hmac, tag_out);
}

void tt_wire_pack_header(const struct tt_wire_header *in, unsigned char *out)
{
    put32(out, in->type);
    put32(out + 4, in->sequence);
    put32(out + 8, in->bytes);
    put32(out + 12, in->value);
}

size_t tt_wire_pack_reason(enum tt_wire_type type, uint32_t sequence, tutti_result code,
                           const char *text, unsigned char *out)
{
    struct tt_wire_header header = {.type = (uint32_t)type, .sequence = sequence};

    header.bytes = (uint32_t)strnlen(text, TT_WIRE_MAX_TEXT);
    header.value = (uint32_t)code;
    tt_wire_pack_header(&header, out);
    memcpy(out + TT_WIRE_HEADER_BYTES, text, header.bytes);
    return TT_WIRE_HEADER_BYTES + header.bytes;
}

/* The longest payload of a type, -1 for a type that this side may not send. */
static int64_t longest(uint32_t type, int from_root, int n_ranks)
{
    switch (type) {
    case TT_WIRE_READY: return from_root ? -1 : 0;
    case TT_WIRE_GIVE_UP: return from_root ? -1 : TT_WIRE_MAX_TEXT;
    case TT_WIRE_START: return from_root ? 0 : -1;
    case TT_WIRE_ERROR: return from_root ? TT_WIRE_MAX_TEXT : -1;
    case TT_WIRE_DATA:
        return from_root ? (int64_t)n_ranks * TT_BOOT_MAX_RECORD : TT_BOOT_MAX_RECORD;
    default: return -1;
    }
}

int tt_wire_parse_header(const unsigned char *in, size_t bytes, int from_root, int n_ranks,
                         struct tt_wire_header *out)
{
    if (bytes != TT_WIRE_HEADER_BYTES)
        return -1;
    out->type = get32(in);
    out->sequence = get32(in + 4);
    out->bytes = get32(in + 8);
    out->value = get32(in + 12);
    return (int64_t)out->bytes <= longest(out->type, from_root, n_ranks) ? 0 : -1;
}

tutti_result tt_wire_parse_result(uint32_t value)
{
    switch (value) {
#define KNOWN(name, number, survives, text)                                                        \
    case (uint32_t)(number): return (number) < 0 ? (tutti_result)(number) : TUTTI_E_INTERNAL;
        TUTTI_RESULT_MAP(KNOWN)
#undef KNOWN
    default: return TUTTI_E_INTERNAL;
    }
}

void tt_wire_parse_text(const unsigned char *in, size_t bytes, char *out, size_t out_bytes)
{
    size_t n = bytes < out_bytes ? bytes : out_bytes - 1;

    for (size_t i = 0; i < n; i++)
        out[i] = in[i] >= 0x20 && in[i] < 0x7f ? (char)in[i] : '?';
    out[n] = 0;
}

static void tag_fd(const unsigned char key[32], const unsigned char *message,
                   unsigned char tag_out[TT_WIRE_TAG_BYTES])
{
    tt_hmac_sha256(key, 32, message, TT_WIRE_FD_BYTES - TT_WIRE_TAG_BYTES, tag_out);
}

void tt_wire_pack_fd(const unsigned char key[32], struct tt_wire_fd *message, unsigned char *out)
{

    memcpy(out, fd_magic, sizeof(fd_magic));
    put32(out + 8, message->type << 16 | message->n_fds);
    put32(out + 12, message->from);
    put32(out + 16, message->to);
    put32(out + 20, 0);
    put64(out + 24, message->round);
    tag_fd(key, out, message->tag);
    memcpy(out + 32, message->tag, sizeof(message->tag));
}

int tt_wire_parse_fd(const unsigned char key[32], const unsigned char *in, size_t bytes, int to,
                     int n_ranks, struct tt_wire_fd *out)
{
    unsigned char tag[TT_WIRE_TAG_BYTES];

    if (bytes != TT_WIRE_FD_BYTES || memcmp(in, fd_magic, sizeof(fd_magic)) != 0)
        return -1;
    out->type = get32(in + 8) >> 16;
    out->n_fds = get32(in + 8) & 0xffff;
    out->from = get32(in + 12);
    out->to = get32(in + 16);
    out->round = get64(in + 24);
    memcpy(out->tag, in + 32, sizeof(out->tag));
    if (out->n_fds > 1 || out->from >= (uint32_t)n_ranks || out->to != (uint32_t)to ||
        out->from == out->to)
        return -1;
    tag_fd(key, in, tag);
    return tt_equal_secret(tag, out->tag, sizeof(tag)) ? 0 : -1;
}
