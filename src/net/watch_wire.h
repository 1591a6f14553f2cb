/* What two ranks that watch each other say after their handshake: notices of 64 bytes, each with a tag
 * over its place in the stream. Pure functions, for their fuzzer. */
#ifndef TT_NET_WATCH_WIRE_H
#define TT_NET_WATCH_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define TT_NOTICE_BYTES 64

enum tt_notice_kind {
    TT_NOTICE_ABORT = 1, /* everybody is to stop */
    TT_NOTICE_LEFT = 2,  /* the sender has everything it wanted, and goes */
    TT_NOTICE_LOST = 3,  /* the sender has lost rank `about` */
    TT_NOTICE_WAITS = 4, /* the sender has waited for another rank for long */
};

struct tt_notice {
    enum tt_notice_kind kind;
    uint32_t about; /* a rank; 0 where it means nothing */
};

/* The key of one direction of one connection: `packed` are the frames of its handshake. */
void tt_notice_key(const unsigned char key[32], int from_connector, const unsigned char *packed,
                   size_t bytes, unsigned char key_out[32]);

void tt_notice_pack(const unsigned char key[32], uint64_t number, const struct tt_notice *notice,
                    unsigned char out[TT_NOTICE_BYTES]);

/* -1 for what is no notice number `number` from who has the key, among n_ranks. */
int tt_notice_parse(const unsigned char key[32], uint64_t number, const unsigned char *in,
                    size_t bytes, int n_ranks, struct tt_notice *out);

#endif
