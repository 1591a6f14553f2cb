/*
 * Text from the environment: numbers, sizes, times, addresses of rank 0, Slurm's host lists, names of
 * variables. The first byte chooses; the rest is the text.
 */
#include "base/env.h"
#include "boot/boot_address.h"
#include "boot/boot_launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_number(int (*parse)(const char *, uint64_t *), const char *text)
{
    uint64_t value = 42;
    int result = parse(text, &value);

    CHECK(result == 0 || (result == -1 && value == 42));
    if (result == 0) /* what is accepted begins with a digit: no sign, no blank */
        CHECK(text[0] >= '0' && text[0] <= '9');
}

/* What a number prints as is the number. */
static void try_round_trip(const char *text)
{
    char again[32];
    uint64_t value;
    uint64_t back;

    if (tt_env_parse_number(text, &value) != 0)
        return;
    snprintf(again, sizeof(again), "%llu", (unsigned long long)value);
    CHECK(tt_env_parse_number(again, &back) == 0 && back == value);
}

static void try_address(const char *text)
{
    struct tt_boot_address address;
    struct tt_boot_id id = {.n_addresses = 1};
    tutti_unique_id packed;
    char where[TT_BOOT_TEXT_BYTES];

    if (tt_boot_address_parse(text, &address, &id.port) != 0)
        return;
    CHECK(address.kind == TT_BOOT_UNIX || id.port > 0);
    CHECK(memchr(address.name, 0, sizeof(address.name)));
    id.addresses[0] = address;
    CHECK(tt_boot_id_pack(&id, &packed) == 0); /* every address fits in an id ... */

    struct tt_boot_id back;

    CHECK(tt_boot_id_parse(&packed, &back) == 0); /* ... and comes out of it again */
    CHECK(back.port == id.port && back.addresses[0].kind == address.kind);
    CHECK(strcmp(back.addresses[0].name, address.name) == 0);
    tt_boot_id_where(&back, where, sizeof(where));
    CHECK(*where);
}

static void try_first_host(const char *text)
{
    for (size_t bytes = 1; bytes <= 64; bytes *= 4) {
        char *out = malloc(bytes); /* exactly, so that a byte too many is seen */

        CHECK(out);
        if (tt_boot_first_host(text, out, bytes) == 0) {
            size_t n = strnlen(out, bytes);

            CHECK(n > 0 && n < bytes);
            CHECK(out[strcspn(out, " ,[]$;&|`\n")] == 0);
        }
        free(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;

    if (size == 0)
        return 0;
    text = malloc(size);
    CHECK(text);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    switch (data[0] % 6) {
    case 0:
        try_number(tt_env_parse_number, text);
        try_round_trip(text);
        break;
    case 1: try_number(tt_env_parse_bytes, text); break;
    case 2: try_number(tt_env_parse_time, text); break;
    case 3: try_address(text); break;
    case 4: try_first_host(text); break;
    default: {
        const char *name = tt_env_nearest(text);

        CHECK(!name || strncmp(name, "TUTTI_", 6) == 0);
    }
    }
    free(text);
    return 0;
}
