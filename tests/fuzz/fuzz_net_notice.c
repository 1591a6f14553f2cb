/* Notices between ranks that watch each other. The first byte chooses whether the tag is made good, so
 * that what is behind it is reached as well. */
#include "net/watch_wire.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define N_RANKS 7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned char key[32] = "a key that attackers do not know";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char frame[TT_NOTICE_BYTES];
    struct tt_notice notice;

    if (size == 0)
        return 0;
    /* Nobody makes a valid tag by chance. */
    CHECK(tt_notice_parse(key, 5, data + 1, size - 1, N_RANKS, &notice) != 0);
    if (data[0] % 2 == 0 || size < 6)
        return 0;
    notice.kind = (enum tt_notice_kind)(data[1] % 6);
    memcpy(&notice.about, data + 2, sizeof(notice.about));
    const struct tt_notice meant = notice;

    tt_notice_pack(key, 5, &meant, frame);
    CHECK(tt_notice_parse(key, 6, frame, sizeof(frame), N_RANKS, &notice) != 0);
    const int good = tt_notice_parse(key, 5, frame, sizeof(frame), N_RANKS, &notice) == 0;

    CHECK(good == (meant.kind >= TT_NOTICE_ABORT && meant.kind <= TT_NOTICE_WAITS &&
                   meant.about < N_RANKS));
    CHECK(!good || (notice.kind == meant.kind && notice.about == meant.about));
    frame[data[size - 1] % sizeof(frame)] ^= (unsigned char)(data[0] | 1);
    CHECK(tt_notice_parse(key, 5, frame, sizeof(frame), N_RANKS, &notice) != 0);
    return 0;
}
