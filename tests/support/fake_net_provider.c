#include "support/fake_net_provider.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "support/t.h"

#define MOST_RANKS 16
#define MOST_OPS   512
#define PIECE      (64u << 10)
#define BUNDLE     1000
#define HEAD       48

enum kind { PUT, SIGNAL, FLUSH };

struct op {
    enum kind kind;
    const unsigned char *src;
    size_t bytes, n_done;
    uint64_t to;
    struct tt_provider_memory *memory;
    struct tt_provider_bundle bundle; /* of a signal */
    uint64_t number, group;           /* operations of one group have no order */
    int is_delivered;
    struct tt_provider_request *request;
};

struct tt_provider_memory {
    struct tt_provider *provider;
    unsigned char *base;
    uint64_t bytes;
    int is_hidden;
    struct tt_provider_memory *next;
};

struct tt_provider_key {
    int rank;
};

struct tt_provider_endpoint {
    struct tt_provider *from;
    int rank;
    struct op *ops[MOST_OPS];
    int n_ops;
    uint64_t number, group;
    uint64_t bytes;
    int is_broken, broken_is_told;
    struct tt_provider_endpoint *next;
};

struct tt_provider {
    struct tt_provider_config config;
    struct tt_provider_endpoint *endpoints;
    struct tt_provider_memory *memories;
    int fd;
};

struct t_fake_net t_fake_net;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tt_provider *fabric[MOST_RANKS];
static struct t_rng rng;

void t_fake_net_reset(uint64_t seed)
{
    memset(&t_fake_net, 0, sizeof(t_fake_net));
    t_fake_net.seed = seed;
    rng.state = seed;
}

static unsigned chance(unsigned below)
{
    return (unsigned)t_random_below(&rng, below);
}

/* ---- open, close, connect ---- */

static const char *missing(void)
{
    return "";
}

static void describe(char *text_out, size_t bytes)
{
    snprintf(text_out, bytes, "a fake");
}

static tutti_result open_fake(const struct tt_provider_config *config, struct tt_provider **out)
{
    struct tt_provider *p = calloc(1, sizeof(*p));

    if (t_fake_net.fails_open_of == config->rank + 1) {
        free(p);
        return TT_FAIL(TUTTI_E_SYSTEM, "the fake does not want to");
    }
    p->config = *config;
    p->fd = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_lock(&lock);
    fabric[config->rank] = p;
    pthread_mutex_unlock(&lock);
    *out = p;
    return TUTTI_OK;
}

static void close_fake(struct tt_provider *p)
{
    pthread_mutex_lock(&lock);
    fabric[p->config.rank] = NULL;
    pthread_mutex_unlock(&lock);
    T_CHECK(!p->endpoints, "closed with an endpoint");
    while (p->memories) {
        struct tt_provider_memory *m = p->memories;

        T_CHECK(m->is_hidden, "closed with memory that is exposed");
        p->memories = m->next;
        free(m);
    }
    close(p->fd);
    free(p);
}

static void limits(struct tt_provider *p, struct tt_provider_limits *out)
{
    (void)p;
    out->piece_bytes = PIECE;
    out->bundle_bytes = BUNDLE;
    out->head_bytes = HEAD;
    out->queued_bytes = 4096;
}

static tutti_result address(struct tt_provider *p, void *out, size_t *bytes_out)
{
    memcpy(out, &p->config.rank, sizeof(p->config.rank));
    *bytes_out = sizeof(p->config.rank);
    return TUTTI_OK;
}

static tutti_result connect_fake(struct tt_provider *p, int rank, const void *packed, size_t bytes,
                                 struct tt_provider_endpoint **out)
{
    struct tt_provider_endpoint *e = calloc(1, sizeof(*e));

    T_CHECK(bytes == sizeof(int) && memcmp(packed, &rank, bytes) == 0, "a wrong address");
    e->from = p;
    e->rank = rank;
    pthread_mutex_lock(&lock);
    e->next = p->endpoints;
    p->endpoints = e;
    pthread_mutex_unlock(&lock);
    *out = e;
    return TUTTI_OK;
}

static void disconnect(struct tt_provider_endpoint *e)
{
    struct tt_provider_endpoint **at = &e->from->endpoints;
    struct op *ops[MOST_OPS];
    int n;

    pthread_mutex_lock(&lock);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    n = e->n_ops;
    memcpy(ops, e->ops, sizeof(ops));
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < n; i++) {
        ops[i]->request->done(ops[i]->request, 1);
        free(ops[i]);
    }
    free(e);
}

/* ---- memory ---- */

static tutti_result expose(struct tt_provider *p, void *base, uint64_t bytes, int is_gpu,
                           struct tt_provider_memory **out)
{
    struct tt_provider_memory *m = calloc(1, sizeof(*m));

    T_CHECK(!is_gpu, "there are no GPUs here");
    m->provider = p;
    m->base = base;
    m->bytes = bytes;
    pthread_mutex_lock(&lock);
    m->next = p->memories;
    p->memories = m;
    pthread_mutex_unlock(&lock);
    *out = m;
    return TUTTI_OK;
}

static void hide(struct tt_provider_memory *m)
{
    pthread_mutex_lock(&lock);
    m->is_hidden = 1; /* freed with the provider, so that late uses are seen and not crashes */
    pthread_mutex_unlock(&lock);
}

static int holds(const struct tt_provider_memory *m, const void *at, uint64_t bytes)
{
    const unsigned char *p = at;

    return !m->is_hidden && p >= m->base && p + bytes <= m->base + m->bytes;
}

static tutti_result pack_key(struct tt_provider_memory *m, void *out, size_t *bytes_out)
{
    memcpy(out, &m->provider->config.rank, sizeof(int));
    *bytes_out = sizeof(int);
    return TUTTI_OK;
}

static tutti_result unpack_key(struct tt_provider_endpoint *e, const void *packed, size_t bytes,
                               struct tt_provider_key **out)
{
    struct tt_provider_key *key = calloc(1, sizeof(*key));

    T_CHECK(bytes == sizeof(int), "a wrong key");
    memcpy(&key->rank, packed, sizeof(int));
    T_CHECK(key->rank == e->rank, "a key of another rank");
    *out = key;
    return TUTTI_OK;
}

static void drop_key(struct tt_provider_key *key)
{
    free(key);
}

/* ---- posting ---- */

static enum tt_provider_status post(struct tt_provider_endpoint *e, const struct op *what)
{
    enum tt_provider_status status = TT_PROVIDER_STARTED;

    pthread_mutex_lock(&lock);
    if (t_fake_net.break_after && e->number >= t_fake_net.break_after)
        e->is_broken = 1;
    if (e->is_broken) {
        status = TT_PROVIDER_BROKEN;
    } else if (e->n_ops == MOST_OPS || chance(100) < t_fake_net.busy_percent) {
        t_fake_net.n_refused++;
        status = TT_PROVIDER_BUSY;
    } else {
        struct op *op = malloc(sizeof(*op));

        *op = *what;
        t_fake_net.n_bundled += op->bundle.body.bytes > 0;
        t_fake_net.n_heads += op->bundle.head.bytes > 0;
        op->number = e->number++;
        op->group = e->group;
        e->ops[e->n_ops++] = op;
        e->bytes += op->bytes;
        if ((uint64_t)e->n_ops > t_fake_net.most_requests)
            t_fake_net.most_requests = (uint64_t)e->n_ops;
        if (e->bytes > t_fake_net.most_bytes)
            t_fake_net.most_bytes = e->bytes;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static enum tt_provider_status put(struct tt_provider_endpoint *e, const void *src, size_t bytes,
                                   struct tt_provider_memory *memory, uint64_t to,
                                   struct tt_provider_key *key, struct tt_provider_request *request)
{
    const struct op op = {
        .kind = PUT, .src = src, .bytes = bytes, .to = to, .memory = memory, .request = request};

    T_CHECK(key->rank == e->rank, "a key of another rank");
    return post(e, &op);
}

static enum tt_provider_status fence(struct tt_provider_endpoint *e)
{
    pthread_mutex_lock(&lock);
    e->group += !t_fake_net.loses_fences;
    pthread_mutex_unlock(&lock);
    return TT_PROVIDER_DONE;
}

static enum tt_provider_status no_fence(struct tt_provider_endpoint *e)
{
    (void)e;
    T_FAIL("a fence of a provider that has none");
}

static enum tt_provider_status post_signal(struct tt_provider_endpoint *e, const uint64_t *word,
                                           struct tt_provider_memory *memory, uint64_t to,
                                           struct tt_provider_key *key,
                                           const struct tt_provider_bundle *bundle,
                                           struct tt_provider_request *request)
{
    const struct tt_provider_bundle none = {0};
    const struct op op = {.kind = SIGNAL,
                          .bundle = bundle ? *bundle : none,
                          .src = (const unsigned char *)word,
                          .bytes = 8,
                          .to = to,
                          .memory = memory,
                          .request = request};

    T_CHECK(key->rank == e->rank, "a key of another rank");
    T_CHECK(!bundle || (bundle->body.bytes > 0 && bundle->body.bytes <= BUNDLE &&
                        bundle->head.bytes <= HEAD),
            "a bundle of %u and %u bytes", bundle->head.bytes, bundle->body.bytes);
    T_CHECK(memory, "a signal from memory that is not registered");
    return post(e, &op);
}

/* As if the last small one of all could still be in a queue. */
static enum tt_provider_status push(struct tt_provider_endpoint *e,
                                    struct tt_provider_request *request)
{
    (void)request;
    return e->is_broken ? TT_PROVIDER_BROKEN : chance(3) ? TT_PROVIDER_BUSY : TT_PROVIDER_DONE;
}

static enum tt_provider_status flush(struct tt_provider_endpoint *e,
                                     struct tt_provider_request *request)
{
    const struct op op = {.kind = FLUSH, .request = request};

    return post(e, &op);
}

/* ---- delivery ---- */

/* May it be delivered before all others that are not? */
static int may_go(const struct tt_provider_endpoint *e, const struct op *op)
{
    for (int i = 0; i < e->n_ops; i++) {
        const struct op *other = e->ops[i];

        if (other->is_delivered || other->number >= op->number)
            continue;
        if (op->kind == FLUSH || other->group < op->group)
            return 0;
    }
    return 1;
}

/* To registered memory of the target, from registered memory of the source, or it is counted. */
static void copy(const struct tt_provider_endpoint *e, struct tt_provider *target, struct op *op,
                 size_t bytes)
{
    unsigned char *to = (unsigned char *)(uintptr_t)op->to + op->n_done;
    const struct tt_provider_memory *m = target->memories;

    while (m && !holds(m, to, bytes))
        m = m->next;
    (void)e;
    if (!m || (op->memory && !holds(op->memory, op->src + op->n_done, bytes))) {
        t_fake_net.n_wrong++;
        return;
    }
    if (op->bundle.head.bytes > 0)
        memcpy((void *)(uintptr_t)op->bundle.head.to, op->bundle.head.src, op->bundle.head.bytes);
    if (op->bundle.body.bytes > 0)
        memcpy((void *)(uintptr_t)op->bundle.body.to, op->bundle.body.src, op->bundle.body.bytes);
    if (op->kind == SIGNAL)
        __atomic_store_n((uint64_t *)(void *)to, *(const uint64_t *)(const void *)op->src,
                         __ATOMIC_RELEASE);
    else
        memcpy(to, op->src + op->n_done, bytes);
}

static void deliver(struct tt_provider_endpoint *e, struct tt_provider *target, struct op *op)
{
    size_t bytes = op->bytes - op->n_done;

    if (op->kind == PUT && bytes > 1 && chance(2))
        bytes /= 2; /* the rest another time */
    if (op->kind == PUT || op->kind == SIGNAL)
        copy(e, target, op, bytes);
    op->n_done += bytes;
    if (op->n_done < op->bytes)
        return;
    op->is_delivered = 1;
    t_fake_net.n_delivered++;
    for (int i = 0; i < e->n_ops; i++)
        t_fake_net.n_overtaken += !e->ops[i]->is_delivered && e->ops[i]->number < op->number;
}

/* What others have under way to this one: some of it, in any order. */
static void deliver_to(struct tt_provider *target)
{
    for (int r = 0; r < MOST_RANKS; r++) {
        for (struct tt_provider_endpoint *e = fabric[r] ? fabric[r]->endpoints : NULL; e;
             e = e->next) {
            for (int tries = 0; tries < 8 && e->n_ops > 0; tries++) {
                struct op *op = e->ops[chance((unsigned)e->n_ops)];

                if (e->rank != target->config.rank || op->is_delivered || e->is_broken ||
                    !may_go(e, op))
                    continue;
                deliver(e, target, op);
            }
        }
    }
}

/* One operation whose end may be told now; the lock is held. */
static struct op *take_done(struct tt_provider_endpoint *e, int *failed_out)
{
    const int i = e->n_ops > 0 ? (int)chance((unsigned)e->n_ops) : 0;
    struct op *op = e->n_ops > 0 ? e->ops[i] : NULL;

    if (!op || (!op->is_delivered && !e->is_broken) || (!e->is_broken && chance(3) == 0))
        return NULL;
    *failed_out = !op->is_delivered;
    e->bytes -= op->bytes;
    e->ops[i] = e->ops[--e->n_ops];
    return op;
}

static void complete(struct tt_provider_endpoint *e)
{
    for (int tries = 0; tries < 8; tries++) {
        struct op *op;
        int failed;

        pthread_mutex_lock(&lock);
        op = take_done(e, &failed);
        pthread_mutex_unlock(&lock);
        if (op)
            op->request->done(op->request, failed);
        free(op);
    }
    if (e->is_broken && !e->broken_is_told) {
        e->broken_is_told = 1;
        e->from->config.broken(e->from->config.context, e->rank, "the fake broke it");
    }
}

static int progress(struct tt_provider *p)
{
    pthread_mutex_lock(&lock);
    deliver_to(p);
    pthread_mutex_unlock(&lock);
    for (struct tt_provider_endpoint *e = p->endpoints; e; e = e->next)
        complete(e);
    return 1; /* whoever polls, goes on */
}

static int wake_fd(struct tt_provider *p)
{
    return p->fd;
}

static int arm(struct tt_provider *p)
{
    (void)p;
    return 1; /* there may always be something */
}

#define FAKE(orders, fence_of)                                                                     \
    {                                                                                              \
        .size = sizeof(struct tt_net_provider), .name = "fake", .fence_orders = (orders),          \
        .missing = missing, .describe = describe, .open = open_fake, .close = close_fake,          \
        .limits = limits, .address = address, .connect = connect_fake, .disconnect = disconnect,   \
        .expose = expose, .hide = hide, .pack_key = pack_key, .unpack_key = unpack_key,            \
        .drop_key = drop_key, .put = put, .fence = (fence_of), .signal = post_signal,              \
        .push = push, .flush = flush, .progress = progress, .fd = wake_fd, .arm = arm              \
    }

const struct tt_net_provider t_fake_provider = FAKE(1, fence);
const struct tt_net_provider t_fake_unordered = FAKE(0, no_fence);
