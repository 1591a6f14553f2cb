/* What the files of channels share: a set, its ports, and what lies where in memory that peers write to. */
#ifndef TT_COLL_CHANNEL_PARTS_H
#define TT_COLL_CHANNEL_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/atomic.h"
#include "base/error.h"
#include "base/proxy.h"
#include "boot/boot.h"
#include "coll/channel.h"
#include "coll/comm.h"
#include "net/net.h"

struct tt_cuda_device;
struct tt_cuda_copier;

#define TT_PORT_RECORDS      64u /* between two ranks and proxies, in one direction */
#define TT_PORT_MAX_PROXIES  16
#define TT_CHANNEL_MAX       256u
#define TT_CHANNEL_MAX_SLOTS (1u << 16)
#define TT_CHANNEL_LINE      64u /* a counter that somebody polls has a line of its own */

/* Memory of a set that exists once on this rank: of the host, and where kernels see it. */
struct tt_channel_memory {
    unsigned char *host;
    unsigned char *at_device; /* NULL: no GPU */
    size_t bytes;
};

/* What a proxy tells the one at the other end, besides puts and signals. In the peer's memory. */
enum tt_record_kind {
    TT_RECORD_DATA = 1, /* bytes in the ring, to be copied to the GPU */
    TT_RECORD_SIGNAL,   /* after what came before */
    TT_RECORD_ADD,
    TT_RECORD_NOTHING, /* that it is done is all that the sender wants to know */
};
struct tt_record {
    uint32_t kind, channel; /* the channel's index among those of the pair */
    uint64_t to, bytes, value, ring_at;
    uint64_t unused[3];
};

/* What a rank offers to each of the others in the arena of a proxy. Counters: written by the peer. */
struct tt_port_place {
    _Alignas(TT_CHANNEL_LINE) uint64_t n_records; /* that it has written here */
    _Alignas(TT_CHANNEL_LINE) uint64_t n_done;    /* of ours, by it */
    _Alignas(TT_CHANNEL_LINE) struct tt_record in[TT_PORT_RECORDS];
    struct tt_record out[TT_PORT_RECORDS]; /* where ours leave from */
};

/* Offsets in a place, of what has no fixed size; the same on all ranks. */
struct tt_port_layout {
    uint64_t signals;                 /* [n_channels], a line each */
    uint64_t packets_in, packets_out; /* [n_channels] */
    uint64_t ring_in, ring_out;       /* GPU memory: bytes under way */
    uint64_t ring_bytes;
    uint64_t stride; /* from one place to the next */
};

/* A record that waits to leave or to be answered. */
struct tt_port_entry {
    struct tt_record record;
    int has_copy;
    uint64_t copy;     /* DATA: until it is done the bytes are not in the ring */
    uint64_t ring_end; /* DATA: what may be reused with its answer */
    uint64_t *flushed; /* where to say how far the channel is flushed, or NULL */
    uint64_t number;
};

struct tt_port_peer {
    int is_unproven; /* something was put or signalled after the last entry, whose answer would prove it */
    uint64_t n_entries, n_left, n_done; /* queued, sent, answered */
    uint64_t n_must;                    /* signals may not overtake entries before this */
    struct tt_port_entry entries[TT_PORT_RECORDS]; /* entry i at i modulo their number */
    uint64_t ring_head, ring_tail; /* bytes taken and given back since the beginning */
    uint64_t in_begun, in_done;    /* of the peer's records */
    int in_has_copy[TT_PORT_RECORDS];
    uint64_t in_copy[TT_PORT_RECORDS];
    uint64_t *n_signals; /* [n_channels]: sent so far */
};

/* A queue of triggers: one that host threads fill, one that kernels do. */
struct tt_port_queue {
    tutti_trigger *slots;
    uint64_t *done; /* for the producers */
    uint64_t next;
    uint64_t bytes_put; /* of the put at `next`, if it is under way */
    uint64_t *flushed;  /* [n_ranks * n_channels] */
};
#define TT_PORT_QUEUES 2 /* by tutti_channel_place */

struct tt_port {
    tutti_channel_set *set;
    int index;
    struct tt_net *net;
    struct tt_net_region *arena_region, *memory_region;
    struct tt_channel_memory arena;
    struct tt_port_queue queues[TT_PORT_QUEUES];
    struct tt_port_peer *peers; /* [n_ranks] */
    struct tt_cuda_copier *copier;
    uint64_t copies,
        copies_since_ns; /* so many were done, and there have been no more since; 0: none to do */
    struct tt_proxy *proxy;
    uint64_t next_look_ns, net_moves;
    atomic_int is_closing, is_closed; /* deliver everything; done */
    int has_said_last;
    _Atomic uint64_t n_triggers;
};

struct tutti_channel_set {
    tutti_comm *comm;
    tutti_channel_set *next;
    int rank, n_ranks;
    unsigned char *memory;
    uint64_t bytes;
    uint32_t n_channels, n_slots, n_proxies;
    uint64_t packet_bytes;
    int by_port_only;
    unsigned char *by_port; /* [n_ranks] */
    int n_port_peers, n_memory_peers;
    uint64_t timeout_ns;

    /* Memory channels: the ranks' memory, and counters and packets of our own, in windows. */
    tutti_window *window, *words_window;
    unsigned char *words;
    uint64_t words_bytes, words_packets; /* where packets begin */

    struct tt_cuda_device *device;   /* NULL: host memory */
    int is_direct;                   /* the network's devices reach the GPUs' memory */
    struct tt_channel_memory common; /* report, queues, states of the host's channels */
    tutti_channel_report *report;
    tutti_channel_state *host_state; /* [n_ranks * n_channels] */
    unsigned char *kernel_words;     /* in the GPU's memory: states, heads of queues */
    uint64_t *heads;                 /* [2 * n_proxies], a line each: of the host's queues */
    struct tt_port_layout layout;
    struct tt_port *ports; /* [n_proxies] */
    int n_started;
    char details[200];

    /* The first failure. */
    pthread_mutex_t lock;
    atomic_int failed; /* a tutti_result */
    char failed_text[400];
    _Atomic int *gone; /* [n_ranks]: a tutti_result of the network, seen by proxies */
};

static inline uint32_t tt_channel_id(const tutti_channel_set *s, int peer, uint32_t index)
{
    return (uint32_t)peer * s->n_channels + index;
}

/* Both ends say the same. */
static inline uint32_t tt_channel_proxy(const tutti_channel_set *s, int peer, uint32_t index)
{
    return ((uint32_t)s->rank + (uint32_t)peer + index) % s->n_proxies;
}

static inline struct tt_port_place *tt_port_place(const struct tt_port *p, int peer)
{
    return (struct tt_port_place *)(void *)(p->arena.host + (uint64_t)peer * p->set->layout.stride);
}

/* Where this rank's place in everybody's arena begins. */
static inline uint64_t tt_port_theirs(const struct tt_port *p)
{
    return (uint64_t)p->set->rank * p->set->layout.stride;
}

/* channel_failure.c: the set has failed, for this reason, unless it has already. Returns what it has failed
 * with, and sets that text. Any thread. */
tutti_result tt_channel_fail(tutti_channel_set *s, tutti_result result, const char *text);
tutti_result tt_channel_check(tutti_channel_set *s);
const char *tt_channel_op_name(uint32_t op);
/* Is the communicator good, and the peer (-1: whoever it knows of) still there? System calls. */
tutti_result tt_channel_look(tutti_channel_set *s, int peer);

/* channel_port.c */
void tt_port_lay_out(tutti_channel_set *s);
tutti_result tt_ports_create(tutti_channel_set *s); /* collective */
tutti_result tt_ports_deliver(tutti_channel_set *s);
void tt_ports_stop(tutti_channel_set *s); /* threads first; then networks */
void tt_ports_free(tutti_channel_set *s);
uint32_t tt_port_default_proxies(const tutti_channel_set *s);

/* All have managed, or all fail. */
tutti_result tt_channel_agree(tutti_channel_set *s, tutti_result mine);
struct tt_exchange tt_channel_exchange(tutti_channel_set *s);

/* channel_direct.c: collective, when networks are there and proxies not yet; sets is_direct. */
tutti_result tt_ports_try_direct(tutti_channel_set *s);
/* What the network's devices have written to the GPU's memory so far is seen from now on. */
tutti_result tt_port_settle(struct tt_port *p);

/* channel_trigger.c: carry out what is queued. 1: something was, 0: nothing, or a failure. */
int tt_port_take_triggers(struct tt_port *p, struct tt_port_queue *q);
int tt_port_is_empty(const struct tt_port *p, const struct tt_port_queue *q);

/* channel_record.c: the same of records, to and from all peers. */
int tt_port_move_records(struct tt_port *p);
/* Does a peer's record mean something that there is? */
tutti_result tt_port_check_record(const tutti_channel_set *s, int peer, const struct tt_record *r);
/* What the peer says that it has done of ours: 1 if that is more than before. */
int tt_port_take_answers(struct tt_port *p, int peer);
int tt_port_has_room(const struct tt_port_peer *peer);
struct tt_port_entry *tt_port_new_entry(struct tt_port *p, int peer, enum tt_record_kind kind);
tutti_result tt_port_await_copy(struct tt_port *p, uint64_t ticket);
/* Begin to send up to `bytes` from the GPU's memory; how many, or a failure. */
int64_t tt_port_stage(struct tt_port *p, int peer, uint64_t to, uint64_t from, uint64_t bytes);

#endif
