/* Which of this host's addresses the rendezvous works over. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "boot/boot_parts.h"

static int address_of(int fd, struct tt_boot_address *out)
{
    struct sockaddr_storage name;
    socklen_t bytes = sizeof(name);

    memset(out, 0, sizeof(*out));
    memset(&name, 0, sizeof(name));
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&name, &bytes) != 0)
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

static int is_loopback(const struct tt_boot_address *a)
{
    static const unsigned char one[16] = {[15] = 1};

    return a->kind == TT_BOOT_IP4 ? a->ip[0] == 127 : memcmp(a->ip, one, sizeof(one)) == 0;
}

int tt_boot_route(const struct tt_boot *boot, struct tt_boot_address *address_out)
{
    int found = -1;

    if (boot->rank > 0)
        return address_of(boot->fd, address_out);
    /* Ranks of rank 0's own host come over loopback; what leads to another host says more. */
    for (int r = 1; r < boot->n_ranks; r++) {
        struct tt_boot_address a;

        if (address_of(boot->peers[r].fd, &a) != 0 || (found == 0 && is_loopback(&a)))
            continue;
        *address_out = a;
        found = 0;
        if (!is_loopback(&a))
            break;
    }
    return found;
}
