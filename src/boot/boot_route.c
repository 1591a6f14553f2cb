/* Which of this host's addresses the rendezvous works over. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "boot/boot_parts.h"

typedef int (*name_fn)(int fd, struct sockaddr *name, socklen_t *bytes);

static int address_of(int fd, name_fn name_of, struct tt_boot_address *out)
{
    struct sockaddr_storage name;
    socklen_t bytes = sizeof(name);

    memset(out, 0, sizeof(*out));
    memset(&name, 0, sizeof(name));
    if (fd < 0 || name_of(fd, (struct sockaddr *)&name, &bytes) != 0)
        return -1;
    if (name.ss_family == AF_INET) {
        out->kind = TT_BOOT_IP4;
        memcpy(out->ip, &((const struct sockaddr_in *)(const void *)&name)->sin_addr, 4);
        return 0;
    }
    if (name.ss_family != AF_INET6)
        return -1;

    const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)&name;

    out->kind = TT_BOOT_IP6;
    out->scope = in->sin6_scope_id;
    memcpy(out->ip, &in->sin6_addr, 16);
    if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) { /* rank 0 listens for both families at once */
        memset(out, 0, sizeof(*out));
        out->kind = TT_BOOT_IP4;
        memcpy(out->ip, in->sin6_addr.s6_addr + 12, 4);
    }
    return 0;
}

/* As tt_boot_route(), of one connection. A process that connects to an address of its own host comes from
 * that very address, whichever interface has it. */
static int route_of(int fd, struct tt_boot_address *out)
{
    struct tt_boot_address peer;

    if (address_of(fd, getsockname, out) != 0)
        return -1;
    if (address_of(fd, getpeername, &peer) != 0)
        return 0;
    return memcmp(out->ip, peer.ip, sizeof(peer.ip)) != 0;
}

int tt_boot_route(const struct tt_boot *boot, struct tt_boot_address *address_out)
{
    int best = -1;

    if (boot->rank > 0)
        return route_of(boot->fd, address_out);
    for (int r = 1; r < boot->n_ranks && best < 1; r++) {
        struct tt_boot_address a;
        const int found = route_of(boot->peers[r].fd, &a);

        if (found <= best)
            continue;
        *address_out = a;
        best = found;
    }
    return best;
}
