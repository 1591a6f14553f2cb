/*
 * Bytes from the network and from local sockets. The first byte chooses the frame; the rest is what
 * has arrived, of any length.
 */
#include "boot/boot.h"
#include "boot/boot_wire.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned char key[32] = "a key that attackers do not know";

static void try_challenge(const uint8_t *data, size_t size)
{
    struct tt_wire_challenge frame;
    unsigned char out[TT_WIRE_CHALLENGE_BYTES];

    if (tt_wire_parse_challenge(data, size, &frame) != 0)
        return;
    CHECK(size == TT_WIRE_CHALLENGE_BYTES);
    tt_wire_pack_challenge(&frame, out);
    CHECK(memcmp(out, data, 12) == 0 && memcmp(out + 16, data + 16, 32) == 0);
}

static void try_proof(const uint8_t *data, size_t size)
{
    struct tt_wire_proof frame;
    unsigned char out[TT_WIRE_PROOF_BYTES];
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES] = {0};
    unsigned char tag[TT_WIRE_TAG_BYTES], other[TT_WIRE_TAG_BYTES];

    if (tt_wire_parse_proof(data, size, &frame) != 0)
        return;
    CHECK(size == TT_WIRE_PROOF_BYTES && tt_wire_is_proof_prefix(data, size));
    tt_wire_pack_proof(&frame, out);
    CHECK(memcmp(out, data, size) == 0); /* every byte of a proof means something */
    tt_wire_tag_proof(key, challenge, data, tag);
    challenge[data[size - 1] % sizeof(challenge)] ^= 1; /* a tag is good for one challenge only */
    tt_wire_tag_proof(key, challenge, data, other);
    CHECK(memcmp(tag, other, sizeof(tag)) != 0);
}

static void try_welcome(const uint8_t *data, size_t size)
{
    struct tt_wire_welcome frame;
    unsigned char out[TT_WIRE_WELCOME_BYTES];

    if (tt_wire_parse_welcome(data, size, &frame) != 0)
        return;
    CHECK(size == TT_WIRE_WELCOME_BYTES && frame.status < TT_WIRE_N_STATUS);
    tt_wire_pack_welcome(&frame, out);
    CHECK(memcmp(out, data, size) == 0);
}

static void try_header(const uint8_t *data, size_t size, int from_root)
{
    struct tt_wire_header header;
    unsigned char out[TT_WIRE_HEADER_BYTES];

    if (tt_wire_parse_header(data, size, from_root, 8, &header) != 0)
        return;
    CHECK(header.bytes <= (from_root ? 8 : 1) * TT_BOOT_MAX_RECORD);
    if (header.type == TT_WIRE_ERROR || header.type == TT_WIRE_GIVE_UP)
        CHECK(header.bytes <= TT_WIRE_MAX_TEXT);
    CHECK(tt_wire_parse_result(header.value) < TUTTI_OK);
    tt_wire_pack_header(&header, out);
    CHECK(memcmp(out, data, size) == 0);
}

static void try_text(const uint8_t *data, size_t size)
{
    for (size_t bytes = 1; bytes <= 401; bytes += 200) {
        char *out = malloc(bytes);

        CHECK(out);
        tt_wire_parse_text(data, size, out, bytes);
        size_t n = strnlen(out, bytes);

        CHECK(n < bytes);
        for (size_t i = 0; i < n; i++)
            CHECK(out[i] >= 0x20 && out[i] < 0x7f);
        free(out);
    }
}

static void try_fd(const uint8_t *data, size_t size)
{
    struct tt_wire_fd message;

    /* Nobody makes a valid tag by chance: to get in here is to have broken HMAC. */
    CHECK(tt_wire_parse_fd(key, data, size, 1, 4, &message) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size--;
    switch (*data++ % 7) {
    case 0: try_challenge(data, size); break;
    case 1: try_proof(data, size); break;
    case 2: try_welcome(data, size); break;
    case 3: try_header(data, size, 0); break;
    case 4: try_header(data, size, 1); break;
    case 5: try_text(data, size); break;
    default: try_fd(data, size); break;
    }
    (void)tt_wire_is_proof_prefix(data, size);
    return 0;
}
