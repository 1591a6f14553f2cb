/*
 * Puts as messages, for transports that cannot write to another process's memory by themselves. UCX
 * emulates puts there, with an answer to each of them before the target sees the next; a message that
 * this provider carries out at the target needs none, takes a third of the time, and is written only to
 * memory that was offered, for who has a rank's token. Messages of an endpoint keep their order once they have
 * left the process.
 */
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/log.h"
#include "net/ucx_parts.h"

#define MESSAGE_ID 1

struct answer {
    struct tt_put_header header;
    const struct tt_ucx *ucx;
};

_Static_assert(sizeof(struct tt_put_header) + TT_PUT_MOST_HEAD <=
                   sizeof(((struct tt_provider_request *)0)->scratch),
               "a header must stay where it is until its message is sent");

/* ---- the target's side ---- */

static void refuse(struct tt_provider *p, const char *why)
{
    atomic_fetch_add_explicit(p->config.refused, 1, memory_order_relaxed);
    if (!p->has_warned)
        TT_LOG(TUTTI_LOG_WARN, p->config.rank, p->config.n_ranks,
               "network: a message is refused, because %s; others that are will only be counted",
               why);
    p->has_warned = 1;
}

static int is_offered(const struct tt_provider *p, uint64_t at, uint64_t bytes)
{
    for (const struct tt_provider_memory *m = p->memories; m; m = m->next) {
        const uint64_t base = (uint64_t)(uintptr_t)m->base;

        if (m->is_offered && m->type == UCS_MEMORY_TYPE_HOST && at >= base && bytes <= m->bytes &&
            at - base <= m->bytes - bytes)
            return 1;
    }
    return 0;
}

static void carry_out(struct tt_provider *p, const struct tt_put_header *h, const void *head,
                      const void *data, size_t bytes)
{
    void *to = (void *)(uintptr_t)h->to;

    if ((bytes > 0 && !is_offered(p, h->to, bytes)) ||
        (h->head_bytes > 0 && !is_offered(p, h->head_to, h->head_bytes)) ||
        (h->has_word && (h->word_to % sizeof(h->word) || !is_offered(p, h->word_to, 8)))) {
        refuse(p, "it means memory that this rank does not offer (any more)");
        return;
    }
    if (h->head_bytes > 0)
        tt_store_words((void *)(uintptr_t)h->head_to, head, h->head_bytes);
    if (bytes > 0 && !p->config.arrived(p->config.context, to, data, bytes))
        memcpy(to, data, bytes);
    if (h->has_word)
        __atomic_store_n((uint64_t *)(uintptr_t)h->word_to, h->word, __ATOMIC_RELEASE);
}

static void answered(void *ucx_request, ucs_status_t status, void *user_data)
{
    struct answer *answer = user_data;

    (void)status; /* who asked finds out by itself that this rank is lost */
    answer->ucx->ucp_request_free(ucx_request);
    free(answer);
}

/* From here to that rank. */
static struct tt_put_header header_to(const struct tt_provider *p, int rank, enum tt_put_kind kind)
{
    struct tt_put_header h = {.kind = (uint8_t)kind, .from = (uint32_t)p->config.rank};

    memcpy(h.token, p->peers[rank].token_out, sizeof(h.token));
    return h;
}

static void answer_flush(struct tt_provider *p, const struct tt_put_header *asked,
                         const ucp_am_recv_param_t *param)
{
    struct answer *answer = malloc(sizeof(*answer));
    const ucp_request_param_t how = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                     UCP_OP_ATTR_FIELD_USER_DATA |
                                                     UCP_OP_ATTR_FIELD_FLAGS,
                                     .flags = UCP_AM_SEND_FLAG_EAGER,
                                     .cb.send = answered,
                                     .user_data = answer};

    if (!answer || !(param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP)) {
        free(answer); /* who asked has a deadline */
        return;
    }
    answer->ucx = p->ucx;
    answer->header = header_to(p, (int)asked->from, TT_PUT_FLUSHED);
    answer->header.word = asked->serial;
    if (!UCS_PTR_IS_PTR(p->ucx->ucp_am_send_nbx(param->reply_ep, MESSAGE_ID, &answer->header,
                                                sizeof(answer->header), NULL, 0, &how)))
        free(answer);
}

static void finish_flush(struct tt_provider *p, const struct tt_put_header *answer)
{
    struct tt_provider_endpoint *e = p->endpoints;
    struct tt_provider_request *request;
    struct tt_put_header asked;

    while (e && (uint32_t)e->rank != answer->from)
        e = e->next;
    request = e ? e->flush : NULL;
    if (request)
        memcpy(&asked, request->scratch, sizeof(asked));
    if (!request || asked.serial != answer->word) {
        refuse(p, "it answers what this rank has not asked");
        return;
    }
    e->flush = NULL;
    request->done(request, 0);
}

static ucs_status_t on_message(void *arg, const void *header, size_t header_bytes, void *data,
                               size_t bytes, const ucp_am_recv_param_t *param)
{
    struct tt_provider *p = arg;
    struct tt_put_header h;
    enum tt_put_verdict verdict;

    if (param->recv_attr &
        UCP_AM_RECV_ATTR_FLAG_RNDV) /* UCX would fetch it: ours bring their data */
        bytes = SIZE_MAX;
    verdict =
        tt_put_parse(p->peers, p->config.rank, p->config.n_ranks, header, header_bytes, bytes, &h);
    if (verdict != TT_PUT_GOOD)
        refuse(p, tt_put_verdict_text(verdict));
    else if (h.kind == TT_PUT_WRITE)
        carry_out(p, &h, (const unsigned char *)header + sizeof(h), data, bytes);
    else if (h.kind == TT_PUT_FLUSH)
        answer_flush(p, &h, param);
    else if (h.kind == TT_PUT_FLUSHED)
        finish_flush(p, &h);
    return UCS_OK;
}

ucs_status_t tt_ucx_listen(struct tt_provider *p)
{
    const ucp_am_handler_param_t handler = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                          UCP_AM_HANDLER_PARAM_FIELD_CB |
                                                          UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                            .id = MESSAGE_ID,
                                            .cb = on_message,
                                            .arg = p};

    return p->ucx->ucp_worker_set_am_recv_handler(p->worker, &handler);
}

/* ---- the sender's side ---- */

static void on_sent(void *ucx_request, ucs_status_t status, void *user_data)
{
    struct tt_provider_request *request = user_data;
    struct tt_provider_endpoint *e = request->owner;

    e->provider->ucx->ucp_request_free(ucx_request);
    e->n_messages--;
    if (request != e->flush) /* which ends when it is answered */
        request->done(request, status != UCS_OK);
}

static enum tt_provider_status post(struct tt_provider_endpoint *e, struct tt_put_header *header,
                                    const void *head, const void *data, size_t bytes,
                                    uint32_t flags, struct tt_provider_request *request)
{
    struct tt_put_peer *peer = &e->provider->peers[e->rank];
    const ucp_request_param_t how = {.op_attr_mask =
                                         UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                                         UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
                                     .flags = UCP_AM_SEND_FLAG_EAGER | flags,
                                     .memory_type = UCS_MEMORY_TYPE_HOST,
                                     .cb.send = on_sent,
                                     .user_data = request};
    enum tt_provider_status status;

    request->owner = e;
    header->serial = peer->n_sent + 1;
    memcpy(request->scratch, header, sizeof(*header));
    if (header->head_bytes > 0)
        memcpy(request->scratch + sizeof(*header), head, header->head_bytes);
    status = tt_ucx_became(e, e->provider->ucx->ucp_am_send_nbx(
                                  e->ep, MESSAGE_ID, request->scratch,
                                  sizeof(*header) + header->head_bytes, data, bytes, &how));
    e->n_messages += status == TT_PROVIDER_STARTED;
    peer->n_sent += status != TT_PROVIDER_BUSY;
    return status;
}

enum tt_provider_status tt_ucx_send_put(struct tt_provider_endpoint *e, const void *src,
                                        size_t bytes, uint64_t to,
                                        struct tt_provider_request *request)
{
    struct tt_put_header h = header_to(e->provider, e->rank, TT_PUT_WRITE);

    h.to = to;
    return post(e, &h, NULL, src, bytes, 0, request);
}

enum tt_provider_status tt_ucx_send_word(struct tt_provider_endpoint *e, uint64_t word, uint64_t to,
                                         const struct tt_provider_bundle *bundle,
                                         struct tt_provider_request *request)
{
    static const struct tt_provider_bundle none;
    const struct tt_provider_put *head = bundle ? &bundle->head : &none.head;
    const struct tt_provider_put *body = bundle ? &bundle->body : &none.body;
    struct tt_put_header h = header_to(e->provider, e->rank, TT_PUT_WRITE);

    h.has_word = 1;
    h.word_to = to;
    h.word = word;
    h.head_bytes = (uint16_t)head->bytes;
    h.head_to = head->to;
    h.to = body->to;
    return post(e, &h, head->src, body->src, body->bytes, 0, request);
}

/* A socket that is full leaves messages in UCX's buffer, which count as sent; but only one at a time: this one,
 * which says nothing, can be posted when that is empty. (UCX's flush takes a hundred microseconds.) */
enum tt_provider_status tt_ucx_send_push(struct tt_provider_endpoint *e,
                                         struct tt_provider_request *request)
{
    struct tt_put_header h = header_to(e->provider, e->rank, TT_PUT_NOTHING);

    if (e->is_broken)
        return TT_PROVIDER_BROKEN;
    return post(e, &h, NULL, NULL, 0, 0, request);
}

/* UCX's own flush says when messages have left; the answer to this one, that they are carried out. */
enum tt_provider_status tt_ucx_send_flush(struct tt_provider_endpoint *e,
                                          struct tt_provider_request *request)
{
    struct tt_put_header h = header_to(e->provider, e->rank, TT_PUT_FLUSH);
    enum tt_provider_status status;

    if (e->flush || e->n_messages)
        return TT_PROVIDER_BUSY; /* one at a time, and after what is before it */
    e->flush = request;
    status = post(e, &h, NULL, NULL, 0, UCP_AM_SEND_FLAG_REPLY, request);
    if (status == TT_PROVIDER_DONE) /* sent, that is */
        return TT_PROVIDER_STARTED;
    if (status != TT_PROVIDER_STARTED)
        e->flush = NULL;
    return status;
}
