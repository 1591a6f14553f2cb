#include "net/interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/error.h"
#include "topo/rails.h"

/* ---- pure ---- */

struct range {
    unsigned char ip[16];
    unsigned bits;
};

static int has_prefix(const unsigned char *ip, const unsigned char *prefix, unsigned bits)
{
    const unsigned n = bits / 8, rest = bits % 8;

    return memcmp(ip, prefix, n) == 0 &&
           (rest == 0 || ((ip[n] ^ prefix[n]) & (0xff00u >> rest & 0xffu)) == 0);
}

/* IPv4: whatever IANA does not list as for special purposes. IPv6: what it gives out as global. */
int tt_net_is_public(enum tt_boot_kind kind, const unsigned char *ip)
{
    static const struct range not4[] = {
        {{0}, 8},         {{10}, 8},       {{100, 64}, 10},      {{127}, 8},
        {{169, 254}, 16}, {{172, 16}, 12}, {{192, 0, 0}, 24},    {{192, 0, 2}, 24},
        {{192, 168}, 16}, {{198, 18}, 15}, {{198, 51, 100}, 24}, {{203, 0, 113}, 24},
        {{240}, 4},
    };
    static const struct range mapped = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96};
    static const struct range global = {{0x20}, 3}, document = {{0x20, 0x01, 0x0d, 0xb8}, 32};

    if (kind == TT_BOOT_IP6) {
        if (has_prefix(ip, mapped.ip, mapped.bits))
            return tt_net_is_public(TT_BOOT_IP4, ip + 12);
        return has_prefix(ip, global.ip, global.bits) &&
               !has_prefix(ip, document.ip, document.bits);
    }
    for (size_t i = 0; i < TT_LEN(not4); i++) {
        if (has_prefix(ip, not4[i].ip, not4[i].bits))
            return 0;
    }
    return 1;
}

int tt_net_same_subnet(const struct tt_net_subnet *mine, const struct tt_net_subnet *theirs)
{
    return mine->kind == theirs->kind && mine->bits > 0 &&
           mine->bits <= (mine->kind == TT_BOOT_IP4 ? 32 : 128) &&
           has_prefix(theirs->ip, mine->ip, mine->bits);
}

/* ---- interfaces ---- */

static int address_of(const struct ifaddrs *p, struct tt_boot_address *out)
{
    memset(out, 0, sizeof(*out));
    if (!p->ifa_addr || !(p->ifa_flags & IFF_UP))
        return -1;
    if (p->ifa_addr->sa_family == AF_INET) {
        out->kind = TT_BOOT_IP4;
        memcpy(out->ip, &((const struct sockaddr_in *)(const void *)p->ifa_addr)->sin_addr, 4);
        return 0;
    }
    if (p->ifa_addr->sa_family != AF_INET6)
        return -1;

    const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)p->ifa_addr;

    out->kind = TT_BOOT_IP6;
    out->scope = in->sin6_scope_id;
    memcpy(out->ip, &in->sin6_addr, 16);
    return 0;
}

static int is_link_local(const struct tt_boot_address *a)
{
    return a->kind == TT_BOOT_IP6 && a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

static uint8_t bits_of(const struct ifaddrs *p, enum tt_boot_kind kind)
{
    const unsigned char *mask = NULL;
    const size_t n = kind == TT_BOOT_IP4 ? 4 : 16;
    uint8_t bits = 0;

    if (p->ifa_netmask && kind == TT_BOOT_IP4)
        mask = (const void *)&((const struct sockaddr_in *)(const void *)p->ifa_netmask)->sin_addr;
    else if (p->ifa_netmask)
        mask =
            (const void *)&((const struct sockaddr_in6 *)(const void *)p->ifa_netmask)->sin6_addr;
    for (size_t i = 0; mask && i < n; i++)
        bits = (uint8_t)(bits + __builtin_popcount(mask[i]));
    return bits;
}

static int same_ip(const struct tt_boot_address *a, const struct tt_boot_address *b)
{
    return a->kind == b->kind && memcmp(a->ip, b->ip, a->kind == TT_BOOT_IP4 ? 4 : 16) == 0;
}

/* getifaddrs() names an address that has a label by that, "eth0:1", and no device is called so. */
static void device_of(const struct ifaddrs *p, char name_out[IF_NAMESIZE])
{
    snprintf(name_out, IF_NAMESIZE, "%.*s", (int)strcspn(p->ifa_name, ":"), p->ifa_name);
}

/* The interface that has the address, and the bits of its network; "" for none. */
static uint8_t interface_of(const struct tt_boot_address *address, char name_out[IF_NAMESIZE])
{
    struct ifaddrs *list = NULL;
    struct tt_boot_address a;
    uint8_t bits = 0;

    name_out[0] = 0;
    if (getifaddrs(&list) != 0)
        return 0;
    for (const struct ifaddrs *p = list; p && !name_out[0]; p = p->ifa_next) {
        if (address_of(p, &a) == 0 && same_ip(&a, address)) {
            device_of(p, name_out);
            bits = bits_of(p, a.kind);
        }
    }
    freeifaddrs(list);
    return bits;
}

static int is_loopback(const struct tt_boot_address *a)
{
    static const unsigned char one[16] = {[15] = 1};

    return a->kind == TT_BOOT_IP4 ? a->ip[0] == 127 : memcmp(a->ip, one, 16) == 0;
}

int tt_net_subnets(struct tt_net_subnet out[TT_NET_MAX_SUBNETS])
{
    struct tt_boot_address all[TT_BOOT_MAX_ADDRESSES];
    char name[IF_NAMESIZE];
    const int n_all = tt_boot_address_list("", all, TT_BOOT_MAX_ADDRESSES);
    int n = 0;

    memset(out, 0, TT_NET_MAX_SUBNETS * sizeof(*out));
    for (int i = 0; i < n_all && n < TT_NET_MAX_SUBNETS; i++) {
        if (is_loopback(&all[i]))
            continue;
        out[n].kind = (uint8_t)all[i].kind;
        out[n].bits = interface_of(&all[i], name);
        memcpy(out[n].ip, all[i].ip, sizeof(out[n].ip));
        n++;
    }
    return n;
}

/* ---- choosing ---- */

static struct tt_boot_address as_address(const struct tt_net_subnet *subnet)
{
    struct tt_boot_address a = {.kind = subnet->kind == TT_BOOT_IP4 ? TT_BOOT_IP4 : TT_BOOT_IP6};

    memcpy(a.ip, subnet->ip, sizeof(a.ip));
    return a;
}

/* The address that the routing table would send from; 0 if it knows a way. */
static int route_to(const struct tt_boot_address *there, struct tt_boot_address *out)
{
    struct tt_boot_endpoint to, from = {.bytes = sizeof(from.address)};
    int fd, known;

    tt_boot_address_resolve(there, 9, &to, 1);
    fd = socket(to.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    known = connect(fd, (const struct sockaddr *)&to.address, to.bytes) == 0 &&
            getsockname(fd, (struct sockaddr *)&from.address, &from.bytes) == 0;
    close(fd);
    if (!known)
        return -1;
    memset(out, 0, sizeof(*out));
    out->kind = there->kind;
    if (out->kind == TT_BOOT_IP4)
        memcpy(out->ip, &((const struct sockaddr_in *)(const void *)&from.address)->sin_addr, 4);
    else
        memcpy(out->ip, &((const struct sockaddr_in6 *)(const void *)&from.address)->sin6_addr, 16);
    return 0;
}

static int choose_address(const struct tt_boot_address *route, const struct tt_net_subnet others[],
                          int n_others, struct tt_boot_address *out)
{
    struct tt_net_subnet mine[TT_NET_MAX_SUBNETS];
    struct tt_boot_address loopback[1], there;
    const int n_mine = tt_net_subnets(mine);

    if (route && (route->kind == TT_BOOT_IP4 || route->kind == TT_BOOT_IP6) &&
        (n_others == 0 || !is_loopback(route))) {
        *out = *route;
        return 0;
    }
    if (n_others == 0 && tt_boot_address_list("lo", loopback, 1) == 1) {
        *out = loopback[0];
        return 0;
    }
    for (int i = 0; i < n_mine; i++) {
        for (int k = 0; k < n_others; k++) {
            if (tt_net_same_subnet(&mine[i], &others[k])) {
                *out = as_address(&mine[i]);
                return 0;
            }
        }
    }
    for (int k = 0; k < n_others; k++) {
        if (others[k].kind != TT_BOOT_IP4 && others[k].kind != TT_BOOT_IP6)
            continue;
        there = as_address(&others[k]);
        if (route_to(&there, out) == 0)
            return 0;
    }
    return -1;
}

/* ---- devices ---- */

/* Without the labels of addresses, "eth0:1", which the kernel takes for their interface. */
static int is_interface(const char *name)
{
    return !strchr(name, ':') && if_nametoindex(name);
}

static int device_exists(const char *name)
{
    char path[128];

    if (is_interface(name))
        return 1;
    snprintf(path, sizeof(path), TT_SYSFS "/class/infiniband/%.*s", (int)strcspn(name, ":"), name);
    return !strchr(name, '/') && access(path, F_OK) == 0;
}

void tt_net_list_devices(char *out, size_t bytes)
{
    struct if_nameindex *all = if_nameindex();
    char rdma[TT_NET_DEVICES_BYTES];
    size_t used = 0;

    out[0] = 0;
    for (const struct if_nameindex *p = all; p && p->if_name; p++) {
        if (used + strlen(p->if_name) + 2 < bytes)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? "," : "", p->if_name);
    }
    if (all)
        if_freenameindex(all);
    tt_rails_list(TT_SYSFS, rdma, sizeof(rdma));
    snprintf(out + used, bytes - used, "%s", rdma);
}

/* One address of the interface: of the family of `like` where it has one, not link-local where it has
 * another. */
static int address_on(const char *interface, const struct tt_boot_address *like,
                      struct tt_boot_address *out)
{
    struct tt_boot_address all[TT_BOOT_MAX_ADDRESSES];
    const int n = tt_boot_address_list(interface, all, TT_BOOT_MAX_ADDRESSES);
    int best = -1, best_score = -1;

    for (int i = 0; i < n; i++) {
        const int score = 2 * !is_link_local(&all[i]) + (like && like->kind == all[i].kind);

        if (score > best_score) {
            best = i;
            best_score = score;
        }
    }
    if (best < 0)
        return -1;
    *out = all[best];
    return 0;
}

/* The user's list: all of it must exist, and the first network interface among it is where we listen. */
static tutti_result take_devices(const char *variable, const char *list,
                                 const struct tt_boot_address *like, struct tt_net_place *out)
{
    char names[TT_NET_DEVICES_BYTES], there[400];
    char *rest = names, *name;

    if (strlen(list) >= sizeof(names))
        return TT_FAIL(TUTTI_E_ARG, "%s is longer than %zu bytes", variable, sizeof(names) - 1);
    snprintf(names, sizeof(names), "%s", list);
    snprintf(out->devices, sizeof(out->devices), "%s", list);
    while ((name = strsep(&rest, ",")) != NULL) {
        if (!device_exists(name)) {
            tt_net_list_devices(there, sizeof(there));
            return TT_FAIL(TUTTI_E_ARG, "%s=%s: there is no device \"%s\" here; there are %s",
                           variable, list, name, there);
        }
        if (!out->interface[0] && is_interface(name) && strlen(name) < sizeof(out->interface))
            memcpy(out->interface, name, strlen(name) + 1);
    }
    if (out->interface[0] && address_on(out->interface, like, &out->address) != 0)
        return TT_FAIL(TUTTI_E_ARG, "%s=%s: %s has no address or is down", variable, list,
                       out->interface);
    return TUTTI_OK;
}

/* UCX over TCP looks for an address that is called like its interface. */
static tutti_result refuse_labels(const struct tt_net_place *place)
{
    struct ifaddrs *list = NULL;
    struct tt_boot_address a;
    int found = strchr(place->devices, ':') != NULL; /* an RDMA port, and addresses are no matter */

    if (!found && getifaddrs(&list) != 0)
        return TT_FAIL_SYS("cannot read the addresses of this host");
    for (const struct ifaddrs *p = list; p && !found; p = p->ifa_next)
        found = strcmp(p->ifa_name, place->interface) == 0 && address_of(p, &a) == 0 &&
                a.kind == place->address.kind;
    freeifaddrs(list);
    if (found)
        return TUTTI_OK;
    return TT_FAIL(TUTTI_E_UNSUPPORTED,
                   "the address %s of %s has a label (\"%s:...\"), and UCX takes only those that "
                   "have none: add one, or name another interface in TUTTI_NET_DEVICES",
                   place->text, place->interface, place->interface);
}

/* UCX takes which address of an interface it likes, so all of the family count. */
static tutti_result refuse_public(const struct tt_net_place *place)
{
    struct ifaddrs *list = NULL;
    char text[INET6_ADDRSTRLEN] = "", name[IF_NAMESIZE] = "";
    struct tt_boot_address a;
    int allowed = 0;

    TT_TRY(tt_env_choice(TT_ENV_TUTTI_NET_ALLOW_PUBLIC, &allowed));
    if (allowed)
        return TUTTI_OK;
    if (getifaddrs(&list) != 0)
        return TT_FAIL_SYS("cannot read the addresses of this host");
    for (const struct ifaddrs *p = list; p && !text[0]; p = p->ifa_next) {
        char devices[TT_NET_DEVICES_BYTES + 2], wanted[IF_NAMESIZE + 2], here[IF_NAMESIZE];

        device_of(p, here);
        snprintf(devices, sizeof(devices), ",%s,", place->devices);
        snprintf(wanted, sizeof(wanted), ",%s,", here);
        if (address_of(p, &a) != 0 || a.kind != place->address.kind || !strstr(devices, wanted) ||
            !tt_net_is_public(a.kind, a.ip))
            continue;
        inet_ntop(a.kind == TT_BOOT_IP4 ? AF_INET : AF_INET6, a.ip, text, sizeof(text));
        memcpy(name, here, sizeof(name));
    }
    freeifaddrs(list);
    if (!text[0])
        return TUTTI_OK;
    return TT_FAIL(
        TUTTI_E_ARG,
        "the network would listen on the public address %s (%s), where whoever reaches it "
        "may write to this process's memory: name a private interface in "
        "TUTTI_NET_DEVICES, or set TUTTI_NET_ALLOW_PUBLIC=1 where a firewall protects it",
        text, name);
}

tutti_result tt_net_choose(const struct tt_boot_address *route, const struct tt_net_subnet others[],
                           int n_others, const struct tt_net_near *near, struct tt_net_place *out)
{
    const char *ucx = tt_env_foreign("UCX_NET_DEVICES");
    struct tt_boot_address best = {.kind = TT_BOOT_IP4};
    const int know = choose_address(route, others, n_others, &best) == 0;

    memset(out, 0, sizeof(*out));
    out->address = best;
    if (tt_env_is_set(TT_ENV_TUTTI_NET_DEVICES))
        TT_TRY(take_devices("TUTTI_NET_DEVICES", tt_env_text(TT_ENV_TUTTI_NET_DEVICES),
                            know ? &best : NULL, out));
    else if (ucx && *ucx && strcmp(ucx, "all") != 0)
        TT_TRY(take_devices("UCX_NET_DEVICES", ucx, know ? &best : NULL, out));
    else if (!know)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "this host has no address that leads to the others: name "
                       "a device in TUTTI_NET_DEVICES");
    if (!out->interface[0]) {
        if (!know)
            return TT_FAIL(TUTTI_E_ARG,
                           "TUTTI_NET_DEVICES=%s names no network interface, and none "
                           "leads to the others: add one",
                           out->devices);
        interface_of(&out->address, out->interface);
        if (!out->interface[0])
            return TT_FAIL(TUTTI_E_UNSUPPORTED,
                           "no interface of this host has the address that the "
                           "other ranks know it by: name one in "
                           "TUTTI_NET_DEVICES");
    }
    if (!out->devices[0]) {
        size_t n = (size_t)snprintf(out->devices, sizeof(out->devices), "%s", out->interface);

        if (n_others > 0)
            tt_rails_nearest(TT_SYSFS, near->gpu ? near->gpu : "", near->turn, out->devices + n,
                             sizeof(out->devices) - n);
    }
    if (is_link_local(&out->address))
        out->address.scope = if_nametoindex(out->interface);
    inet_ntop(out->address.kind == TT_BOOT_IP4 ? AF_INET : AF_INET6, out->address.ip, out->text,
              sizeof(out->text));
    TT_TRY(refuse_public(out));
    return refuse_labels(out);
}
