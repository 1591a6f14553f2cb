/*
 * Unique ids. 128 bytes:
 *   0  "tuid", version, flags, number of addresses, 0      8  pid and fd of the listener
 *  16  port                                               18  0
 *  20  secret                                             52  addresses: kind, then its bytes
 * 120  first 8 bytes of SHA-256 of all before (against slips, not attackers)
 */
#include "boot/boot.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/error.h"
#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot_address.h"
#include "boot/boot_socket.h"

#define ID_VERSION     1
#define FLAG_LISTENING 1
#define FLAG_BIND_ANY  2
#define AT_SECRET      20
#define AT_ADDRESSES   52
#define AT_CHECKSUM    120
#define TEXT_PREFIX    "tutti1-"

static const unsigned char magic[4] = {'t', 'u', 'i', 'd'};

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (24 - 8 * i));
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void checksum(const tutti_unique_id *id, unsigned char out[8])
{
    struct tt_sha256 hash;
    unsigned char digest[TT_SHA256_BYTES];

    tt_sha256_begin(&hash);
    tt_sha256_add(&hash, id->bytes, AT_CHECKSUM);
    tt_sha256_end(&hash, digest);
    memcpy(out, digest, 8);
}

/* Bytes that the address takes in an id, its kind included. */
static size_t address_bytes(const struct tt_boot_address *address)
{
    switch (address->kind) {
    case TT_BOOT_IP4: return 1 + 4;
    case TT_BOOT_IP6: return 1 + 16 + 4;
    case TT_BOOT_HOST:
    case TT_BOOT_UNIX: return 1 + 1 + strlen(address->name);
    }
    return AT_CHECKSUM; /* does not fit */
}

static void pack_address(const struct tt_boot_address *address, unsigned char *p)
{
    *p++ = (unsigned char)address->kind;
    if (address->kind == TT_BOOT_IP4) {
        memcpy(p, address->ip, 4);
    } else if (address->kind == TT_BOOT_IP6) {
        memcpy(p, address->ip, 16);
        put32(p + 16, address->scope);
    } else {
        size_t n = strlen(address->name);

        *p++ = (unsigned char)n;
        memcpy(p, address->name, n);
    }
}

int tt_boot_id_pack(const struct tt_boot_id *id, tutti_unique_id *out)
{
    unsigned char *p = out->bytes + AT_ADDRESSES;

    memset(out, 0, sizeof(*out));
    memcpy(out->bytes, magic, sizeof(magic));
    out->bytes[4] = ID_VERSION;
    out->bytes[5] = (unsigned char)((id->is_listening ? FLAG_LISTENING : 0) |
                                    (id->bind_any ? FLAG_BIND_ANY : 0));
    out->bytes[6] = (unsigned char)id->n_addresses;
    put32(out->bytes + 8, id->pid);
    put32(out->bytes + 12, id->fd);
    out->bytes[16] = (unsigned char)(id->port >> 8);
    out->bytes[17] = (unsigned char)id->port;
    memcpy(out->bytes + AT_SECRET, id->secret, sizeof(id->secret));
    for (int i = 0; i < id->n_addresses; i++) {
        size_t n = address_bytes(&id->addresses[i]);

        if (n > (size_t)(out->bytes + AT_CHECKSUM - p))
            return -1;
        pack_address(&id->addresses[i], p);
        p += n;
    }
    checksum(out, out->bytes + AT_CHECKSUM);
    return 0;
}

/* One address from [p, end); its length, or 0 for bytes that are none. */
static size_t parse_address(const unsigned char *p, const unsigned char *end,
                            struct tt_boot_address *out)
{
    size_t have = (size_t)(end - p);

    memset(out, 0, sizeof(*out));
    if (have < 2)
        return 0;
    out->kind = (enum tt_boot_kind)p[0];
    if (p[0] == TT_BOOT_IP4 && have >= 5) {
        memcpy(out->ip, p + 1, 4);
        return 5;
    }
    if (p[0] == TT_BOOT_IP6 && have >= 21) {
        memcpy(out->ip, p + 1, 16);
        out->scope = get32(p + 17);
        return 21;
    }
    if (p[0] != TT_BOOT_HOST && p[0] != TT_BOOT_UNIX)
        return 0;

    size_t n = p[1];

    if (n == 0 || n >= sizeof(out->name) || n > have - 2 || memchr(p + 2, 0, n))
        return 0;
    memcpy(out->name, p + 2, n);
    return 2 + n;
}

int tt_boot_id_parse(const tutti_unique_id *id, struct tt_boot_id *out)
{
    const unsigned char *b = id->bytes;
    const unsigned char *p = b + AT_ADDRESSES;
    unsigned char sum[8];

    memset(out, 0, sizeof(*out));
    checksum(id, sum);
    if (memcmp(b, magic, sizeof(magic)) != 0 || b[4] != ID_VERSION ||
        memcmp(sum, b + AT_CHECKSUM, sizeof(sum)) != 0)
        return -1;
    if (b[5] > (FLAG_LISTENING | FLAG_BIND_ANY) || b[6] < 1 || b[6] > TT_BOOT_MAX_ADDRESSES)
        return -1;
    out->is_listening = b[5] & FLAG_LISTENING;
    out->bind_any = (b[5] & FLAG_BIND_ANY) != 0;
    out->n_addresses = b[6];
    out->pid = get32(b + 8);
    out->fd = get32(b + 12);
    out->port = (uint16_t)(b[16] << 8 | b[17]);
    memcpy(out->secret, b + AT_SECRET, sizeof(out->secret));
    for (int i = 0; i < out->n_addresses; i++) {
        size_t n = parse_address(p, b + AT_CHECKSUM, &out->addresses[i]);

        if (n == 0)
            return -1;
        p += n;
    }
    return 0;
}

tutti_result tt_boot_id_create(tutti_unique_id *id_out)
{
    struct tt_boot_id id = {.is_listening = 1, .pid = (uint32_t)getpid()};
    struct tt_boot_address all[TT_BOOT_MAX_ADDRESSES];
    const char *iface = tt_env_text(TT_ENV_TUTTI_BOOT_IFACE);
    int n = tt_boot_address_list(iface, all, *iface ? 1 : TT_BOOT_MAX_ADDRESSES);
    size_t bytes = 0;
    int fd = -1;

    if (n < 0)
        return TT_FAIL_SYS("cannot list the addresses of this host");
    if (n == 0 && *iface)
        return TT_FAIL(TUTTI_E_ARG,
                       "TUTTI_BOOT_IFACE=%s is not an interface of this host that is up and has an "
                       "address; `ip address` lists them",
                       iface);
    if (n == 0)
        return TT_FAIL(TUTTI_E_SYSTEM, "this host has no address that is up, not even loopback");
    for (int i = 0; i < n; i++) {
        bytes += address_bytes(&all[i]);
        if (bytes <= AT_CHECKSUM - AT_ADDRESSES)
            id.addresses[id.n_addresses++] = all[i];
        else
            bytes -= address_bytes(&all[i]);
    }
    TT_TRY(tt_random_bytes(id.secret, sizeof(id.secret)));
    TT_TRY(tt_boot_listen_ephemeral(*iface ? &id.addresses[0] : NULL, &fd, &id.port));
    id.fd = (uint32_t)fd;
    if (tt_boot_id_pack(&id, id_out) != 0) {
        close(fd);
        return TT_FAIL(TUTTI_E_INTERNAL, "the addresses of this host do not fit in an id");
    }
    return TUTTI_OK;
}

void tt_boot_id_discard(const tutti_unique_id *id)
{
    struct tt_boot_id parsed;

    if (tt_boot_id_parse(id, &parsed) == 0)
        tt_boot_listener_close(tt_boot_listener_of(&parsed));
}

tutti_result tt_boot_id_from_address(const char *address, const char *secret_text,
                                     tutti_unique_id *id_out)
{
    struct tt_boot_id id = {.n_addresses = 1};

    if (!address || tt_boot_address_parse(address, &id.addresses[0], &id.port) != 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "\"%s\" is not an address for the rendezvous: use host:port, [ipv6]:port or "
                       "unix:name, with at most %d characters before the port",
                       address ? address : "", TT_BOOT_NAME_BYTES - 1);
    /* A host may know its own name by another address than the others do (127.0.1.1). */
    id.bind_any =
        id.addresses[0].kind == TT_BOOT_HOST && strcmp(id.addresses[0].name, "localhost") != 0;

    struct tt_sha256 hash;

    tt_sha256_begin(&hash);
    tt_sha256_add(&hash, "tutti secret", 12);
    tt_sha256_add(&hash, secret_text, strlen(secret_text));
    tt_sha256_end(&hash, id.secret);
    if (tt_boot_id_pack(&id, id_out) != 0)
        return TT_FAIL(TUTTI_E_INTERNAL, "the address %s does not fit in an id", address);
    return TUTTI_OK;
}

void tt_boot_derive_key(const tutti_unique_id *id, const char *purpose, unsigned char key_out[32])
{
    tt_hmac_sha256(id->bytes + AT_SECRET, 32, purpose, strlen(purpose), key_out);
}

tutti_result tt_boot_id_to_text(const tutti_unique_id *id, char *text_out, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    const size_t n_prefix = strlen(TEXT_PREFIX);
    const size_t need = n_prefix + 2 * sizeof(id->bytes) + 1;

    if (bytes < need)
        return TT_FAIL(TUTTI_E_ARG, "the text of an id needs %zu bytes, not %zu", need, bytes);
    memcpy(text_out, TEXT_PREFIX, n_prefix);
    text_out += n_prefix;
    for (size_t i = 0; i < sizeof(id->bytes); i++) {
        *text_out++ = digits[id->bytes[i] >> 4];
        *text_out++ = digits[id->bytes[i] & 15];
    }
    *text_out = 0;
    return TUTTI_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

tutti_result tt_boot_id_from_text(const char *text, tutti_unique_id *id_out)
{
    struct tt_boot_id parsed;
    tutti_unique_id id;
    const size_t n_prefix = strlen(TEXT_PREFIX);

    if (strncmp(text, TEXT_PREFIX, n_prefix) != 0)
        return TT_FAIL(TUTTI_E_ARG, "not the text of an id: it begins with %s", TEXT_PREFIX);
    text += n_prefix;
    if (strnlen(text, 2 * sizeof(id.bytes) + 1) != 2 * sizeof(id.bytes))
        return TT_FAIL(TUTTI_E_ARG, "not the text of an id: cut short or run into other text");
    for (size_t i = 0; i < sizeof(id.bytes); i++) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return TT_FAIL(TUTTI_E_ARG, "not the text of an id: a character that is no hex digit");
        id.bytes[i] = (unsigned char)(high << 4 | low);
    }
    if (tt_boot_id_parse(&id, &parsed) != 0)
        return TT_FAIL(TUTTI_E_ARG, "not the text of an id: the checksum or a field is wrong");
    *id_out = id;
    return TUTTI_OK;
}
