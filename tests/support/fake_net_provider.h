/*
 * A network provider between threads of one process that is as unkind as the rules of src/net/provider.h
 * allow: puts arrive in any order within the fences, in halves, only while their target progresses; the
 * source is read late; completions come later still; posting is refused now and then. It can also break a
 * fence, or an endpoint, and it finds out who touches memory that is not registered.
 */
#ifndef TUTTI_TESTS_FAKE_NET_PROVIDER_H
#define TUTTI_TESTS_FAKE_NET_PROVIDER_H

#include "net/provider.h"

extern const struct tt_net_provider t_fake_provider;  /* fence() orders */
extern const struct tt_net_provider t_fake_unordered; /* only flush() does; fence() is an error */

/* Set before the nets are made; the counts are read when they are gone. */
struct t_fake_net {
    uint64_t seed;
    int loses_fences;      /* for the negative control */
    unsigned busy_percent; /* of attempts to post that are refused */
    uint64_t break_after;  /* operations, then an endpoint breaks; 0: never */
    int fails_open_of;     /* rank whose open() fails, plus 1 */
    /* counts */
    uint64_t n_delivered, n_overtaken, n_refused, n_bundled, n_heads;
    uint64_t n_wrong; /* accesses to memory that was not, or no longer, registered */
    uint64_t most_requests, most_bytes; /* under way on one endpoint */
};
extern struct t_fake_net t_fake_net;

void t_fake_net_reset(uint64_t seed);

#endif
