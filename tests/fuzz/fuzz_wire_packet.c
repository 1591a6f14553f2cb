/* What other hosts write into this rank's memory, whatever it is: packets and notices between hosts, records and answers
 * between proxies of channels. Nothing is read or written behind a slot, and what is believed is possible. */
#include <stdlib.h>
#include <string.h>

#include "coll/channel_parts.h"
#include "coll/wire_parts.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { SLOT = 1024, N_RANKS = 5, NUMBER = 0 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_packet(uint64_t *words)
{
    const size_t most = (SLOT / 8 - TT_WIRE_HEADER_WORDS) * 4;
    uint32_t header[TT_WIRE_HEADER_WORDS], same[TT_WIRE_HEADER_WORDS];
    unsigned char *payload = malloc(most), *again = malloc(most);
    const enum tt_packet_form form = tt_packet_header(words, NUMBER, header);
    size_t bytes;

    CHECK(payload && again);
    if (form == TT_PACKET_WORDS && header[TT_WORD_BYTES] <= most &&
        tt_packet_payload(words, NUMBER, payload, bytes = header[TT_WORD_BYTES])) {
        /* It is what a sender writes: the same comes back. */
        uint64_t *copy = malloc(SLOT);

        CHECK(copy);
        CHECK(tt_packet_write(copy, NUMBER, header, payload, bytes) == tt_packet_words(bytes));
        CHECK(tt_packet_header(copy, NUMBER, same) == TT_PACKET_WORDS);
        CHECK(memcmp(header, same, sizeof(header)) == 0);
        CHECK(tt_packet_payload(copy, NUMBER, again, bytes) && memcmp(payload, again, bytes) == 0);
        free(copy);
        tt_packet_clear(words, form, bytes);
        CHECK(tt_packet_header(words, NUMBER, same) == TT_PACKET_NONE);
    }
    free(payload);
    free(again);
}

static void check_notice(const uint64_t *words)
{
    struct tt_wire_notice notice;

    if (!tt_packet_notice(words, N_RANKS, &notice))
        return;
    CHECK(notice.result < TUTTI_OK && notice.peer >= -1 && notice.peer < N_RANKS);
    CHECK(strnlen(notice.text, sizeof(notice.text)) < sizeof(notice.text));
}

/* A set of two channels in `bytes` of memory, of a GPU (whose data comes through a ring) or not. */
static tutti_channel_set set_of(uint64_t bytes, int on_gpu)
{
    tutti_channel_set s = {.n_ranks = 2, .n_channels = 2, .bytes = bytes};

    s.layout.ring_bytes = on_gpu ? 4096 : 0;
    s.layout.stride = sizeof(struct tt_port_place);
    return s;
}

static void check_record(const unsigned char *from, size_t n, uint64_t bytes, int on_gpu)
{
    const tutti_channel_set s = set_of(bytes, on_gpu);
    struct tt_record r = {0};
    uint64_t length;

    memcpy(&r, from, n < sizeof(r) ? n : sizeof(r));
    if (tt_port_check_record(&s, 1, &r) != TUTTI_OK)
        return;
    CHECK(r.kind >= TT_RECORD_DATA && r.kind <= TT_RECORD_NOTHING && r.channel < s.n_channels);
    length = r.kind == TT_RECORD_ADD ? 8 : r.bytes;
    for (int i = 0; i < 2; i++) { /* without overflow: the end is not before the beginning */
        const uint64_t at = i ? r.ring_at : r.to, end = i ? s.layout.ring_bytes : bytes;

        if (i && r.kind != TT_RECORD_DATA)
            continue;
        CHECK(at + length >= at && at + length <= end);
    }
    CHECK(r.kind != TT_RECORD_ADD || r.to % 8 == 0);
}

static void check_answers(uint64_t left, uint64_t done, uint64_t says)
{
    tutti_channel_set s = set_of(64, 0);
    struct tt_port_place *places = calloc(2, sizeof(*places));
    struct tt_port_peer *peers = calloc(2, sizeof(*peers));
    struct tt_port p = {.set = &s, .peers = peers, .arena = {.host = (unsigned char *)places}};
    uint64_t flushed = 0;
    int result;

    CHECK(places && peers);
    left %= 1000;
    done = left - done % (left < TT_PORT_RECORDS ? left + 1 : TT_PORT_RECORDS);
    peers[1].n_entries = peers[1].n_left = left;
    peers[1].n_done = done;
    for (uint64_t i = done; i < left; i++) {
        peers[1].entries[i % TT_PORT_RECORDS].flushed = &flushed;
        peers[1].entries[i % TT_PORT_RECORDS].number = i + 1;
    }
    places[1].n_done = says;
    result = tt_port_take_answers(&p, 1);
    CHECK((result < 0) == (says > left));
    CHECK(peers[1].n_done == (says > left || says < done ? done : says));
    CHECK(flushed == (peers[1].n_done > done ? peers[1].n_done : 0));
    free(places);
    free(peers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t *words = calloc(1, SLOT), numbers[3] = {0};

    CHECK(words);
    memcpy(words, data, size < SLOT ? size : SLOT);
    check_notice(words);
    check_packet(words);
    memcpy(numbers, data, size < sizeof(numbers) ? size : sizeof(numbers));
    check_answers(numbers[0], numbers[1], numbers[2]);
    for (size_t at = 0; at < size && at < 512; at += 8) {
        check_record(data + at, size - at, 4096, 0);
        check_record(data + at, size - at, 4096, 1);
        check_record(data + at, size - at, UINT64_MAX, 1);
    }
    free(words);
    return 0;
}
