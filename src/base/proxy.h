/*
 * A thread of the library's own that moves something along: it polls while there is work, spins for a
 * while after, then naps, the longer the longer there was none. Whoever has work for it kicks it; work
 * that comes from where nobody can kick (a GPU, the network) waits for the end of a nap, which is a
 * sixteenth of the time since there was work last, and TT_PROXY_NAP_NS at most.
 */
#ifndef TT_BASE_PROXY_H
#define TT_BASE_PROXY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define TT_PROXY_NAP_NS UINT64_C(4000000) /* the longest nap */

struct tt_proxy;

struct tt_proxy_config {
    const char *name; /* of the thread: "tutti-port-0"; 15 bytes are shown */
    /* On the proxy's thread, again and again: 1 if something was done. It must not wait, or stopping
     * does; a failure it keeps for others to find. */
    int (*poll)(void *context);
    void *context;
    uint64_t nap_ns; /* of every nap; 0: as above. Long ones suit who has all work kicked */
    const unsigned long *cpus; /* affinity (the bits of a cpu_set_t), or NULL: as the caller */
    size_t cpus_bytes;
};

tutti_result tt_proxy_start(const struct tt_proxy_config *config, struct tt_proxy **proxy_out);

/* Any thread, after the work can be found: wakes the proxy if it naps. Costs a load when it is awake. */
void tt_proxy_kick(struct tt_proxy *proxy);

/* How many proxies each of so many ranks on this machine may keep busy: a core for each of them and as many again
 * for the program; at least one, and at most `most`. */
uint32_t tt_proxy_share(int n_ranks, uint32_t most);

/* poll is not called any more when this returns. Not from poll itself. NULL is fine. */
void tt_proxy_stop(struct tt_proxy *proxy);

#endif
