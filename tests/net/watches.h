/* For the tests of the watch: watches in one process, polled by hand, and what each has heard. */
#ifndef TUTTI_TESTS_NET_WATCHES_H
#define TUTTI_TESTS_NET_WATCHES_H

#include "base/clock.h"
#include "net/watch.h"
#include "net/watch_wire.h"
#include "support/t.h"

#define MS   UINT64_C(1000000)
#define LOST (5000 * MS)

static const unsigned char key[32] __attribute__((unused)) = "the key of the ranks";

struct told {
    int n_lost, n_gone, n_abort, n_left, n_about;
    int last;
    _Atomic uint64_t n_refused;
    char why[200];
};

static inline void on_lost(void *context, int rank, const char *why)
{
    struct told *told = context;

    told->n_lost++;
    told->last = rank;
    snprintf(told->why, sizeof(told->why), "%s", why);
}

static inline void on_gone(void *context, int rank)
{
    ((struct told *)context)->n_gone++;
    ((struct told *)context)->last = rank;
}

static inline void on_notice(void *context, int from, const struct tt_notice *notice)
{
    struct told *told = context;

    told->last = from;
    told->n_abort += notice->kind == TT_NOTICE_ABORT;
    told->n_left += notice->kind == TT_NOTICE_LEFT;
    told->n_about += notice->kind == TT_NOTICE_LOST;
}

static inline struct tt_watch *open_watch_at(struct tt_boot_address address, uint64_t lost_ns,
                                             int rank, const unsigned char *with, struct told *told,
                                             struct tt_boot_endpoint *where_out)
{
    const struct tt_watch_config config = {
        .rank = rank,
        .n_ranks = 4,
        .key = with,
        .address = address,
        .lost_ns = lost_ns,
        .refused = &told->n_refused,
        .events = {.context = told, .lost = on_lost, .gone = on_gone, .notice = on_notice}};
    struct tt_watch *watch = NULL;

    T_OK(tt_watch_open(&config, &watch));
    tt_watch_where(watch, where_out);
    return watch;
}

static inline struct tt_watch *open_watch(int rank, const unsigned char *with, struct told *told,
                                          struct tt_boot_endpoint *where_out)
{
    const struct tt_boot_address address = {.kind = TT_BOOT_IP4, .ip = {127, 0, 0, 1}};

    return open_watch_at(address, LOST, rank, with, told, where_out);
}

static inline void poll_for(struct tt_watch *a, struct tt_watch *b, unsigned ms)
{
    const uint64_t end = tt_now_ns() + (uint64_t)ms * MS;

    while (tt_now_ns() < end) {
        tt_watch_poll(a);
        if (b)
            tt_watch_poll(b);
    }
}

static inline int both_ready(struct tt_watch *a, int rank_of_b, struct tt_watch *b, int rank_of_a)
{
    const uint64_t end = tt_now_ns() + 3000 * MS * t_scale();

    while (tt_now_ns() < end) {
        tt_watch_poll(a);
        tt_watch_poll(b);
        if (tt_watch_is_ready(a, rank_of_b) && tt_watch_is_ready(b, rank_of_a))
            return 1;
    }
    return 0;
}

#endif
