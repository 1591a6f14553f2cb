/*
 * What moves bytes between hosts, behind one table of functions: UCX (ucx.c), a fake that reorders and
 * fails for the tests, and whatever comes later. Everything of one `struct tt_provider` is called by one
 * thread at a time; what a provider has to say it says from within these calls.
 */
#ifndef TT_NET_PROVIDER_H
#define TT_NET_PROVIDER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <tutti/tutti.h>

struct tt_provider;          /* one that is open */
struct tt_provider_endpoint; /* the way to one rank */
struct tt_provider_memory;   /* registered memory of this process */
struct tt_provider_key;      /* what lets an endpoint write to a rank's registered memory */

#define TT_PROVIDER_MAX_ADDRESS 3072 /* bytes of a packed address, and of a packed key */
#define TT_PROVIDER_MAX_KEY     1024

/* What became of something that was posted. */
enum tt_provider_status {
    TT_PROVIDER_DONE,    /* at once: the source may be reused; nothing will be called */
    TT_PROVIDER_STARTED, /* request->done will be called */
    TT_PROVIDER_BUSY,    /* nothing happened: again after progress */
    TT_PROVIDER_BROKEN,  /* nothing happened and never will: the endpoint is lost */
};

/* Something that has started. `failed`: what it did, if anything, is unknown; its source is free. */
struct tt_provider_request {
    void (*done)(struct tt_provider_request *request, int failed);
    void *owner; /* this and the rest: the provider's own */
    _Alignas(8) unsigned char scratch[128];
};

struct tt_provider_config {
    int rank, n_ranks;
    const char *devices; /* names, with commas between them; never all there are */
    int family;          /* AF_INET or AF_INET6: of the address that a socket may listen on */
    uint64_t lost_ns;    /* silence after which a host is lost */
    /* Need not be able to wake up who sleeps, if that costs anything: fd() may be -1. */
    int polls;
    const unsigned char *key; /* 32 bytes that the ranks of this net share, and nobody else */
    /* Counts what has come and was refused: forged, malformed, not for memory that is offered. */
    _Atomic uint64_t *refused;
    void *context; /* first argument of: */
    /* An endpoint is lost; its requests end as failed, and no other call for it succeeds. */
    void (*broken)(void *context, int rank, const char *why);
    /* Of a provider that stores by itself what comes: 1 if somebody has taken it instead. */
    int (*arrived)(void *context, void *to, const void *data, size_t bytes);
};

/* What a provider does best in one go; asked for once. */
struct tt_provider_limits {
    uint32_t piece_bytes;  /* of a put, at most */
    uint32_t bundle_bytes; /* of a put that goes along with the signal after it; 0: none does */
    uint32_t head_bytes;   /* of one more put before that one, which goes along as well */
    /* What is DONE, or whose request is, may have been copied to a queue in this process; what was posted before
     * it has left, and so has a piece of at least so many bytes. 0: all that is done has left. */
    uint32_t queued_bytes;
    uint32_t gpu_ways; /* in which its devices reach GPU memory, of enum tt_net_gpu_way; 0: none */
};

struct tt_provider_put {
    const void *src;
    uint32_t bytes; /* 0: none */
    uint64_t to;
    struct tt_provider_key *key;
};

/* Puts that go along with a signal: they are there before the signal's word is. */
struct tt_provider_bundle {
    struct tt_provider_put head, body;
};

struct tt_net_provider {
    uint32_t size; /* sizeof(struct tt_net_provider), so that slots can be appended */
    const char *name;
    /* "ordered": what is posted after fence() is seen after what was posted before it. Where not, a
     * signal is posted only after flush() is done. */
    int fence_orders;

    const char *(*missing)(void);                   /* why it cannot be used here; "": it can */
    void (*describe)(char *text_out, size_t bytes); /* name, version, where it was found */

    tutti_result (*open)(const struct tt_provider_config *config, struct tt_provider **out);
    void (*close)(struct tt_provider *provider); /* endpoints, keys and memory are gone before */

    void (*limits)(struct tt_provider *provider, struct tt_provider_limits *out);
    /* How others reach this process; at most TT_PROVIDER_MAX_ADDRESS bytes. */
    tutti_result (*address)(struct tt_provider *provider, void *out, size_t *bytes_out);
    tutti_result (*connect)(struct tt_provider *provider, int rank, const void *address,
                            size_t bytes, struct tt_provider_endpoint **out);
    /* At once: what is under way is lost, or done, when this returns. */
    void (*disconnect)(struct tt_provider_endpoint *endpoint);

    /* is_gpu: memory of a GPU; never where gpu_ways is 0. */
    tutti_result (*expose)(struct tt_provider *provider, void *base, uint64_t bytes, int is_gpu,
                           struct tt_provider_memory **out);
    void (*hide)(struct tt_provider_memory *memory);
    /* At most TT_PROVIDER_MAX_KEY bytes. */
    tutti_result (*pack_key)(struct tt_provider_memory *memory, void *out, size_t *bytes_out);
    tutti_result (*unpack_key)(struct tt_provider_endpoint *endpoint, const void *packed,
                               size_t bytes, struct tt_provider_key **out);
    void (*drop_key)(struct tt_provider_key *key);

    /* Copy to address `to` of the rank. `memory` holds the source, or is NULL where that is not
     * registered. Among those between two fences there is no order. */
    enum tt_provider_status (*put)(struct tt_provider_endpoint *endpoint, const void *src,
                                   size_t bytes, struct tt_provider_memory *memory, uint64_t to,
                                   struct tt_provider_key *key,
                                   struct tt_provider_request *request);
    enum tt_provider_status (*fence)(
        struct tt_provider_endpoint *endpoint); /* DONE, BUSY or BROKEN */
    /* The eight bytes at `word`, in one piece. `bundle`: puts that are part of it, or NULL. */
    enum tt_provider_status (*signal)(struct tt_provider_endpoint *endpoint, const uint64_t *word,
                                      struct tt_provider_memory *memory, uint64_t to,
                                      struct tt_provider_key *key,
                                      const struct tt_provider_bundle *bundle,
                                      struct tt_provider_request *request);
    /* Done when everything posted before has left this process. Where nothing is queued, NULL. */
    enum tt_provider_status (*push)(struct tt_provider_endpoint *endpoint,
                                    struct tt_provider_request *request);
    /* Done when everything posted to the endpoint is in the rank's memory. */
    enum tt_provider_status (*flush)(struct tt_provider_endpoint *endpoint,
                                     struct tt_provider_request *request);

    int (*progress)(struct tt_provider *provider); /* 0: there was nothing to do */
    /* For sleeping: a descriptor that becomes readable, after arm() has said 0 ("nothing to do now"). -1: none. */
    int (*fd)(struct tt_provider *provider);
    int (*arm)(struct tt_provider *provider);
};

/* The provider of this build and its environment, NULL if there is none. */
const struct tt_net_provider *tt_provider_default(void);

extern const struct tt_net_provider tt_ucx_provider; /* ucx.c */

#endif
