/* Packets whose words prove their own arrival: see wire_parts.h. */
#include <string.h>

#include "coll/wire_parts.h"

static uint64_t flag_of(uint64_t number)
{
    return (number % UINT64_C(0xfffffffe) + 1)
           << 32; /* never 0, which is what cleared words hold */
}

#define PLAIN UINT32_C(0xffffffff) /* no kind of call: those have 26 bits */

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED); /* the data comes with it: no order is needed */
}

size_t tt_packet_write(uint64_t *words, uint64_t number, const uint32_t header[],
                       const void *payload, size_t bytes)
{
    const unsigned char *from = payload;
    const uint64_t flag = flag_of(number);
    size_t n = TT_WIRE_HEADER_WORDS;

    for (size_t i = 0; i < TT_WIRE_HEADER_WORDS; i++)
        words[i] = flag | header[i];
    for (; bytes >= 4; bytes -= 4, from += 4) {
        uint32_t data;

        memcpy(&data, from, 4);
        words[n++] = flag | data;
    }
    if (bytes > 0) {
        uint32_t data = 0;

        memcpy(&data, from, bytes);
        words[n++] = flag | data;
    }
    return n;
}

size_t tt_packet_write_plain(void *packet, const uint32_t header[], const void *payload,
                             size_t bytes)
{
    unsigned char *to = packet;

    memcpy(to, header, 4 * TT_WIRE_HEADER_WORDS);
    if (bytes > 0)
        memcpy(to + 4 * TT_WIRE_HEADER_WORDS, payload, bytes);
    return 4 * TT_WIRE_HEADER_WORDS + bytes;
}

uint64_t tt_packet_signal(uint64_t number)
{
    return flag_of(number) | PLAIN;
}

enum tt_packet_form tt_packet_header(const uint64_t *words, uint64_t number, uint32_t header_out[])
{
    const uint64_t flag = flag_of(number);

    if (__atomic_load_n(words, __ATOMIC_ACQUIRE) == tt_packet_signal(number)) {
        memcpy(header_out, words + 1, 4 * TT_WIRE_HEADER_WORDS);
        return TT_PACKET_PLAIN;
    }
    for (size_t i = 0; i < TT_WIRE_HEADER_WORDS; i++) {
        const uint64_t word = load(&words[i]);

        if ((word & UINT64_C(0xffffffff00000000)) != flag)
            return TT_PACKET_NONE;
        header_out[i] = (uint32_t)word;
    }
    return TT_PACKET_WORDS;
}

int tt_packet_payload(const uint64_t *words, uint64_t number, void *payload_out, size_t bytes)
{
    const uint64_t flag = flag_of(number);
    const size_t n = tt_packet_words(bytes);
    unsigned char *to = payload_out;
    uint64_t wrong = 0;

    for (size_t i = TT_WIRE_HEADER_WORDS; i < n; i++)
        wrong |= (load(&words[i]) ^ flag) >> 32;
    if (wrong)
        return 0;
    for (size_t i = TT_WIRE_HEADER_WORDS; i < n; i++, to += 4, bytes -= 4) {
        const uint32_t data = (uint32_t)load(&words[i]);

        if (bytes < 4) {
            memcpy(to, &data, bytes);
            break;
        }
        memcpy(to, &data, 4);
    }
    return 1;
}

int tt_packet_notice(const uint64_t *words, int n_ranks, struct tt_wire_notice *out)
{
    uint32_t header[TT_WIRE_HEADER_WORDS];

    memset(out, 0, sizeof(*out));
    if (tt_packet_header(words, 0, header) != TT_PACKET_WORDS ||
        header[TT_WORD_BYTES] > TT_WIRE_NOTICE_TEXT || header[TT_WORD_CHECK] > (uint32_t)n_ranks ||
        (int32_t)header[TT_WORD_KIND] >= 0 ||
        !tt_packet_payload(words, 0, out->text, header[TT_WORD_BYTES]))
        return 0;
    out->result = (tutti_result)(int32_t)header[TT_WORD_KIND];
    out->peer = (int)header[TT_WORD_CHECK] - 1;
    return 1;
}

void tt_packet_clear(uint64_t *words, enum tt_packet_form form, size_t bytes)
{
    memset(words, 0,
           form == TT_PACKET_PLAIN ? TT_PACKET_PLAIN_BYTES + bytes
                                   : tt_packet_words(bytes) * sizeof(*words));
}
