#include "support/nets.h"

#include <sys/mman.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "net/net_parts.h"

static const unsigned char key[32] = "a key of the ranks of this test";

static tutti_result gather(void *context, const void *send, void *recv, size_t bytes)
{
    return t_exchange(context, send, recv, bytes) == 0 ? TUTTI_OK
                                                       : TT_FAIL(TUTTI_E_SYSTEM, "no exchange");
}

struct tt_exchange t_net_exchange(struct t_rank *t)
{
    return (struct tt_exchange){.rank = t->rank,
                                .n_ranks = t->n_ranks,
                                .all_gather = gather,
                                .context = t,
                                .deadline_ns = tt_now_ns() + UINT64_C(30000000000)};
}

tutti_result t_net_try(struct t_rank *t, const struct tt_net_provider *provider,
                       uint64_t timeout_ms, struct tt_net **net_out)
{
    const struct tt_exchange x = t_net_exchange(t);
    int host_of[T_MAX_RANKS];
    const struct tt_net_config config = {.rank = t->rank,
                                         .n_ranks = t->n_ranks,
                                         .host_of = host_of,
                                         .timeout_ns = timeout_ms * 1000000,
                                         .key = key,
                                         .exchange = &x};

    for (int r = 0; r < t->n_ranks; r++)
        host_of[r] = r;
    return provider ? tt_net_create_with(&config, provider, "", net_out)
                    : tt_net_create(&config, net_out);
}

struct tt_net *t_net_new(struct t_rank *t, const struct tt_net_provider *provider,
                         uint64_t timeout_ms)
{
    struct tt_net *net = NULL;

    if (!provider && *tt_net_missing())
        t_skip("%s", tt_net_missing());
    T_OK(t_net_try(t, provider, timeout_ms, &net));
    return net;
}

struct t_net_world t_net_begin(struct t_rank *t, size_t bytes, uint64_t timeout_ms)
{
    const struct tt_exchange x = t_net_exchange(t);
    struct t_net_world w = {.net = t_net_new(t, NULL, timeout_ms), .bytes = bytes};

    w.mine = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_CHECK(w.mine != MAP_FAILED, "no memory");
    T_OK(tt_net_expose(w.net, &x, w.mine, bytes, &w.region));
    return w;
}

void t_net_end(struct t_net_world *w)
{
    tt_net_hide(w->region);
    tt_net_destroy(w->net);
    munmap(w->mine, w->bytes);
}

tutti_result t_net_wait_result(struct tt_net *net, int peer, const void *flag, uint64_t value,
                               unsigned limit_s)
{
    const uint64_t end = tt_now_ns() + (uint64_t)limit_s * t_scale() * 1000000000u;
    const _Atomic uint64_t *word = flag;

    while (tt_load_acquire(word) < value) {
        tutti_result result = tt_net_progress(net);

        if (result == TUTTI_OK && peer >= 0)
            result = tt_net_check_peer(net, peer);
        if (result != TUTTI_OK)
            return tt_load_acquire(word) < value ? result : TUTTI_OK;
        if (tt_now_ns() > end)
            return TT_FAIL(TUTTI_E_TIMEOUT, "waited %u s for %llu, and it is %llu", limit_s,
                           (unsigned long long)value, (unsigned long long)tt_load_acquire(word));
    }
    return TUTTI_OK;
}

void t_net_wait(struct tt_net *net, const void *flag, uint64_t value, unsigned limit_s)
{
    T_OK(t_net_wait_result(net, -1, flag, value, limit_s));
}

static unsigned char byte_at(size_t i, uint64_t seed)
{
    return (unsigned char)((i >> 12) * 31 + i * 7 + seed * 13 + 1);
}

void t_net_fill(void *at, size_t bytes, uint64_t seed)
{
    unsigned char *p = at;

    for (size_t i = 0; i < bytes; i++)
        p[i] = byte_at(i, seed);
}

size_t t_net_find_wrong(const void *at, size_t bytes, uint64_t seed)
{
    const unsigned char *p = at;
    size_t i = 0;

    while (i < bytes && p[i] == byte_at(i, seed))
        i++;
    return i;
}
