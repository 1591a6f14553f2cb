/* Packets between hosts: words that prove their own arrival, in whatever order they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#include "coll/wire_parts.h"

enum { WORDS = 512, MOST = (WORDS - (int)TT_WIRE_HEADER_WORDS) * 4 };

static const uint32_t header[] = {1, 2, 3, 0xffffffff, 0, 6};

/* Deliver the words in a random order, one by one: nothing is believed before all are there. */
static void arrives_whole_or_not_at_all(void **state)
{
    static uint64_t words[WORDS], slot[WORDS];
    unsigned char payload[MOST], got[MOST];
    uint64_t dice = 7;

    (void)state;
    for (size_t bytes = 0; bytes <= 64; bytes++) {
        const uint64_t number = dice >> 20;
        const size_t n = tt_packet_words(bytes);
        uint32_t seen[TT_WIRE_HEADER_WORDS];
        size_t left = n;

        for (size_t i = 0; i < bytes; i++)
            payload[i] = (unsigned char)(dice = dice * 6364136223846793005u + 1442695040888963407u,
                                         dice >> 40);
        assert_int_equal(tt_packet_write(words, number, header, payload, bytes), n);
        memset(slot, 0, sizeof(slot));
        while (left > 0) {
            size_t k = (dice = dice * 6364136223846793005u + 1442695040888963407u, dice >> 33) % n;

            assert_false(tt_packet_header(slot, number, seen) &&
                         tt_packet_payload(slot, number, got, bytes));
            while (slot[k] != 0)
                k = (k + 1) % n;
            slot[k] = words[k];
            left--;
        }
        assert_int_equal(tt_packet_header(slot, number, seen), TT_PACKET_WORDS);
        assert_memory_equal(seen, header, sizeof(header));
        assert_int_equal(tt_packet_header(slot, number + 8, seen), TT_PACKET_NONE);
        assert_true(tt_packet_payload(slot, number, got, bytes));
        assert_memory_equal(got, payload, bytes);
    }
}

/* Numbers come back after 2^32 - 2 packets: what was read must be gone by then, to the last word. */
static void old_words_are_never_taken_for_new_ones(void **state)
{
    static uint64_t slot[WORDS];
    static unsigned char payload[MOST];
    unsigned char got[MOST];
    uint32_t seen[TT_WIRE_HEADER_WORDS];

    (void)state;
    for (size_t bytes = 1; bytes <= MOST; bytes += 101) {
        (void)tt_packet_write(slot, 5, header, payload, bytes);
        assert_true(tt_packet_payload(slot, 5, got, bytes));
        tt_packet_clear(slot, TT_PACKET_WORDS, bytes);
        assert_int_equal(tt_packet_header(slot, 5 + UINT64_C(0xfffffffe), seen), TT_PACKET_NONE);
        assert_false(tt_packet_payload(slot, 5 + UINT64_C(0xfffffffe), got, bytes));
        for (size_t i = 0; i < WORDS; i++)
            assert_int_equal(slot[i], 0);
    }
}

/* Behind its signal a plain packet is there as a whole; what is cleared is all of it, and nothing else. */
static void plain_ones_come_with_their_signal(void **state)
{
    static unsigned char payload[MOST], seen_payload[MOST];
    static uint64_t slot[WORDS], cleared[WORDS];
    uint32_t seen[TT_WIRE_HEADER_WORDS];

    (void)state;
    for (size_t bytes = 0; bytes <= MOST; bytes += 13) {
        const uint64_t number = UINT64_C(0xfffffff0) + bytes;
        const size_t n = TT_PACKET_PLAIN_BYTES + bytes;

        memset(slot, 0, sizeof(slot));
        memset((unsigned char *)slot + n, 0x5a, sizeof(slot) - n);
        memset(payload, 1 + (int)(bytes % 255), bytes);
        assert_int_equal(tt_packet_write_plain(slot + 1, header, payload, bytes), n - 8);
        assert_int_equal(tt_packet_header(slot, number, seen), TT_PACKET_NONE);
        slot[0] = tt_packet_signal(number);
        assert_int_equal(tt_packet_header(slot, number, seen), TT_PACKET_PLAIN);
        assert_int_equal(tt_packet_header(slot, number + 8, seen), TT_PACKET_NONE);
        assert_memory_equal(seen, header, sizeof(header));
        memcpy(seen_payload, (unsigned char *)slot + TT_PACKET_PLAIN_BYTES, bytes);
        assert_memory_equal(seen_payload, payload, bytes);
        tt_packet_clear(slot, TT_PACKET_PLAIN, bytes);
        assert_memory_equal(slot, cleared, n);
        if (n < sizeof(slot))
            assert_int_equal(((unsigned char *)slot)[n], 0x5a);
    }
}

/* No number has the flag of a cleared word. */
static void no_packet_looks_cleared(void **state)
{
    static const uint64_t numbers[] = {0, 1, 0xfffffffd, 0xfffffffe, 0xffffffff, 0x100000000};
    static const uint64_t cleared[WORDS];
    uint32_t seen[TT_WIRE_HEADER_WORDS];

    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        assert_int_equal(tt_packet_header(cleared, numbers[i], seen), TT_PACKET_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrives_whole_or_not_at_all),
        cmocka_unit_test(old_words_are_never_taken_for_new_ones),
        cmocka_unit_test(plain_ones_come_with_their_signal),
        cmocka_unit_test(no_packet_looks_cleared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
