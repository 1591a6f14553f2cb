/* What the files of the network share: the state of a net, its endpoints and regions. */
#ifndef TT_NET_NET_PARTS_H
#define TT_NET_NET_PARTS_H

#include <stdatomic.h>

#include "net/interface.h"
#include "net/net.h"
#include "net/provider.h"
#include "net/watch.h"

#define TT_NET_MAX_OPS     256           /* puts and signals under way to one peer */
#define TT_NET_MAX_FLIGHTS 64            /* of their pieces, those in the provider's hands */
#define TT_NET_MAX_FLYING  (4096u << 10) /* bytes of all pieces of a peer */
#define TT_NET_TEXT_BYTES  400

struct tt_net_endpoint;

/* A put or a signal, in the order given. */
struct tt_net_op {
    const unsigned char *src; /* what is not posted yet */
    uint64_t bytes;
    uint64_t to; /* address at the peer */
    struct tt_provider_memory *memory;
    struct tt_provider_key *key;
    struct tt_net_region *region;
    uint32_t n_flying; /* pieces */
    int is_signal;
    int is_fenced; /* what a signal must follow is before it */
};

enum tt_net_flight_kind { TT_NET_OPS, TT_NET_PUSH, TT_NET_FLUSH };

/* A piece in the provider's hands: of one put, or a signal with the puts that go along. */
struct tt_net_flight {
    struct tt_provider_request request; /* first: the provider gives it back */
    struct tt_net_endpoint *endpoint;
    enum tt_net_flight_kind kind;
    uint64_t first; /* operation */
    int n_ops;
    uint64_t end; /* operations before it have left with this flight */
    uint32_t bytes;
    struct tt_net_flight *next; /* among the free ones */
};

/* What is known of a rank that this one exchanges with. */
enum tt_net_life {
    TT_NET_HERE,
    TT_NET_BROKEN, /* the provider says so: the watch has a moment to say why */
    TT_NET_LEFT,   /* with a word: it has all it wanted */
    TT_NET_GONE,   /* before we knew each other */
};

struct tt_net_endpoint {
    struct tt_net *net;
    int rank;
    enum tt_net_life life;
    uint64_t broken_ns;
    char broken_text[120];
    struct tt_provider_endpoint *to; /* NULL: never sent to */
    int is_watched; /* nothing is posted before, so that nobody we exchange with dies unnoticed */
    /* Operations [n_sent, n_started) are posted as a whole, [n_started, n_posted) are not; each is at its
     * number modulo the length. */
    uint64_t n_posted, n_started, n_sent;
    uint64_t n_left;    /* those that are known to have left this process */
    int is_pushed;      /* a push is under way */
    uint64_t n_flushed; /* those that tt_net_flush() knows to have arrived */
    uint64_t n_asked;   /* those that the last flush of its asks for */
    struct tt_net_op ops[TT_NET_MAX_OPS];
    uint64_t *words; /* [TT_NET_MAX_OPS]: what signals store, in registered memory */
    struct tt_provider_memory *words_memory;
    struct tt_net_flight flights[TT_NET_MAX_FLIGHTS];
    struct tt_net_flight *free_flight;
    uint32_t bytes_flying;
    enum { TT_NET_UNFLUSHED, TT_NET_FLUSHING, TT_NET_FLUSHED } flush;
};

/* A rank's part of a region. */
struct tt_net_part {
    uint64_t base, bytes;
    unsigned char *packed; /* its key, for when it is first used */
    size_t n_packed;
    struct tt_provider_key *key;
};

struct tt_net_region {
    struct tt_net *net;
    unsigned char *base;
    uint64_t bytes;
    struct tt_provider_memory *memory; /* NULL: this rank offers nothing */
    int is_lent;                       /* it is a source only: the others know nothing of it */
    tt_net_take_fn take;               /* NULL: everything is stored */
    void *take_context;
    struct tt_net_region *next;
    struct tt_net_part parts[]; /* [n_ranks] */
};

/* What is known of every rank since creation. */
struct tt_net_rank {
    char host[64];
    unsigned char *address; /* the provider's */
    size_t n_address;
    struct tt_net_endpoint *endpoint; /* NULL: never used */
    uint64_t waits_ns;                /* when it said that it waits for another rank; 0: never */
};

/* What the watch has said since it was last looked at; it is acted upon when its call is over. */
struct tt_net_news {
    int lost_rank; /* -1: none */
    int said_by;   /* the rank that has lost it, -1: this one has */
    char why[200];
    int is_aborted;
};

#define TT_NET_NONCE_BYTES 16

struct tt_net {
    int rank, n_ranks;
    uint64_t timeout_ns, lost_ns;
    const struct tt_net_provider *ops;
    struct tt_provider *provider;
    struct tt_provider_limits limits;
    struct tt_watch *watch;
    uint64_t next_watch_ns;
    uint64_t n_flushing;   /* operations that tt_net_flush() waited for last */
    uint64_t flush_end_ns; /* until when */
    unsigned n_progress;
    uint64_t n_moves;
    int is_shaking_hands;
    struct tt_net_place place;
    char details[600];
    struct tt_net_rank *ranks;
    struct tt_net_endpoint **used; /* endpoints, in the order of their first use */
    int n_used, n_unsettled;       /* of them: those that are broken, gone or have left */
    struct tt_net_news news;
    struct tt_net_region *regions;
    atomic_int is_aborted;
    int abort_fd;                           /* wakes up who sleeps */
    _Atomic uint64_t *refused, own_refused; /* what is counted; where, if nobody else looks */
    tutti_result failed;
    int is_closed; /* after a failure memory was given back: nothing may come in any more */
    char failed_text[TT_NET_TEXT_BYTES];
};

/* tt_net_create() with a provider. NULL: none, for the reason `missing`. */
tutti_result tt_net_create_with(const struct tt_net_config *config,
                                const struct tt_net_provider *provider, const char *missing,
                                struct tt_net **net_out);

/* TUTTI_OK, or why this net is of no use any more. */
tutti_result tt_net_check(struct tt_net *net);

/* The net has failed for good: keep the reason (the first one), tell the others of a lost rank (-1: none). */
void tt_net_fail(struct tt_net *net, int lost_rank, tutti_result code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* net.c: act upon what the watch has to say. Nothing of the provider moves. */
void tt_net_look(struct tt_net *net);
/* After an abort: it comes to those who are in a handshake with this rank. */
void tt_net_reach(struct tt_net *net);
/* What the watch and the provider call. */
struct tt_watch_events tt_net_events(struct tt_net *net);
void tt_net_broken(void *net, int rank, const char *why);

/* endpoint.c: the endpoint of a rank, made when it is first needed. */
tutti_result tt_net_endpoint(struct tt_net *net, int rank, struct tt_net_endpoint **out);
/* Post what may be posted, count what has been sent. */
void tt_net_pump(struct tt_net_endpoint *endpoint);
/* Ask the peer for its word that all of it has arrived, if need be. 1: it has, or there is nobody to ask. */
int tt_net_is_flushed(struct tt_net_endpoint *endpoint);
/* Wait until what was posted is in the peers' memory, for five seconds at most, however often it is called for the
 * same. */
void tt_net_flush(struct tt_net *net);
/* Drop what has not been sent, and the way there. */
void tt_net_unwire(struct tt_net_endpoint *endpoint);
void tt_net_endpoint_free(struct tt_net_endpoint *endpoint);

/* region.c: the registered memory that holds all of a source, or NULL. */
struct tt_provider_memory *tt_net_memory_of(const struct tt_net *net, const void *src,
                                            uint64_t bytes);
void tt_net_region_free(struct tt_net_region *region);
/* What the provider asks before it stores. */
int tt_net_arrived(void *net, void *to, const void *data, size_t bytes);

/* agree.c: every rank's record to every rank, unless a rank brings a failure (with its error text): then
 * all fail with that of the first that does. At most TT_NET_MAX_RECORD bytes. */
#define TT_NET_MAX_RECORD 3600
tutti_result tt_net_gather(const struct tt_net *net, const struct tt_exchange *exchange,
                           tutti_result mine, const void *record, void *records, size_t bytes);

#endif
