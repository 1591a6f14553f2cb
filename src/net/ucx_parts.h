/* What the files of the provider over UCX share. */
#ifndef TT_NET_UCX_PARTS_H
#define TT_NET_UCX_PARTS_H

#include "net/provider.h"
#include "net/put_wire.h"
#include "net/ucx.h"

/* A message of a put fits into one segment (TCP_TX_SEG_SIZE) with its headers, so that no part of it is
 * collected and copied again at the target. */
#define TT_UCX_MESSAGE_PIECE TT_PUT_MOST_DATA
#define TT_UCX_MESSAGE_ZCOPY (64u << 10) /* not copied to UCX's queue: ZCOPY_THRESH is less */

struct tt_provider {
    const struct tt_ucx *ucx;
    struct tt_provider_config config;
    ucp_context_h context;
    ucp_worker_h worker;
    int fd;
    int has_card;   /* a device that writes to memory by itself */
    int by_message; /* puts are messages that the target's provider carries out */
    unsigned gpu_ways;
    struct tt_provider_endpoint *endpoints;
    struct tt_provider_memory *memories;
    struct tt_put_peer *peers; /* [n_ranks]: tokens and serials of messages */
    int has_warned;            /* of a message that was refused */
};

struct tt_provider_endpoint {
    struct tt_provider *provider;
    ucp_ep_h ep;
    int rank;
    int is_broken;       /* posting to such an endpoint can crash some versions of UCX */
    unsigned n_messages; /* that are still in this process */
    struct tt_provider_request *flush; /* the one that waits for its answer, or NULL */
    struct tt_provider_endpoint *next;
};

struct tt_provider_memory {
    struct tt_provider *provider;
    ucp_mem_h handle;
    unsigned char *base;
    uint64_t bytes;
    ucs_memory_type_t type;
    int is_offered; /* to the other ranks: its key has been packed */
    struct tt_provider_memory *next;
};

struct tt_provider_key {
    const struct tt_ucx *ucx;
    ucp_rkey_h handle;
};

/* ucx.c: report the loss of an endpoint, once; what has become of a call of UCX's. */
void tt_ucx_break(struct tt_provider_endpoint *endpoint, ucs_status_t status);
enum tt_provider_status tt_ucx_became(struct tt_provider_endpoint *endpoint, void *request);

/* ucx_message.c: puts, signals and flushes as messages. */
ucs_status_t tt_ucx_listen(struct tt_provider *provider);
enum tt_provider_status tt_ucx_send_put(struct tt_provider_endpoint *endpoint, const void *src,
                                        size_t bytes, uint64_t to,
                                        struct tt_provider_request *request);
enum tt_provider_status tt_ucx_send_word(struct tt_provider_endpoint *endpoint, uint64_t word,
                                         uint64_t to, const struct tt_provider_bundle *bundle,
                                         struct tt_provider_request *request);
enum tt_provider_status tt_ucx_send_push(struct tt_provider_endpoint *endpoint,
                                         struct tt_provider_request *request);
enum tt_provider_status tt_ucx_send_flush(struct tt_provider_endpoint *endpoint,
                                          struct tt_provider_request *request);

#endif
