/* The provider over UCX (the UCP interface). docs/design/network.md says what of it is used and why. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/error.h"
#include "base/log.h"
#include "net/net.h"
#include "net/ucx_parts.h"

#define RMA_PIECE        (512u << 10)
#define CLOSE_LIMIT_NS   UINT64_C(200000000)
#define ROUTES_READ_ONCE 20 /* minor version of UCX that does so */
#define DMABUF_SINCE     15 /* ... that registers dma-bufs of GPUs with cards */

static const char *missing(void)
{
    const char *why;

    if (!tt_ucx_get(&why))
        return why;
    if (access("/sys/class/net", R_OK) != 0)
        return "UCX finds the network's devices in /sys/class/net, which is not there: mount /sys";
    return "";
}

static void describe(char *text_out, size_t bytes)
{
    const char *why;
    const struct tt_ucx *ucx = tt_ucx_get(&why);

    if (ucx)
        snprintf(text_out, bytes, "UCX %u.%u.%u (%s)", ucx->major, ucx->minor, ucx->release,
                 ucx->path);
    else
        snprintf(text_out, bytes, "no UCX");
}

#define FAIL_UCX(provider, status, what)                                                           \
    TT_FAIL((status) == UCS_ERR_NO_MEMORY ? TUTTI_E_MEMORY : TUTTI_E_SYSTEM,                       \
            "UCX cannot %s (devices %s): %s", what, (provider)->config.devices,                    \
            (provider)->ucx->ucs_status_string(status))

/* ---- open and close ---- */

static tutti_result open_context(struct tt_provider *p)
{
    ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME |
                                         UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
                           .features = UCP_FEATURE_RMA | UCP_FEATURE_AM,
                           .estimated_num_eps = (size_t)p->config.n_ranks,
                           .name = "tutti"};
    ucp_config_t *settings = NULL;
    ucs_status_t status = p->ucx->ucp_config_read(NULL, NULL, &settings);
    tutti_result result;

    /* It nests the transports' event sets in one of its own: one more callback for every packet that arrives,
     * in the time of who sends it. */
    if (!p->config.polls)
        params.features |= UCP_FEATURE_WAKEUP;
    if (status != UCS_OK)
        return FAIL_UCX(p, status, "read its settings");
    result = tt_ucx_configure(p->ucx, &p->config, settings);
    if (result == TUTTI_OK) {
        status =
            p->ucx->ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, settings, &p->context);
        if (status != UCS_OK)
            result = FAIL_UCX(p, status, "start");
    }
    p->ucx->ucp_config_release(settings);
    return result;
}

static tutti_result open_worker(struct tt_provider *p)
{
    ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                  .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucs_status_t status = p->ucx->ucp_worker_create(p->context, &params, &p->worker);

    if (status == UCS_OK)
        status = tt_ucx_listen(p);
    p->fd = -1;
    if (status == UCS_OK && !p->config.polls)
        status = p->ucx->ucp_worker_get_efd(p->worker, &p->fd);
    return status == UCS_OK ? TUTTI_OK : FAIL_UCX(p, status, "make a worker");
}

static void close_provider(struct tt_provider *p)
{
    if (p->worker)
        p->ucx->ucp_worker_destroy(p->worker);
    if (p->context)
        p->ucx->ucp_cleanup(p->context);
    if (p->peers) /* they hold secrets */
        explicit_bzero(p->peers, (size_t)p->config.n_ranks * sizeof(*p->peers));
    free(p->peers);
    free(p);
}

/* At once, whatever is under way. */
static void close_endpoint(struct tt_provider *p, ucp_ep_h ep)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_EP_CLOSE_FLAG_FORCE};
    const uint64_t end = tt_now_ns() + CLOSE_LIMIT_NS;
    void *request = p->ucx->ucp_ep_close_nbx(ep, &param);

    if (!UCS_PTR_IS_PTR(request))
        return;
    while (p->ucx->ucp_request_check_status(request) == UCS_INPROGRESS && tt_now_ns() < end)
        p->ucx->ucp_worker_progress(p->worker);
    p->ucx->ucp_request_free(request);
}

/* Since 1.20 UCX reads the routes once for the process, when it first makes a way: from then on what had no route at
 * that moment never has one. So they are read now, while the rendezvous has just used the network, on a way to itself. */
static void read_routes(struct tt_provider *p)
{
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE,
                              .err_mode = UCP_ERR_HANDLING_MODE_PEER};
    static atomic_int is_done;
    ucp_address_t *mine;
    size_t bytes;
    ucp_ep_h ep;

    if (atomic_exchange(&is_done, 1) || !tt_ucx_is_at_least(p->ucx, ROUTES_READ_ONCE) ||
        p->ucx->ucp_worker_get_address(p->worker, &mine, &bytes) != UCS_OK)
        return;
    params.address = mine;
    if (p->ucx->ucp_ep_create(p->worker, &params, &ep) == UCS_OK)
        close_endpoint(p, ep);
    p->ucx->ucp_worker_release_address(p->worker, mine);
}

/* Where no device is a card that writes to memory by itself (they are named with a port, "mlx5_0:1"), puts
 * are messages that tutti carries out at the target: UCX's own emulation takes three times as long, and ends the
 * process ("unexpected error: Endpoint timeout") when a put comes from a peer whose way has failed meanwhile. */
static tutti_result choose_puts(struct tt_provider *p)
{
    enum { AUTO, RMA, MESSAGE };
    int choice = AUTO;

    TT_TRY(tt_env_choice(TT_ENV_TUTTI_NET_PUTS, &choice));
    p->has_card = strchr(p->config.devices, ':') != NULL;
    p->by_message = choice == AUTO ? !p->has_card : choice == MESSAGE;
    if (!p->has_card && !p->by_message)
        TT_LOG(TUTTI_LOG_WARN, p->config.rank, 0,
               "TUTTI_NET_PUTS=rma without a card that has it: UCX emulates puts, and may end the "
               "process after a failure; unset it, but for comparisons");
    return TUTTI_OK;
}

/* UCX would carry memory of a GPU over anything, by copies of the driver's that may wait for the kernels that
 * wait for them. A card reaches it by itself through one of two ways, which UCX does not tell. */
static void find_gpu_ways(struct tt_provider *p)
{
    ucp_context_attr_t attr = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};

    if (!p->has_card || p->by_message || p->ucx->ucp_context_query(p->context, &attr) != UCS_OK ||
        !(attr.memory_types & UINT64_C(1) << UCS_MEMORY_TYPE_CUDA))
        return;
    if (access("/sys/module/nvidia_peermem", F_OK) == 0 ||
        access("/sys/module/nv_peer_mem", F_OK) == 0)
        p->gpu_ways |= TT_NET_GPU_PEERMEM;
    if (tt_ucx_is_at_least(p->ucx, DMABUF_SINCE))
        p->gpu_ways |= TT_NET_GPU_DMABUF;
}

static tutti_result make_tokens(struct tt_provider *p)
{
    p->peers = calloc((size_t)p->config.n_ranks, sizeof(*p->peers));
    if (!p->peers)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the tokens of %d ranks", p->config.n_ranks);
    tt_put_tokens(p->config.key, p->config.rank, p->config.n_ranks, p->peers);
    p->config.key = NULL; /* the caller's, until this call ends */
    return TUTTI_OK;
}

static tutti_result open_provider(const struct tt_provider_config *config, struct tt_provider **out)
{
    const char *why;
    const struct tt_ucx *ucx = tt_ucx_get(&why);
    struct tt_provider *p;
    tutti_result result;

    if (!ucx)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "%s", why);
    p = calloc(1, sizeof(*p));
    if (!p)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a network");
    p->ucx = ucx;
    p->config = *config;
    result = make_tokens(p);
    if (result == TUTTI_OK)
        result = choose_puts(p);
    if (result == TUTTI_OK)
        result = open_context(p);
    if (result == TUTTI_OK)
        result = open_worker(p);
    if (result == TUTTI_OK)
        find_gpu_ways(p);
    if (result == TUTTI_OK)
        read_routes(p);
    p->config.devices = "as opened"; /* the caller's text ends with this call */
    if (result != TUTTI_OK) {
        close_provider(p);
        return result;
    }
    *out = p;
    return TUTTI_OK;
}

static void limits(struct tt_provider *p, struct tt_provider_limits *out)
{
    out->piece_bytes = p->by_message ? TT_UCX_MESSAGE_PIECE : RMA_PIECE;
    out->bundle_bytes = p->by_message ? TT_UCX_MESSAGE_PIECE : 0;
    out->head_bytes = p->by_message ? TT_PUT_MOST_HEAD : 0;
    out->queued_bytes = p->by_message ? TT_UCX_MESSAGE_ZCOPY : UINT32_MAX;
    out->gpu_ways = p->gpu_ways;
    if (p->has_card) /* its queue needs nobody to call */
        out->queued_bytes = 0;
    else if (tt_env_foreign("UCX_ZCOPY_THRESH"))
        out->queued_bytes = UINT32_MAX;
}

/* ---- endpoints ---- */

static tutti_result address(struct tt_provider *p, void *out, size_t *bytes_out)
{
    ucp_address_t *mine;
    size_t bytes;
    ucs_status_t status = p->ucx->ucp_worker_get_address(p->worker, &mine, &bytes);

    if (status != UCS_OK)
        return FAIL_UCX(p, status, "tell its address");
    if (bytes <= TT_PROVIDER_MAX_ADDRESS)
        memcpy(out, mine, bytes);
    p->ucx->ucp_worker_release_address(p->worker, mine);
    if (bytes > TT_PROVIDER_MAX_ADDRESS)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "UCX's address has %zu bytes, more than %d: name fewer devices in "
                       "TUTTI_NET_DEVICES",
                       bytes, TT_PROVIDER_MAX_ADDRESS);
    *bytes_out = bytes;
    return TUTTI_OK;
}

void tt_ucx_break(struct tt_provider_endpoint *e, ucs_status_t status)
{
    struct tt_provider *p = e->provider;

    if (e->is_broken)
        return;
    e->is_broken = 1;
    p->config.broken(p->config.context, e->rank, p->ucx->ucs_status_string(status));
}

static void on_broken(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    (void)ep;
    tt_ucx_break(arg, status);
}

static tutti_result connect_endpoint(struct tt_provider *p, int rank, const void *address_of,
                                     size_t bytes, struct tt_provider_endpoint **out)
{
    struct tt_provider_endpoint *e = calloc(1, sizeof(*e));
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLER,
                              .address = address_of,
                              .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                              .err_handler = {.cb = on_broken, .arg = e}};
    ucs_status_t status;

    (void)bytes;
    if (!e)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for an endpoint");
    e->provider = p;
    e->rank = rank;
    status = p->ucx->ucp_ep_create(p->worker, &params, &e->ep);
    if (status != UCS_OK) {
        free(e);
        return TT_FAIL(TUTTI_E_SYSTEM,
                       "UCX finds no way to rank %d (%s): do the devices of both hosts reach each "
                       "other? TUTTI_NET_DEVICES names others",
                       rank, p->ucx->ucs_status_string(status));
    }
    e->next = p->endpoints;
    p->endpoints = e;
    *out = e;
    return TUTTI_OK;
}

static void disconnect(struct tt_provider_endpoint *e)
{
    struct tt_provider_endpoint **at = &e->provider->endpoints;

    e->is_broken = 1; /* what the close itself reports is no news */
    close_endpoint(e->provider, e->ep);
    if (e->flush)
        e->flush->done(e->flush, 1);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    free(e);
}

/* ---- memory ---- */

static tutti_result expose(struct tt_provider *p, void *base, uint64_t bytes, int is_gpu,
                           struct tt_provider_memory **out)
{
    struct tt_provider_memory *m = calloc(1, sizeof(*m));
    ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
        .address = base,
        .length = bytes,
        .memory_type = is_gpu ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST};
    ucs_status_t status;

    if (!m)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a region");
    m->provider = p;
    m->base = base;
    m->bytes = bytes;
    m->type = params.memory_type;
    status = p->ucx->ucp_mem_map(p->context, &params, &m->handle);
    if (status != UCS_OK) {
        free(m);
        return TT_FAIL(TUTTI_E_MEMORY,
                       "UCX cannot register %llu bytes: %s (RDMA devices: is ulimit -l unlimited?)",
                       (unsigned long long)bytes, p->ucx->ucs_status_string(status));
    }
    m->next = p->memories;
    p->memories = m;
    *out = m;
    return TUTTI_OK;
}

static void hide(struct tt_provider_memory *m)
{
    struct tt_provider_memory **at = &m->provider->memories;

    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->provider->ucx->ucp_mem_unmap(m->provider->context, m->handle);
    free(m);
}

static tutti_result pack_key(struct tt_provider_memory *m, void *out, size_t *bytes_out)
{
    const struct tt_provider *p = m->provider;
    void *packed;
    size_t bytes;
    ucs_status_t status = p->ucx->ucp_rkey_pack(p->context, m->handle, &packed, &bytes);

    if (status != UCS_OK)
        return FAIL_UCX(p, status, "pack a key");
    if (bytes <= TT_PROVIDER_MAX_KEY)
        memcpy(out, packed, bytes);
    p->ucx->ucp_rkey_buffer_release(packed);
    if (bytes > TT_PROVIDER_MAX_KEY)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "UCX's key of memory has %zu bytes, more than %d: name fewer devices in "
                       "TUTTI_NET_DEVICES",
                       bytes, TT_PROVIDER_MAX_KEY);
    m->is_offered = 1;
    *bytes_out = bytes;
    return TUTTI_OK;
}

static tutti_result unpack_key(struct tt_provider_endpoint *e, const void *packed, size_t bytes,
                               struct tt_provider_key **out)
{
    struct tt_provider_key *key = calloc(1, sizeof(*key));
    ucs_status_t status;

    (void)bytes;
    if (!key)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a key");
    key->ucx = e->provider->ucx;
    status = key->ucx->ucp_ep_rkey_unpack(e->ep, packed, &key->handle);
    if (status != UCS_OK) {
        free(key);
        return FAIL_UCX(e->provider, status, "read a key");
    }
    *out = key;
    return TUTTI_OK;
}

static void drop_key(struct tt_provider_key *key)
{
    key->ucx->ucp_rkey_destroy(key->handle);
    free(key);
}

/* ---- posting ---- */

static void on_done(void *ucx_request, ucs_status_t status, void *user_data)
{
    struct tt_provider_request *request = user_data;
    struct tt_provider *p = request->owner;

    p->ucx->ucp_request_free(ucx_request);
    request->done(request, status != UCS_OK);
}

enum tt_provider_status tt_ucx_became(struct tt_provider_endpoint *e, void *request)
{
    if (request == NULL)
        return TT_PROVIDER_DONE;
    if (UCS_PTR_IS_PTR(request))
        return TT_PROVIDER_STARTED;
    if (UCS_PTR_STATUS(request) == UCS_ERR_NO_RESOURCE ||
        UCS_PTR_STATUS(request) == UCS_ERR_NO_MEMORY)
        return TT_PROVIDER_BUSY;
    tt_ucx_break(e, UCS_PTR_STATUS(request));
    return TT_PROVIDER_BROKEN;
}

static ucp_request_param_t params_for(struct tt_provider_endpoint *e,
                                      struct tt_provider_request *request)
{
    request->owner = e->provider;
    return (ucp_request_param_t){.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = on_done,
                                 .user_data = request};
}

static enum tt_provider_status put(struct tt_provider_endpoint *e, const void *src, size_t bytes,
                                   struct tt_provider_memory *memory, uint64_t to,
                                   struct tt_provider_key *key, struct tt_provider_request *request)
{
    ucp_request_param_t param = params_for(e, request);

    if (e->is_broken)
        return TT_PROVIDER_BROKEN;
    if (e->provider->by_message)
        return tt_ucx_send_put(e, src, bytes, to, request);
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
    param.memory_type = memory ? memory->type : UCS_MEMORY_TYPE_HOST;
    if (memory) {
        param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
        param.memh = memory->handle;
    }
    return tt_ucx_became(e,
                         e->provider->ucx->ucp_put_nbx(e->ep, src, bytes, to, key->handle, &param));
}

static enum tt_provider_status fence(struct tt_provider_endpoint *e)
{
    ucs_status_t status;

    if (e->is_broken)
        return TT_PROVIDER_BROKEN;
    if (e->provider->by_message) /* what has left this process stays in its order */
        return e->n_messages ? TT_PROVIDER_BUSY : TT_PROVIDER_DONE;
    status = e->provider->ucx->ucp_worker_fence(e->provider->worker);
    if (status == UCS_OK)
        return TT_PROVIDER_DONE;
    tt_ucx_break(e, status);
    return TT_PROVIDER_BROKEN;
}

/* An atomic would be natural, but UCX has none on endpoints that report failures. */
static enum tt_provider_status put_word(struct tt_provider_endpoint *e, const uint64_t *word,
                                        struct tt_provider_memory *memory, uint64_t to,
                                        struct tt_provider_key *key,
                                        const struct tt_provider_bundle *bundle,
                                        struct tt_provider_request *request)
{
    if (e->is_broken)
        return TT_PROVIDER_BROKEN;
    if (e->provider->by_message)
        return tt_ucx_send_word(e, *word, to, bundle, request);
    return put(e, word, sizeof(*word), memory, to, key, request);
}

static enum tt_provider_status flush(struct tt_provider_endpoint *e,
                                     struct tt_provider_request *request)
{
    const ucp_request_param_t param = params_for(e, request);

    if (e->is_broken)
        return TT_PROVIDER_BROKEN;
    if (e->provider->by_message)
        return tt_ucx_send_flush(e, request);
    return tt_ucx_became(e, e->provider->ucx->ucp_ep_flush_nbx(e->ep, &param));
}

/* ---- progress and sleep ---- */

/* A system call over TCP, so not until there is no more. */
static int progress(struct tt_provider *p)
{
    return p->ucx->ucp_worker_progress(p->worker) != 0;
}

static int worker_fd(struct tt_provider *p)
{
    return p->fd;
}

static int arm(struct tt_provider *p)
{
    return p->ucx->ucp_worker_arm(p->worker) == UCS_OK ? 0 : 1;
}

const struct tt_net_provider tt_ucx_provider = {
    .size = sizeof(struct tt_net_provider),
    .name = "ucx",
    .fence_orders = 1,
    .missing = missing,
    .describe = describe,
    .open = open_provider,
    .close = close_provider,
    .limits = limits,
    .address = address,
    .connect = connect_endpoint,
    .disconnect = disconnect,
    .expose = expose,
    .hide = hide,
    .pack_key = pack_key,
    .unpack_key = unpack_key,
    .drop_key = drop_key,
    .put = put,
    .fence = fence,
    .signal = put_word,
    .push = tt_ucx_send_push,
    .flush = flush,
    .progress = progress,
    .fd = worker_fd,
    .arm = arm,
};
