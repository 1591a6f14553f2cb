/* Creating a net among all ranks, and ending it. */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot.h"
#include "net/net_parts.h"

#define MS           UINT64_C(1000000)
#define HANDSHAKE_NS (200 * MS)  /* for handshakes under way, then */
#define NOTICE_NS    (2000 * MS) /* for the last notice: sent again and again, on a bad link */
#define PAUSE_NS     100000      /* between two looks */
#define LEAST_LOST   (2500 * MS) /* two probes, one of which may be lost */

/* First round: where everybody is. */
struct host_card {
    char host[64];
    unsigned char nonce[TT_NET_NONCE_BYTES];
    struct tt_net_subnet subnets[TT_NET_MAX_SUBNETS];
};

/* Second round: how to reach everybody. */
struct reach_card {
    uint32_t kind; /* of the address: TT_BOOT_IP4 or TT_BOOT_IP6 */
    uint32_t n_address;
    char text[64];
    struct tt_boot_endpoint where; /* of its watch */
    unsigned char address[TT_PROVIDER_MAX_ADDRESS];
};

_Static_assert(sizeof(struct reach_card) <= TT_NET_MAX_RECORD, "fits into a record");

/* ---- first round ---- */

static tutti_result read_settings(struct tt_net *net)
{
    uint64_t ms;

    TT_TRY(tt_env_number(TT_ENV_TUTTI_NET_LOST, &ms));
    net->lost_ns = ms * MS < net->timeout_ns / 2 ? ms * MS : net->timeout_ns / 2;
    if (net->lost_ns < LEAST_LOST)
        net->lost_ns = LEAST_LOST;
    net->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return net->abort_fd < 0 ? TT_FAIL_SYS("cannot make a wake-up for the network") : TUTTI_OK;
}

/* A key that is this net's alone: others of the same ranks may have been given the same one. */
static void make_key(const struct tt_net *net, const struct tt_net_config *config,
                     const struct host_card cards[], unsigned char key_out[32])
{
    static const char purpose[] = "tutti net";
    struct tt_hmac hmac;

    tt_hmac_begin(&hmac, config->key, 32);
    tt_hmac_add(&hmac, purpose, sizeof(purpose));
    for (int r = 0; r < net->n_ranks; r++)
        tt_hmac_add(&hmac, cards[r].nonce, sizeof(cards[r].nonce));
    tt_hmac_end(&hmac, key_out);
}

static tutti_result meet(struct tt_net *net, const struct tt_net_config *config, tutti_result ready,
                         struct tt_net_subnet *others, int *n_others_out, unsigned char key_out[32])
{
    struct host_card mine = {0}, *cards = calloc((size_t)net->n_ranks, sizeof(*cards));
    tutti_result result;
    int n = 0;

    if (!cards)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d hosts", net->n_ranks);
    if (gethostname(mine.host, sizeof(mine.host) - 1) != 0)
        snprintf(mine.host, sizeof(mine.host), "?");
    tt_net_subnets(mine.subnets);
    if (ready == TUTTI_OK)
        ready = tt_random_bytes(mine.nonce, sizeof(mine.nonce));
    result = tt_net_gather(net, config->exchange, ready, &mine, cards, sizeof(mine));
    for (int r = 0; r < net->n_ranks && result == TUTTI_OK; r++) {
        cards[r].host[sizeof(cards[r].host) - 1] = 0;
        snprintf(net->ranks[r].host, sizeof(net->ranks[r].host), "%s", cards[r].host);
        if (config->host_of[r] == config->host_of[net->rank])
            continue;
        memcpy(others + n, cards[r].subnets, sizeof(cards[r].subnets));
        n += TT_NET_MAX_SUBNETS;
    }
    if (result == TUTTI_OK)
        make_key(net, config, cards, key_out);
    free(cards);
    *n_others_out = n;
    return result;
}

/* ---- second round ---- */

/* Which of the ranks of its host this one is. */
static int turn_of(const struct tt_net_config *config)
{
    int n = 0;

    for (int r = 0; r < config->rank; r++)
        n += config->host_of[r] == config->host_of[config->rank];
    return n;
}

static tutti_result open_here(struct tt_net *net, const struct tt_net_config *config,
                              const struct tt_net_subnet *others, int n_others,
                              const unsigned char key[32], struct reach_card *card)
{
    struct tt_provider_config pc = {.rank = net->rank,
                                    .n_ranks = net->n_ranks,
                                    .devices = net->place.devices,
                                    .lost_ns = net->lost_ns,
                                    .polls = config->polls,
                                    .key = key,
                                    .refused = net->refused,
                                    .context = net,
                                    .broken = tt_net_broken,
                                    .arrived = tt_net_arrived};
    struct tt_watch_config wc = {.rank = net->rank,
                                 .n_ranks = net->n_ranks,
                                 .key = config->key,
                                 .lost_ns = net->lost_ns,
                                 .refused = net->refused,
                                 .events = tt_net_events(net)};
    const struct tt_net_near near = {.gpu = config->gpu, .turn = turn_of(config)};
    size_t n_address = 0;
    char text[400];

    TT_TRY(tt_net_choose(config->route, others, n_others, &near, &net->place));
    pc.family = net->place.address.kind == TT_BOOT_IP6 ? AF_INET6 : AF_INET;
    wc.address = net->place.address;
    TT_TRY(tt_watch_open(&wc, &net->watch));
    TT_TRY(net->ops->open(&pc, &net->provider));
    net->ops->limits(net->provider, &net->limits);
    TT_TRY(net->ops->address(net->provider, card->address, &n_address));
    card->n_address = (uint32_t)n_address;
    card->kind = (uint32_t)net->place.address.kind;
    memcpy(card->text, net->place.text, sizeof(card->text));
    tt_watch_where(net->watch, &card->where);
    net->ops->describe(text, sizeof(text));
    snprintf(net->details, sizeof(net->details), "%s, devices %s, address %s", text,
             net->place.devices, net->place.text);
    return TUTTI_OK;
}

static tutti_result take_card(struct tt_net *net, int rank, const struct reach_card *card)
{
    struct tt_net_rank *r = &net->ranks[rank];
    struct tt_boot_endpoint where = card->where;

    if (card->n_address > sizeof(card->address) || where.bytes > sizeof(where.address))
        return TT_FAIL(TUTTI_E_INTERNAL, "rank %d sent an address that is too long", rank);
    r->address = malloc(card->n_address);
    if (!r->address)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d addresses", net->n_ranks);
    memcpy(r->address, card->address, card->n_address);
    r->n_address = card->n_address;
    if (where.address.ss_family == AF_INET6) /* interfaces have other numbers there */
        ((struct sockaddr_in6 *)(void *)&where.address)->sin6_scope_id = net->place.address.scope;
    tt_watch_find(net->watch, rank, &where);
    return TUTTI_OK;
}

static tutti_result reach(struct tt_net *net, const struct tt_net_config *config,
                          const struct tt_net_subnet *others, int n_others,
                          const unsigned char key[32])
{
    struct reach_card mine = {0}, *cards = calloc((size_t)net->n_ranks, sizeof(*cards));
    tutti_result result;

    if (!cards)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d addresses", net->n_ranks);
    result = open_here(net, config, others, n_others, key, &mine);
    result = tt_net_gather(net, config->exchange, result, &mine, cards, sizeof(mine));
    for (int r = 1; r < net->n_ranks && result == TUTTI_OK; r++) {
        if (cards[r].kind == cards[0].kind)
            continue;
        cards[0].text[sizeof(cards[0].text) - 1] = 0;
        cards[r].text[sizeof(cards[r].text) - 1] = 0;
        result =
            TT_FAIL(TUTTI_E_UNSUPPORTED,
                    "rank 0 on %s would use %s, but rank %d on %s would use %s: name one network "
                    "of both in TUTTI_NET_DEVICES",
                    net->ranks[0].host, cards[0].text, r, net->ranks[r].host, cards[r].text);
    }
    for (int r = 0; r < net->n_ranks && result == TUTTI_OK; r++)
        result = take_card(net, r, &cards[r]);
    free(cards);
    return result;
}

/* ---- creation ---- */

static void free_net(struct tt_net *net)
{
    for (int i = 0; i < net->n_used; i++)
        tt_net_unwire(net->used[i]);
    while (net->regions) {
        struct tt_net_region *region = net->regions;

        net->regions = region->next;
        tt_net_region_free(region);
    }
    for (int i = 0; i < net->n_used; i++)
        tt_net_endpoint_free(net->used[i]);
    if (net->provider)
        net->ops->close(net->provider);
    tt_watch_close(net->watch);
    for (int r = 0; net->ranks && r < net->n_ranks; r++)
        free(net->ranks[r].address);
    if (net->abort_fd >= 0)
        close(net->abort_fd);
    free(net->ranks);
    free(net->used);
    free(net);
}

static tutti_result create(struct tt_net *net, const struct tt_net_config *config,
                           const char *missing)
{
    const size_t n = (size_t)net->n_ranks;
    struct tt_net_subnet *others = calloc(n * TT_NET_MAX_SUBNETS, sizeof(*others));
    unsigned char key[32];
    tutti_result result;
    int n_others = 0;

    net->ranks = calloc(n, sizeof(*net->ranks));
    net->used = calloc(n, sizeof(struct tt_net_endpoint *));
    if (!others || !net->ranks || !net->used) {
        free(others);
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a network of %d ranks", net->n_ranks);
    }
    if (!net->ops || *missing)
        result = TT_FAIL(TUTTI_E_UNSUPPORTED, "%s", missing);
    else
        result = read_settings(net);
    result = meet(net, config, result, others, &n_others, key);
    if (result == TUTTI_OK)
        result = reach(net, config, others, n_others, key);
    explicit_bzero(key, sizeof(key));
    free(others);
    return result;
}

tutti_result tt_net_create_with(const struct tt_net_config *config,
                                const struct tt_net_provider *provider, const char *missing,
                                struct tt_net **net_out)
{
    struct tt_net *net = calloc(1, sizeof(*net));
    tutti_result result;

    if (!net)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a network");
    net->rank = config->rank;
    net->n_ranks = config->n_ranks;
    net->timeout_ns = config->timeout_ns;
    net->ops = provider;
    net->abort_fd = -1;
    net->refused = config->refused ? config->refused : &net->own_refused;
    net->news.lost_rank = -1;
    result = create(net, config, missing);
    if (result != TUTTI_OK) {
        free_net(net);
        return result;
    }
    TT_LOG(TUTTI_LOG_INFO, net->rank, net->n_ranks, "network: %s", net->details);
    *net_out = net;
    return TUTTI_OK;
}

tutti_result tt_net_create(const struct tt_net_config *config, struct tt_net **net_out)
{
    const char *missing = tt_net_missing();

    return tt_net_create_with(config, tt_provider_default(), missing, net_out);
}

uint64_t tt_net_bundle_bytes(const struct tt_net *net)
{
    return net->limits.bundle_bytes;
}

const char *tt_net_details(const struct tt_net *net)
{
    return net->details;
}

/* ---- the end ---- */

/* A peer that sends something to a closed connection resets it, and then a notice that was lost on its way is
 * not sent again: it would look like a death. */
static void tell_leaving(struct tt_net *net)
{
    const uint64_t end = tt_now_ns() + NOTICE_NS;

    tt_watch_tell(net->watch, TT_NOTICE_LEFT, 0);
    while (!tt_watch_is_told(net->watch) && tt_now_ns() < end) {
        const struct timespec pause = {.tv_nsec = PAUSE_NS};

        nanosleep(&pause, NULL);
        (void)tt_watch_poll(net->watch);
    }
}

/* What was posted arrives, and who begins to watch us just now hears that we leave and do not die. Nothing
 * more is let in than that takes: our memory may be in other hands already. */
static void say_farewell(struct tt_net *net)
{
    uint64_t now;

    tt_net_flush(net);
    now = tt_now_ns();
    for (tt_net_look(net); net->is_shaking_hands && tt_now_ns() - now < HANDSHAKE_NS;
         tt_net_look(net)) {
        struct pollfd watch = {.fd = tt_watch_fd(net->watch), .events = POLLIN};

        (void)poll(&watch, 1, 1);
    }
    if (tt_net_check(net) == TUTTI_OK)
        tell_leaving(net);
}

void tt_net_destroy(struct tt_net *net)
{
    if (!net)
        return;
    if (tt_net_check(net) == TUTTI_OK)
        say_farewell(net);
    if (atomic_load(&net->is_aborted))
        tt_net_reach(net);
    else if (net->failed != TUTTI_OK)
        tt_watch_tell(net->watch, TT_NOTICE_LOST, net->rank);
    free_net(net);
}
