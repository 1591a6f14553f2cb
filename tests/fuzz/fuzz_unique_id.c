/*
 * Unique ids: bytes and text. An even first byte: the rest is text. An odd one: the rest is the id's
 * bytes, whose checksum is put right first so that the fields behind it are reached.
 */
#include "base/sha256.h"
#include "boot/boot.h"
#include "boot/boot_address.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char again[TUTTI_UNIQUE_ID_TEXT_BYTES];
    tutti_unique_id id;

    CHECK(text);
    memcpy(text, data, size);
    text[size] = 0;
    if (tt_boot_id_from_text(text, &id) == TUTTI_OK) { /* an id has one text only */
        CHECK(tt_boot_id_to_text(&id, again, sizeof(again)) == TUTTI_OK);
        CHECK(strcmp(text, again) == 0);
    }
    free(text);
}

static void try_bytes(const uint8_t *data, size_t size)
{
    tutti_unique_id id;
    struct tt_boot_id parsed;
    char where[TT_BOOT_TEXT_BYTES];
    struct tt_sha256 hash;
    unsigned char digest[TT_SHA256_BYTES];

    memset(&id, 0, sizeof(id));
    memcpy(id.bytes, data, size < sizeof(id.bytes) ? size : sizeof(id.bytes));
    tt_sha256_begin(&hash);
    tt_sha256_add(&hash, id.bytes, 120);
    tt_sha256_end(&hash, digest);
    memcpy(id.bytes + 120, digest, 8);
    if (tt_boot_id_parse(&id, &parsed) != 0)
        return;
    CHECK(parsed.n_addresses >= 1 && parsed.n_addresses <= TT_BOOT_MAX_ADDRESSES);
    for (int i = 0; i < parsed.n_addresses; i++) {
        const struct tt_boot_address *a = &parsed.addresses[i];
        struct tt_boot_endpoint endpoint;

        CHECK(memchr(a->name, 0, sizeof(a->name)));
        if (a->kind != TT_BOOT_HOST) /* which would ask the resolver */
            CHECK(tt_boot_address_resolve(a, parsed.port, &endpoint, 1) == 1);
    }
    tt_boot_id_where(&parsed, where, sizeof(where));
    CHECK(strlen(where) < sizeof(where));
    CHECK(tt_boot_id_pack(&parsed, &id) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 2 == 0)
        try_text(data + 1, size - 1);
    else
        try_bytes(data + 1, size - 1);
    return 0;
}
