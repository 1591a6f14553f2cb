/* Addresses of rank 0 as an id carries them, and the sockets that go with them. */
#ifndef TT_BOOT_ADDRESS_H
#define TT_BOOT_ADDRESS_H

#include <stdint.h>
#include <sys/socket.h>
#include <tutti/tutti.h>

#define TT_BOOT_MAX_ADDRESSES 12
#define TT_BOOT_NAME_BYTES    67 /* host or local socket name and its ending zero */
#define TT_BOOT_TEXT_BYTES    160

enum tt_boot_kind {
    TT_BOOT_IP4 = 4,
    TT_BOOT_IP6 = 6,
    TT_BOOT_HOST = 'h', /* a name that every rank looks up when it is about to connect */
    TT_BOOT_UNIX = 'u', /* an abstract local socket */
};

struct tt_boot_address {
    enum tt_boot_kind kind;
    uint32_t scope;       /* IP6: interface of a link-local address */
    unsigned char ip[16]; /* IP4: the first four */
    char name[TT_BOOT_NAME_BYTES];
};

/* What the bytes of an id mean. */
struct tt_boot_id {
    int is_listening; /* made by tutti_unique_id_create: process `pid` listens on `fd` */
    int bind_any;     /* rank 0 binds the port on all its interfaces */
    uint32_t pid;
    uint32_t fd;
    uint16_t port;
    unsigned char secret[32];
    int n_addresses;
    struct tt_boot_address addresses[TT_BOOT_MAX_ADDRESSES];
};

/* A place to connect to. */
struct tt_boot_endpoint {
    struct sockaddr_storage address;
    socklen_t bytes;
};

/* boot_id.c: pure. Pack is -1 if the addresses do not fit; parse is -1 for bytes that are no id. */
int tt_boot_id_pack(const struct tt_boot_id *id, tutti_unique_id *out);
int tt_boot_id_parse(const tutti_unique_id *id, struct tt_boot_id *out);

/* boot_address.c: "host:port", "[v6]:port" or "unix:name" taken apart; pure; -1 if it is none. */
int tt_boot_address_parse(const char *text, struct tt_boot_address *address_out,
                          uint16_t *port_out);

/* "10.0.0.1:2345", "[::1]:2345", "unix:name"; all of an id's joined by " or ". */
void tt_boot_endpoint_text(const struct tt_boot_endpoint *endpoint, char *out, size_t bytes);
void tt_boot_id_where(const struct tt_boot_id *id, char *out, size_t bytes);

/* Where the address leads; host names are looked up (which may take as long as the resolver likes).
 * Returns the number of endpoints, 0 when the name is not known (yet). */
int tt_boot_address_resolve(const struct tt_boot_address *address, uint16_t port,
                            struct tt_boot_endpoint out[], int n_max);

/* Addresses of this host for an id, in the order to try them; iface "" means all interfaces.
 * -1 with errno where the system does not tell them. */
int tt_boot_address_list(const char *iface, struct tt_boot_address out[], int n_max);

#endif
