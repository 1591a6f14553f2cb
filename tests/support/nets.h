/* Networks among the ranks of a job, as the layer above makes them. */
#ifndef TUTTI_TESTS_NETS_H
#define TUTTI_TESTS_NETS_H

#include "boot/boot.h"
#include "net/net.h"
#include "net/provider.h"
#include "support/job.h"

/* The job's all-gather. */
struct tt_exchange t_net_exchange(struct t_rank *t);

/* A net of all ranks, each on a host of its own. NULL provider: the real one, or the test is skipped
 * saying why there is none. */
struct tt_net *t_net_new(struct t_rank *t, const struct tt_net_provider *provider,
                         uint64_t timeout_ms);

/* The same, and whatever comes of it. */
tutti_result t_net_try(struct t_rank *t, const struct tt_net_provider *provider,
                       uint64_t timeout_ms, struct tt_net **net_out);

/* A net of all ranks with memory that each offers to the others. */
struct t_net_world {
    struct tt_net *net;
    struct tt_net_region *region;
    unsigned char *mine;
    size_t bytes;
};
struct t_net_world t_net_begin(struct t_rank *t, size_t bytes, uint64_t timeout_ms);
void t_net_end(struct t_net_world *w);

/* Progress until the word at `flag` is at least `value`; fails after `limit_s`. */
void t_net_wait(struct tt_net *net, const void *flag, uint64_t value, unsigned limit_s);
/* The same; returns what ended it. TUTTI_E_TIMEOUT: the limit. */
tutti_result t_net_wait_result(struct tt_net *net, int peer, const void *flag, uint64_t value,
                               unsigned limit_s);

/* Bytes that tell where they belong. */
void t_net_fill(void *at, size_t bytes, uint64_t seed);
/* The offset of the first byte that is wrong, or `bytes`. */
size_t t_net_find_wrong(const void *at, size_t bytes, uint64_t seed);

#endif
