/* What the files of the rendezvous share: its state, and the steps that they do for each other. */
#ifndef TT_BOOT_PARTS_H
#define TT_BOOT_PARTS_H

#include "boot/boot.h"
#include "boot/boot_address.h"
#include "boot/boot_wire.h"

#define TT_BOOT_LIST_BYTES 200

enum tt_boot_state {
    TT_BOOT_ABSENT = 0,
    TT_BOOT_PROVEN, /* knows the secret, has been welcomed */
    TT_BOOT_JOINED, /* and knows that it has */
};

/* Where a rank has got to in an all-gather. */
enum tt_boot_step { TT_BOOT_COLLECTING = 0, TT_BOOT_COLLECTED, TT_BOOT_SENDING, TT_BOOT_SENT };

/* Rank 0's view of another rank. */
struct tt_boot_peer {
    int fd; /* -1: none */
    enum tt_boot_state state;
    uint32_t pid;
    uint64_t instance;
    uint64_t
        went_ns; /* when it went without knowing that it had joined; 0: it has not, or is back */
    size_t n_header; /* bytes of `header` that are here */
    size_t n_data; /* bytes of the frame's payload that are here, or of the answer that are sent */
    enum tt_boot_step step;
    int has_left; /* gave up, or has nothing more to say that could matter */
    unsigned char header[TT_WIRE_HEADER_BYTES];
};

struct tt_boot {
    int rank;
    int n_ranks;
    struct tt_boot_id id;
    uint64_t start_ns;
    uint64_t deadline_ns;
    const atomic_int *abort;
    char where[TT_BOOT_TEXT_BYTES];
    unsigned char join_key[32];
    unsigned char root_key[32];
    uint32_t sequence;
    tutti_result failed; /* TUTTI_OK, or what all further calls return */
    char failed_text[TT_WIRE_MAX_TEXT + 1];

    int fd;      /* joiner: the connection to rank 0 */
    int is_over; /* joiner: rank 0 knows why, or has said why, or is gone: nothing is left to tell */

    int epoll_fd; /* root */
    struct tt_boot_peer *peers;
    unsigned n_bad_secret; /* connections turned away */
    unsigned n_stranger;
};

/* Rank 0: all ranks have joined and know it. */
tutti_result tt_boot_root_join(struct tt_boot *boot);

/* Rank 0: tell everybody who is still there why (this thread's error text); returns code. */
tutti_result tt_boot_root_fail(struct tt_boot *boot, tutti_result code);

/* Rank 0 itself cannot go on: the same, after a look whether another rank's reason is behind it. */
tutti_result tt_boot_root_give_up(struct tt_boot *boot, tutti_result why);

/* A rank gave up (`header` is read, its text is not): what rank 0 fails with, or IN_PROGRESS where the
 * rank only asks who is missing. */
tutti_result tt_boot_root_gave_up(struct tt_boot *boot, int rank,
                                  const struct tt_wire_header *header);

/* The connection to a rank is gone: the reason that it left behind, or its death ("while ..."). */
tutti_result tt_boot_root_lost(struct tt_boot *boot, int rank, const char *when);

tutti_result tt_boot_root_gather(struct tt_boot *boot, const void *send, void *recv, size_t bytes);

/* The others. */
tutti_result tt_boot_join(struct tt_boot *boot);
tutti_result tt_boot_joiner_gather(struct tt_boot *boot, const void *send, void *recv,
                                   size_t bytes);

/* This rank cannot go on: rank 0 is told the thread's error text. Returns what became known as the
 * reason, `why` or a better one, with its text. */
tutti_result tt_boot_joiner_give_up(struct tt_boot *boot, tutti_result why);

/* Next header from rank 0, which must be of `type`; a TT_WIRE_ERROR becomes its failure. */
tutti_result tt_boot_joiner_expect(struct tt_boot *boot, enum tt_wire_type type,
                                   struct tt_wire_header *header_out);

/* "rank 3" or "ranks 3, 5-7": the peers for which is_absent() holds; long lists end in "...". */
void tt_boot_rank_list(const struct tt_boot *boot, int (*is_absent)(const struct tt_boot_peer *),
                       char *out, size_t bytes);

double tt_boot_waited_s(const struct tt_boot *boot);

#endif
