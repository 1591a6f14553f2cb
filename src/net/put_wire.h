/* What a put that travels as a message (ucx_message.c) begins with, and who may have sent it. Whoever reaches
 * the network's port can send such messages; only the ranks know the tokens. Pure, for its fuzzer. */
#ifndef TT_NET_PUT_WIRE_H
#define TT_NET_PUT_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define TT_PUT_TOKEN_BYTES 16
#define TT_PUT_MOST_HEAD   64u          /* of a small put that travels behind the header */
#define TT_PUT_MOST_DATA   (240u << 10) /* of one that follows as the message's data */
#define TT_PUT_WINDOW      1024u        /* messages by which one may come late */

enum tt_put_kind {
    TT_PUT_WRITE = 1,
    TT_PUT_FLUSH = 2,
    TT_PUT_FLUSHED = 3, /* answers the flush whose serial is in `word`, and has none itself */
    TT_PUT_NOTHING = 4,
};

/* In the byte order of the hosts, which have one architecture. */
struct tt_put_header {
    unsigned char token[TT_PUT_TOKEN_BYTES];
    uint64_t
        serial; /* of the messages from this sender to this receiver, from 1; each is good once */
    uint32_t from;
    uint8_t kind, has_word;
    uint16_t head_bytes; /* of a small put: its bytes are behind this header */
    uint64_t to;         /* of the data */
    uint64_t head_to;
    uint64_t word_to; /* stored when all data is there */
    uint64_t word;
};

/* What is known of another rank's messages. */
struct tt_put_peer {
    unsigned char token_in[TT_PUT_TOKEN_BYTES], token_out[TT_PUT_TOKEN_BYTES];
    uint64_t n_sent;
    uint64_t newest;                   /* serial that has come */
    uint64_t seen[TT_PUT_WINDOW / 64]; /* bit by serial, of the last TT_PUT_WINDOW */
};

/* The tokens between `rank` and all others, from a key of 32 bytes that is this net's alone. */
void tt_put_tokens(const unsigned char key[32], int rank, int n_ranks, struct tt_put_peer peers[]);

enum tt_put_verdict { TT_PUT_GOOD, TT_PUT_FORGED, TT_PUT_REPLAYED, TT_PUT_MALFORMED };

/* A message of `n_header` bytes of header and `n_data` of data. Its serial, if it is good, is used up. The
 * addresses are the caller's to check. */
enum tt_put_verdict tt_put_parse(struct tt_put_peer peers[], int rank, int n_ranks,
                                 const void *header, size_t n_header, size_t n_data,
                                 struct tt_put_header *out);
const char *tt_put_verdict_text(enum tt_put_verdict verdict);

#endif
