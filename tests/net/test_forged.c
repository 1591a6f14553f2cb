/* Whoever reaches UCX's port can send messages that look like our puts: nothing of them is believed that does not
 * carry a rank's token, has come before, is malformed, or means memory that was not offered. All are counted. */
/* ctest: timeout=120 no-tsan */
/* ctest: timeout=120 no-tsan as=rma args=rma */
#include <netinet/in.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "support/nets.h"

#ifdef TUTTI_HAVE_UCX
#include "net/net_parts.h"
#include "net/ucx_parts.h"

#define MIB        ((size_t)1 << 20)
#define BYTES      (2 * MIB)
#define MARK_AT    (BYTES - 4096) /* a word by which who sends says how far it is */
#define TIMEOUT    20000
#define WAIT_S     20
#define MESSAGE_ID 1 /* as ucx_message.c has it */

static unsigned char not_offered[4096]; /* at the same address in all ranks */

/* ---- a process that is none of the ranks, to UCX: a context of its own ---- */

struct stranger {
    const struct tt_ucx *ucx;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
};

static struct stranger stranger_new(const struct tt_net *net, int target)
{
    const char *why;
    struct stranger s = {.ucx = tt_ucx_get(&why)};
    const struct tt_provider_config like = {
        .devices = net->place.devices,
        .family = net->place.address.kind == TT_BOOT_IP6 ? AF_INET6 : AF_INET,
        .lost_ns = net->lost_ns};
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                                 .features = UCP_FEATURE_RMA | UCP_FEATURE_AM};
    const ucp_worker_params_t single = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    const ucp_ep_params_t to = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                              UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE,
                                .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                                .address = (const ucp_address_t *)net->ranks[target].address};
    ucp_config_t *settings;

    T_CHECK(s.ucx->ucp_config_read(NULL, NULL, &settings) == UCS_OK, "settings");
    T_OK(tt_ucx_configure(s.ucx, &like, settings));
    T_CHECK(s.ucx->ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, settings, &s.context) ==
                    UCS_OK &&
                s.ucx->ucp_worker_create(s.context, &single, &s.worker) == UCS_OK &&
                s.ucx->ucp_ep_create(s.worker, &to, &s.ep) == UCS_OK,
            "a stranger has no way to rank %d", target);
    s.ucx->ucp_config_release(settings);
    return s;
}

static void stranger_wait(const struct stranger *s, void *request, const char *what)
{
    const uint64_t end = tt_now_ns() + (uint64_t)WAIT_S * t_scale() * 1000000000u;

    T_CHECK(!UCS_PTR_IS_ERR(request), "UCX: %s",
            s->ucx->ucs_status_string(UCS_PTR_STATUS(request)));
    if (!request)
        return;
    while (s->ucx->ucp_request_check_status(request) == UCS_INPROGRESS && tt_now_ns() < end)
        s->ucx->ucp_worker_progress(s->worker);
    T_CHECK(s->ucx->ucp_request_check_status(request) != UCS_INPROGRESS, "%s is never sent", what);
    s->ucx->ucp_request_free(request);
}

struct message {
    struct tt_put_header header;
    unsigned char head[256]; /* right behind it */
    size_t n_header, n_data;
    int by_rendezvous;
};

static void stranger_send(const struct stranger *s, const struct message *m, const char *what)
{
    static unsigned char data[BYTES];
    const ucp_request_param_t how = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                     .flags = m->by_rendezvous ? UCP_AM_SEND_FLAG_RNDV
                                                               : UCP_AM_SEND_FLAG_EAGER};

    memset(data, 0xee, m->n_data);
    stranger_wait(
        s,
        s->ucx->ucp_am_send_nbx(s->ep, MESSAGE_ID, &m->header, m->n_header, data, m->n_data, &how),
        what);
}

static void stranger_end(struct stranger *s)
{
    const ucp_request_param_t how = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                     .flags = UCP_EP_CLOSE_FLAG_FORCE};

    stranger_wait(s, s->ucx->ucp_ep_close_nbx(s->ep, &how), "the end");
    s->ucx->ucp_worker_destroy(s->worker);
    s->ucx->ucp_cleanup(s->context);
}

/* ---- what it sends ---- */

/* A message that is as good as one of rank 1's: from there to rank 0, to the beginning of its memory. */
static struct message good(const struct tt_net *net, uint64_t base, uint64_t serial)
{
    struct message m = {.header = {.serial = serial,
                                   .from = 1,
                                   .kind = TT_PUT_WRITE,
                                   .has_word = 1,
                                   .head_bytes = 16,
                                   .head_to = base + 256,
                                   .to = base,
                                   .word_to = base + 512,
                                   .word = 7},
                        .n_header = sizeof(m.header) + 16,
                        .n_data = 64};

    memcpy(m.header.token, net->provider->peers[0].token_out, sizeof(m.header.token));
    memset(m.head, 0xdd, sizeof(m.head));
    return m;
}

enum { N_SPOILED = 31, REPLAYED_SERIAL = 500 };

/* The i'th of N_SPOILED ways in which that is none. */
static const char *spoil(int i, struct message *m, const struct tt_net *net, uint64_t base)
{
    struct tt_put_header *h = &m->header;

    switch (i) {
    case 0: memset(h->token, 0, sizeof(h->token)); return "no token";
    case 1: h->token[15] ^= 1; return "a token with a wrong bit";
    case 2: h->token[0] ^= 0x80; return "a token with another wrong bit";
    case 3: memset(h->token, 0xa5, sizeof(h->token)); return "a token that was made up";
    case 4:
        memcpy(h->token, net->provider->peers[0].token_in, sizeof(h->token));
        return "the token of the other direction";
    case 5: h->from = 0; return "the target's own rank";
    case 6: h->from = 2; return "a rank that there is not";
    case 7: h->from = UINT32_MAX; return "the last rank that can be said";
    case 8: m->n_header = 0; return "no header";
    case 9: m->n_header = sizeof(*h) - 1; return "a header that ends too soon";
    case 10: m->n_header = sizeof(*h); return "a small put that is not there";
    case 11: m->n_header += 1; return "more behind the header than it says";
    case 12:
        h->head_bytes = TT_PUT_MOST_HEAD + 1;
        m->n_header = sizeof(*h) + h->head_bytes;
        return "a small put that is large";
    case 13: h->head_bytes = UINT16_MAX; return "a small put of 64 KiB";
    case 14: h->kind = 0; return "kind 0";
    case 15: h->kind = 5; return "kind 5";
    case 16: h->kind = 255; return "kind 255";
    case 17: h->has_word = 2; return "two words";
    case 18: m->n_data = TT_PUT_MOST_DATA + 1; return "more data than a piece has";
    case 19: m->n_data = MIB; return "data in many pieces";
    case 20: m->by_rendezvous = 1; return "data that is to be fetched";
    case 21: h->to = base - 8; return "data that begins before the memory";
    case 22: h->to = base + BYTES - 8; return "data that ends behind it";
    case 23: h->to = UINT64_MAX - 8; return "data around the end of all memory";
    case 24: h->to = (uint64_t)(uintptr_t)not_offered; return "data for other memory";
    case 25: h->word_to = base + 513; return "a word between two";
    case 26: h->word_to = (uint64_t)(uintptr_t)not_offered; return "a word of other memory";
    case 27: h->head_to = base + BYTES - 15; return "a small put that ends behind the memory";
    case 28: h->serial = 0; return "no serial";
    case 29: h->serial = REPLAYED_SERIAL; return "one that has come before";
    default: h->kind = TT_PUT_FLUSH; return "a flush with data";
    }
}

static uint64_t n_refused(const struct tt_net *net)
{
    return atomic_load(net->refused);
}

/* What `m` says, as rank 0 sees it: every byte of it is there, or none. */
static void check_bytes(const unsigned char *mine, int is_there, const char *what)
{
    uint64_t word;

    memcpy(&word, mine + 512, sizeof(word));
    T_CHECK(mine[0] == (is_there ? 0xee : 0) && mine[63] == mine[0] &&
                mine[256] == (is_there ? 0xdd : 0) && word == (is_there ? 7u : 0u),
            "%s: data %02x, small put %02x, word %llu", what, mine[0], mine[256],
            (unsigned long long)word);
}

/* Then rank 0 knows that it has seen everything before; until it says so, in memory that both share. */
static void send_mark(struct t_rank *t, const struct stranger *s, const struct tt_net *net,
                      uint64_t base, uint64_t number)
{
    const _Atomic uint64_t *seen = (_Atomic uint64_t *)(void *)t->shared;
    struct message m = {.header = {.serial = REPLAYED_SERIAL + 1 + number,
                                   .from = 1,
                                   .kind = TT_PUT_WRITE,
                                   .has_word = 1,
                                   .word_to = base + MARK_AT,
                                   .word = number},
                        .n_header = sizeof(m.header)};

    memcpy(m.header.token, net->provider->peers[0].token_out, sizeof(m.header.token));
    stranger_send(s, &m, "a mark");
    while (tt_load_acquire(seen) < number) /* the job has a deadline */
        s->ucx->ucp_worker_progress(s->worker);
}

static void send_spoiled(struct t_rank *t, struct t_net_world *w, uint64_t base)
{
    struct stranger s = stranger_new(w->net, 0);
    struct message m = good(w->net, base, REPLAYED_SERIAL);

    stranger_send(&s, &m, "the control"); /* it is believed */
    send_mark(t, &s, w->net, base, 1);
    for (int i = 0; i < N_SPOILED; i++) {
        const char *what;

        m = good(w->net, base, (uint64_t)(REPLAYED_SERIAL + 100 + i));
        what = spoil(i, &m, w->net, base);
        stranger_send(&s, &m, what);
        send_mark(t, &s, w->net, base, (uint64_t)(i + 2));
    }
    stranger_end(&s);
}

static void spoiled(struct t_rank *t)
{
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    const uint64_t base = w.region->parts[0].base;
    _Atomic uint64_t *seen = (_Atomic uint64_t *)(void *)t->shared;

    if (t->rank == 1) {
        send_spoiled(t, &w, base);
    } else {
        t_net_wait(w.net, w.mine + MARK_AT, 1, WAIT_S);
        check_bytes(w.mine, 1, "the control");
        T_CHECK(n_refused(w.net) == 0, "the control was refused");
        memset(w.mine, 0, MARK_AT);
        tt_store_release(seen, 1);
        for (int i = 0; i < N_SPOILED; i++) {
            struct message m = {.n_data = 0};
            const char *what = spoil(i, &m, w.net, base);

            t_net_wait(w.net, w.mine + MARK_AT, (uint64_t)(i + 2), WAIT_S);
            check_bytes(w.mine, 0, what);
            T_CHECK(not_offered[0] == 0, "%s: memory that was not offered is written to", what);
            T_CHECK(n_refused(w.net) == (uint64_t)i + 1, "%s: %llu refused, not %d", what,
                    (unsigned long long)n_refused(w.net), i + 1);
            tt_store_release(seen, (uint64_t)(i + 2));
        }
        for (size_t k = 0; k < MARK_AT; k++)
            T_CHECK(w.mine[k] == 0, "byte %zu is written", k);
    }
    t_meet(t);
    /* Who is in order is heard all the same. */
    T_OK(tt_net_signal(w.net, 1 - t->rank, w.region, MARK_AT + 8, 9));
    t_net_wait(w.net, w.mine + MARK_AT + 8, 9, WAIT_S);
    t_net_end(&w);
}

/* A flush ends when the rank that was asked has answered, whoever else says that it has. */
static void flushed(struct t_rank *t)
{
    enum { SERIALS = 16 };
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    struct tt_net_endpoint *e;

    T_OK(tt_net_signal(w.net, 1 - t->rank, w.region, 0, 1));
    t_net_wait(w.net, w.mine, 1, WAIT_S);
    while (!tt_net_has_left(w.net, 1 - t->rank, 1)) /* the job has a deadline */
        T_OK(tt_net_progress(w.net));
    T_OK(tt_net_endpoint(w.net, 1 - t->rank, &e));
    t_meet(t); /* from here on rank 1 answers nothing */
    if (t->rank == 0) {
        T_OK(tt_net_signal(w.net, 1, w.region, 0, 2));
        while (!tt_net_is_flushed(e) && e->flush != TT_NET_FLUSHING)
            T_OK(tt_net_progress(w.net));
        t_meet(t);
        while (n_refused(w.net) < 2 * SERIALS)
            T_OK(tt_net_progress(w.net));
        T_CHECK(e->flush == TT_NET_FLUSHING, "what a stranger says ends a flush");
        t_meet(t);
        while (e->flush != TT_NET_FLUSHED)
            T_OK(tt_net_progress(w.net));
        T_CHECK(n_refused(w.net) == 2 * SERIALS, "the answer is refused");
    } else {
        struct stranger s = stranger_new(w.net, 0);

        t_meet(t);
        for (uint64_t serial = 0; serial < 2 * SERIALS; serial++) {
            struct message m = {.header = {.from = 1, .kind = TT_PUT_FLUSHED, .word = serial},
                                .n_header = sizeof(m.header)};

            /* Any that it may have asked, without the token; and what it has not asked, with it. */
            if (serial >= SERIALS)
                memcpy(m.header.token, w.net->provider->peers[0].token_out, TT_PUT_TOKEN_BYTES);
            stranger_send(&s, &m, "an answer");
        }
        t_meet(t);
        t_net_wait(w.net, w.mine, 2, WAIT_S);
        stranger_end(&s);
    }
    t_net_end(&w);
}

/* Bytes that mean nothing. */
static void noise(struct t_rank *t)
{
    enum { N = 2000 };
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    struct t_rng rng = {.state = 11};

    if (t->rank == 1) {
        struct stranger s = stranger_new(w.net, 0);

        for (int i = 0; i < N; i++) {
            struct message m = {.n_header = t_random_below(&rng, sizeof(m.header) + 200),
                                .n_data = t_random_below(&rng, 5000)};

            for (size_t k = 0; k < m.n_header; k++)
                ((unsigned char *)&m.header)[k] = (unsigned char)t_random(&rng);
            stranger_send(&s, &m, "a message");
        }
        t_meet(t);
        stranger_end(&s);
    } else {
        const uint64_t end = tt_now_ns() + (uint64_t)WAIT_S * t_scale() * 1000000000u;

        while (n_refused(w.net) < N && tt_now_ns() < end)
            T_OK(tt_net_progress(w.net));
        T_CHECK(n_refused(w.net) == N, "%llu of %d refused", (unsigned long long)n_refused(w.net),
                N);
        for (size_t k = 0; k < BYTES; k++)
            T_CHECK(w.mine[k] == 0, "byte %zu is written", k);
        t_meet(t);
    }
    t_net_end(&w);
}

static void test_spoiled(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = spoiled};

    (void)state;
    t_run(&job);
}

static void test_flushed(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = flushed};
    const char *puts_by = getenv("TUTTI_NET_PUTS");

    (void)state;
    if (puts_by && strcmp(puts_by, "rma") == 0)
        skip(); /* flushes are UCX's own there */
    t_run(&job);
}

static void test_noise(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = noise};

    (void)state;
    t_run(&job);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spoiled),
        cmocka_unit_test(test_flushed),
        cmocka_unit_test(test_noise),
    };

    if (argc > 1) /* "rma": where puts are UCX's own, messages are listened to all the same */
        setenv("TUTTI_NET_PUTS", argv[1], 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    printf("skipped: %s\n", tt_net_missing());
    return 77;
}
#endif
