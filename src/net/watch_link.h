/* One connection between two ranks that watch each other: its handshake, and notices. */
#ifndef TT_NET_WATCH_LINK_H
#define TT_NET_WATCH_LINK_H

#include "boot/boot_wire.h"
#include "net/watch_wire.h"

#define TT_LINK_MAX_OUT 512

enum tt_link_state {
    TT_LINK_CONNECTING,
    TT_LINK_WANTS_CHALLENGE, /* of the rank that connected to us */
    TT_LINK_WANTS_WELCOME,
    TT_LINK_WANTS_PROOF, /* from somebody who connected to us */
    TT_LINK_READY,
};

/* Who I am, and the keys of the two sides. */
struct tt_link_self {
    int rank, n_ranks;
    unsigned char key_connector[32];
    unsigned char key_acceptor[32];
};

struct tt_link {
    int fd;
    enum tt_link_state state;
    int is_mine;  /* I connected */
    int rank;     /* of the other side; -1: unknown yet */
    uint32_t pid; /* of the other side */
    uint64_t since_ns;
    unsigned char in[TT_WIRE_PROOF_BYTES];
    size_t n_in;
    unsigned char out[TT_LINK_MAX_OUT];
    size_t n_out;
    unsigned char
        shaken[TT_WIRE_CHALLENGE_BYTES + TT_WIRE_PROOF_BYTES]; /* frames of the handshake */
    unsigned char key_in[32], key_out[32];
    uint64_t n_read, n_sent; /* notices */
    struct tt_link *next;
};

enum tt_link_result {
    TT_LINK_FINE,
    TT_LINK_CLOSED, /* by the other side, or by the system: errno, 0 for an orderly end */
    TT_LINK_LIES,   /* not one of ours */
};

/* A link on a connected socket (or one that is connecting), which it owns. NULL: no memory, fd closed. */
struct tt_link *tt_link_new(int fd, int is_mine, int rank, uint64_t lost_ns);
void tt_link_free(struct tt_link *link);

/* The acceptor's first word. */
enum tt_link_result tt_link_greet(struct tt_link *link);

/* Sends and receives what there is. `notice` is called for each. */
typedef void (*tt_link_notice_fn)(void *context, int from, const struct tt_notice *notice);
enum tt_link_result tt_link_step(struct tt_link *link, const struct tt_link_self *self,
                                 tt_link_notice_fn notice, void *context);

/* Send a notice; to a link that is not ready it is lost. */
enum tt_link_result tt_link_tell(struct tt_link *link, const struct tt_notice *notice);

/* Has the other side's kernel all that was sent? */
int tt_link_is_through(const struct tt_link *link);

/* How long the other side's kernel has been silent. */
uint64_t tt_link_silent_ns(const struct tt_link *link, uint64_t now_ns);

#endif
