/*
 * Every byte that comes from another process is given its meaning here: pure functions from buffers to
 * structs, no allocation, no I/O, so that the fuzzers reach all of it.
 *
 * The handshake (challenge, proof, welcome) never changes, whatever the wire version, so that ranks of
 * different versions can still authenticate each other and say what is wrong.
 */
#ifndef TT_BOOT_WIRE_H
#define TT_BOOT_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <tutti/tutti.h>

#define TT_WIRE_VERSION         2
#define TT_WIRE_NONCE_BYTES     32
#define TT_WIRE_TAG_BYTES       32
#define TT_WIRE_CHALLENGE_BYTES 48
#define TT_WIRE_PROOF_BYTES     96
#define TT_WIRE_WELCOME_BYTES   56
#define TT_WIRE_HEADER_BYTES    16
#define TT_WIRE_MAX_TEXT        400
#define TT_WIRE_MAX_RANKS       65536

/* Root to joiner, at once after accept. */
struct tt_wire_challenge {
    uint32_t version;
    unsigned char nonce[TT_WIRE_NONCE_BYTES];
};

/* Joiner to root. `instance` is the same in all attempts of one joiner. */
struct tt_wire_proof {
    uint32_t version;
    uint32_t rank;
    uint32_t n_ranks;
    uint32_t pid;
    uint64_t instance;
    unsigned char nonce[TT_WIRE_NONCE_BYTES];
    unsigned char tag[TT_WIRE_TAG_BYTES];
};

enum tt_wire_status {
    TT_WIRE_JOINED = 0,
    TT_WIRE_BAD_SECRET = 1, /* the only one whose tag proves nothing: the keys differ */
    TT_WIRE_BAD_VERSION = 2,
    TT_WIRE_BAD_N_RANKS = 3,
    TT_WIRE_BAD_RANK = 4,
    TT_WIRE_DUPLICATE = 5,
    TT_WIRE_N_STATUS
};

/* Root to joiner. */
struct tt_wire_welcome {
    uint32_t version;
    uint32_t status;
    uint32_t n_ranks;
    uint32_t pid; /* of the root, or of the first claimant of a duplicate rank */
    unsigned char tag[TT_WIRE_TAG_BYTES];
};

/* Pack writes exactly the frame's bytes; parse returns 0, or -1 for what is no such frame. */
void tt_wire_pack_challenge(const struct tt_wire_challenge *in, unsigned char *out);
int tt_wire_parse_challenge(const unsigned char *in, size_t bytes, struct tt_wire_challenge *out);
void tt_wire_pack_proof(const struct tt_wire_proof *in, unsigned char *out);
int tt_wire_parse_proof(const unsigned char *in, size_t bytes, struct tt_wire_proof *out);
void tt_wire_pack_welcome(const struct tt_wire_welcome *in, unsigned char *out);
int tt_wire_parse_welcome(const unsigned char *in, size_t bytes, struct tt_wire_welcome *out);

/* 1 as long as `in` can be the beginning of a proof: lets the root drop other protocols at once. */
int tt_wire_is_proof_prefix(const unsigned char *in, size_t bytes);

/* Tags over packed frames. `key` is a purpose's key, not the secret. */
void tt_wire_tag_proof(const unsigned char key[32], const unsigned char *challenge,
                       const unsigned char *proof, unsigned char tag_out[TT_WIRE_TAG_BYTES]);
void tt_wire_tag_welcome(const unsigned char key[32], const unsigned char *challenge,
                         const unsigned char *proof, const unsigned char *welcome,
                         unsigned char tag_out[TT_WIRE_TAG_BYTES]);

/* Frames after the handshake: a header, then `bytes` bytes. */
enum tt_wire_type {
    TT_WIRE_READY = 1,   /* joiner: I know that I have joined */
    TT_WIRE_START = 2,   /* root: everybody has */
    TT_WIRE_DATA = 3,    /* a record, or from the root the records of all ranks */
    TT_WIRE_ERROR = 4,   /* root: value is a tutti_result, then its text */
    TT_WIRE_GIVE_UP = 5, /* joiner: the same; without a text: tell me who is missing */
};

struct tt_wire_header {
    uint32_t type;
    uint32_t sequence; /* of the all-gather */
    uint32_t bytes;
    uint32_t value;
};

void tt_wire_pack_header(const struct tt_wire_header *in, unsigned char *out);

/* A frame of a code and as much of `text` as may be sent; returns its bytes, at most header and
 * TT_WIRE_MAX_TEXT. */
size_t tt_wire_pack_reason(enum tt_wire_type type, uint32_t sequence, tutti_result code,
                           const char *text, unsigned char *out);

/* from_root: which side sent it; n_ranks bounds its length. */
int tt_wire_parse_header(const unsigned char *in, size_t bytes, int from_root, int n_ranks,
                         struct tt_wire_header *out);

/* A failure code from the wire; what is none becomes TUTTI_E_INTERNAL. */
tutti_result tt_wire_parse_result(uint32_t value);

/* Printable ASCII of a text from the wire, zero-ended, at most `out_bytes`. */
void tt_wire_parse_text(const unsigned char *in, size_t bytes, char *out, size_t out_bytes);

/* --- messages of the fd mesh --- */

#define TT_WIRE_FD_BYTES 64

enum tt_wire_fd_type { TT_WIRE_FD_HELLO = 1, TT_WIRE_FD_OFFER = 2 };

struct tt_wire_fd {
    uint32_t type;
    uint32_t from;
    uint32_t to;
    uint32_t n_fds; /* 0 or 1 */
    uint64_t round;
    unsigned char tag[TT_WIRE_TAG_BYTES];
};

void tt_wire_pack_fd(const unsigned char key[32], struct tt_wire_fd *message, unsigned char *out);
/* Checks the tag as well, and that it is for rank `to` of n_ranks. */
int tt_wire_parse_fd(const unsigned char key[32], const unsigned char *in, size_t bytes, int to,
                     int n_ranks, struct tt_wire_fd *out);

#endif
