/* Addresses: text, sockaddr, look-up and the interfaces of this host. */
#include "boot/boot_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/env.h"

static int parse_port(const char *text, uint16_t *port_out)
{
    uint64_t port;

    if (tt_env_parse_number(text, &port) != 0 || port < 1 || port > 65535)
        return -1;
    *port_out = (uint16_t)port;
    return 0;
}

static int is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

/* The host part: an address if it is one, else a name. */
static int parse_host(char *host, int in_brackets, struct tt_boot_address *out)
{
    char *scope = in_brackets ? strchr(host, '%') : NULL;

    if (scope) {
        *scope++ = 0;
        out->scope = if_nametoindex(scope);
        if (out->scope == 0)
            return -1;
    }
    if (in_brackets) {
        out->kind = TT_BOOT_IP6;
        return inet_pton(AF_INET6, host, out->ip) == 1 ? 0 : -1;
    }
    if (inet_pton(AF_INET, host, out->ip) == 1) {
        out->kind = TT_BOOT_IP4;
        return 0;
    }
    out->kind = TT_BOOT_HOST;
    for (const char *p = host; *p; p++) {
        if (!is_name_char(*p))
            return -1;
    }
    size_t n = strlen(host);

    if (n == 0 || n >= sizeof(out->name))
        return -1;
    memcpy(out->name, host, n + 1);
    return 0;
}

static int parse_unix(const char *name, struct tt_boot_address *out)
{
    size_t n = strlen(name);

    out->kind = TT_BOOT_UNIX;
    if (n == 0 || n >= sizeof(out->name))
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (name[i] <= ' ' || name[i] > '~')
            return -1;
    }
    memcpy(out->name, name, n + 1);
    return 0;
}

int tt_boot_address_parse(const char *text, struct tt_boot_address *address_out, uint16_t *port_out)
{
    char host[TT_BOOT_NAME_BYTES];
    const char *end;
    int in_brackets = text[0] == '[';

    memset(address_out, 0, sizeof(*address_out));
    *port_out = 0;
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, address_out);

    const char *start = text + in_brackets;

    end = in_brackets ? strchr(text, ']') : strrchr(text, ':');
    if (!end || (size_t)(end - start) >= sizeof(host))
        return -1;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = 0;
    if (in_brackets && *++end != ':')
        return -1;
    if (parse_port(end + 1, port_out) != 0)
        return -1;
    return parse_host(host, in_brackets, address_out);
}

void tt_boot_endpoint_text(const struct tt_boot_endpoint *endpoint, char *out, size_t bytes)
{
    char ip[INET6_ADDRSTRLEN] = "?";

    if (endpoint->address.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&endpoint->address;

        inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
        snprintf(out, bytes, "%s:%d", ip, ntohs(in->sin_port));
    } else if (endpoint->address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in =
            (const struct sockaddr_in6 *)(const void *)&endpoint->address;

        inet_ntop(AF_INET6, &in->sin6_addr, ip, sizeof(ip));
        snprintf(out, bytes, "[%s]:%d", ip, ntohs(in->sin6_port));
    } else {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&endpoint->address;
        size_t start = offsetof(struct sockaddr_un, sun_path) + 1;
        int n = endpoint->bytes > start ? (int)(endpoint->bytes - start) : 0;

        snprintf(out, bytes, "unix:%.*s", n, un->sun_path + 1);
    }
}

static void address_text(const struct tt_boot_address *address, uint16_t port, char *out,
                         size_t bytes)
{
    struct tt_boot_endpoint endpoint;

    if (address->kind == TT_BOOT_HOST)
        snprintf(out, bytes, "%s:%d", address->name, port);
    else if (tt_boot_address_resolve(address, port, &endpoint, 1) == 1)
        tt_boot_endpoint_text(&endpoint, out, bytes);
    else
        snprintf(out, bytes, "?");
}

void tt_boot_id_where(const struct tt_boot_id *id, char *out, size_t bytes)
{
    size_t n = 0;

    out[0] = 0;
    for (int i = 0; i < id->n_addresses; i++) {
        char text[TT_BOOT_NAME_BYTES + 16];

        address_text(&id->addresses[i], id->port, text, sizeof(text));
        if (n + strlen(text) + 8 > bytes) {
            snprintf(out + n, bytes - n, " ...");
            return;
        }
        n += (size_t)snprintf(out + n, bytes - n, "%s%s", i ? " or " : "", text);
    }
}

static int resolve_host(const struct tt_boot_address *address, uint16_t port,
                        struct tt_boot_endpoint out[], int n_max)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char service[8];
    int n = 0;

    hints.ai_flags = AI_NUMERICSERV;
    snprintf(service, sizeof(service), "%d", port);
    if (getaddrinfo(address->name, service, &hints, &list) != 0)
        return 0;
    for (const struct addrinfo *p = list; p && n < n_max; p = p->ai_next) {
        if (p->ai_addrlen > sizeof(out[n].address))
            continue;
        memset(&out[n], 0, sizeof(out[n]));
        memcpy(&out[n].address, p->ai_addr, p->ai_addrlen);
        out[n++].bytes = p->ai_addrlen;
    }
    freeaddrinfo(list);
    return n;
}

int tt_boot_address_resolve(const struct tt_boot_address *address, uint16_t port,
                            struct tt_boot_endpoint out[], int n_max)
{
    if (n_max < 1)
        return 0;
    if (address->kind == TT_BOOT_HOST)
        return resolve_host(address, port, out, n_max);

    memset(&out[0], 0, sizeof(out[0]));
    if (address->kind == TT_BOOT_IP4) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

        memcpy(&in.sin_addr, address->ip, 4);
        memcpy(&out[0].address, &in, sizeof(in));
        out[0].bytes = sizeof(in);
    } else if (address->kind == TT_BOOT_IP6) {
        struct sockaddr_in6 in = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

        in.sin6_scope_id = address->scope;
        memcpy(&in.sin6_addr, address->ip, 16);
        memcpy(&out[0].address, &in, sizeof(in));
        out[0].bytes = sizeof(in);
    } else {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        size_t n = strlen(address->name);

        memcpy(un.sun_path + 1, address->name, n); /* the zero before it makes it abstract */
        memcpy(&out[0].address, &un, sizeof(un));
        out[0].bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
    }
    return 1;
}

/* Smaller is tried earlier; negative is left out. Bridges of containers answer nobody outside. */
static int preference(const struct ifaddrs *p, int is_named)
{
    static const char *const inner[] = {"docker", "veth", "br-", "virbr", "cni", "flannel"};
    int late = 0;

    if (!p->ifa_addr || !(p->ifa_flags & IFF_UP))
        return -1;
    for (size_t i = 0; i < sizeof(inner) / sizeof(inner[0]); i++)
        late |= strncmp(p->ifa_name, inner[i], strlen(inner[i])) == 0;
    if (p->ifa_addr->sa_family == AF_INET)
        return p->ifa_flags & IFF_LOOPBACK ? 0 : 2 + 4 * late;
    if (p->ifa_addr->sa_family != AF_INET6)
        return -1;

    const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)p->ifa_addr;

    if (IN6_IS_ADDR_LINKLOCAL(&in->sin6_addr) && !is_named)
        return -1; /* means another thing on every host */
    return p->ifa_flags & IFF_LOOPBACK ? 1 : 3 + 4 * late;
}

static void from_sockaddr(const struct sockaddr *from, struct tt_boot_address *out)
{
    memset(out, 0, sizeof(*out));
    if (from->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;

        out->kind = TT_BOOT_IP4;
        memcpy(out->ip, &in->sin_addr, 4);
    } else {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)from;

        out->kind = TT_BOOT_IP6;
        out->scope = in->sin6_scope_id;
        memcpy(out->ip, &in->sin6_addr, 16);
    }
}

/* An address that has a label is called by that, "eth0:1": it is one of eth0's all the same. */
static int is_of(const struct ifaddrs *p, const char *iface)
{
    const size_t n = strcspn(p->ifa_name, ":");

    return strcmp(p->ifa_name, iface) == 0 ||
           (strlen(iface) == n && !strncmp(p->ifa_name, iface, n));
}

int tt_boot_address_list(const char *iface, struct tt_boot_address out[], int n_max)
{
    struct ifaddrs *list = NULL;
    int n = 0;

    if (getifaddrs(&list) != 0)
        return -1;
    for (int wanted = 0; wanted <= 7; wanted++) {
        for (const struct ifaddrs *p = list; p && n < n_max; p = p->ifa_next) {
            if (preference(p, *iface != 0) != wanted)
                continue;
            if (*iface && !is_of(p, iface))
                continue;
            from_sockaddr(p->ifa_addr, &out[n++]);
        }
    }
    freeifaddrs(list);
    return n;
}
