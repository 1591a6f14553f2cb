/* Which of this host's addresses and devices the network uses: one network, never all there are. */
#ifndef TT_NET_INTERFACE_H
#define TT_NET_INTERFACE_H

#include <net/if.h>

#include "boot/boot_address.h"

#define TT_NET_DEVICES_BYTES 512
#define TT_NET_MAX_SUBNETS   8

/* An address of a host and how many of its leading bits name the network. */
struct tt_net_subnet {
    uint8_t kind; /* TT_BOOT_IP4, TT_BOOT_IP6; 0: none */
    uint8_t bits;
    unsigned char ip[16];
};

struct tt_net_place {
    char devices[TT_NET_DEVICES_BYTES]; /* for the provider: "eth0,mlx5_0:1" */
    char interface[IF_NAMESIZE];
    struct tt_boot_address address;
    char text[64]; /* of the address */
};

/* Whose RDMA port is looked for: topo/rails.h. */
struct tt_net_near {
    const char *gpu;
    int turn;
};

/* Addresses that another host may know this one by, in order of preference; loopback is none. */
int tt_net_subnets(struct tt_net_subnet out[TT_NET_MAX_SUBNETS]);

/* Choose: TUTTI_NET_DEVICES; else the interface of `route` (an address of this host; NULL or loopback
 * say nothing); else one in a network that an address of `others` is in too; else the one that leads to
 * the first of them; and the nearest RDMA port that is active. Loopback without others. TUTTI_E_ARG for a
 * device that is not there or an address that is public. */
tutti_result tt_net_choose(const struct tt_boot_address *route, const struct tt_net_subnet others[],
                           int n_others, const struct tt_net_near *near, struct tt_net_place *out);

/* Can the whole Internet address it? Pure. */
int tt_net_is_public(enum tt_boot_kind kind, const unsigned char *ip);

/* Whether both are in the network of `mine`. Pure. */
int tt_net_same_subnet(const struct tt_net_subnet *mine, const struct tt_net_subnet *theirs);

/* All devices of this host, with commas between them; RDMA ports have a colon. */
void tt_net_list_devices(char *out, size_t bytes);

#endif
