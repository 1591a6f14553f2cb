/* Headers of puts that travel as messages. The input is a row of them; the first byte of each chooses whether the token
 * is made good, so that what is behind it is reached as well. What is believed is checked against a plain list. */
#include "net/put_wire.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { N_RANKS = 3, RANK = 1, MOST = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned char key[32] = "a key that attackers do not know";

struct used { /* serials that were believed */
    uint64_t serials[MOST];
    size_t n;
    uint64_t newest;
};

static int is_new(const struct used *used, uint64_t serial)
{
    if (serial == 0 || (used->newest >= TT_PUT_WINDOW && serial <= used->newest - TT_PUT_WINDOW))
        return 0;
    for (size_t i = 0; i < used->n; i++)
        if (used->serials[i] == serial)
            return 0;
    return 1;
}

static void check_shape(const struct tt_put_header *h, size_t n_header, size_t n_data)
{
    CHECK(h->kind >= TT_PUT_WRITE && h->kind <= TT_PUT_NOTHING && h->has_word <= 1);
    CHECK(n_header == sizeof(*h) + h->head_bytes && h->head_bytes <= TT_PUT_MOST_HEAD);
    CHECK(n_data <= TT_PUT_MOST_DATA);
    CHECK(h->kind == TT_PUT_WRITE || (n_data == 0 && h->head_bytes == 0 && !h->has_word));
    CHECK(h->from < N_RANKS && h->from != RANK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct used used[N_RANKS];
    static struct tt_put_peer peers[N_RANKS];

    memset(used, 0, sizeof(used));
    memset(peers, 0, sizeof(peers));
    tt_put_tokens(key, RANK, N_RANKS, peers);
    for (size_t n = 0; size >= 4 && n < MOST; n++) {
        const size_t want = 4 + (size_t)data[1], bytes = want < size ? want : size;
        const size_t n_header = bytes - 4, n_data = (size_t)data[2] << (data[3] % 16);
        unsigned char header[256];
        struct tt_put_header h, meant;
        enum tt_put_verdict verdict;

        memcpy(header, data + 4, n_header);
        if (data[0] % 4 != 0 && n_header >= sizeof(h)) {
            memcpy(&meant, header, sizeof(meant));
            meant.from %= N_RANKS;
            memcpy(meant.token, peers[meant.from].token_in, sizeof(meant.token));
            memcpy(header, &meant, sizeof(meant));
        }
        verdict = tt_put_parse(peers, RANK, N_RANKS, header, n_header, n_data, &h);
        CHECK(tt_put_verdict_text(verdict)[0] != 0);
        CHECK(verdict != TT_PUT_GOOD || data[0] % 4 != 0); /* nobody has a token by chance */
        if (verdict == TT_PUT_GOOD)
            check_shape(&h, n_header, n_data);
        if (verdict == TT_PUT_REPLAYED)
            CHECK(!is_new(&used[h.from], h.serial));
        if (verdict == TT_PUT_GOOD && h.kind != TT_PUT_FLUSHED) {
            struct used *u = &used[h.from];

            CHECK(is_new(u, h.serial));
            u->serials[u->n++] = h.serial;
            u->newest = h.serial > u->newest ? h.serial : u->newest;
        }
        data += bytes;
        size -= bytes;
    }
    return 0;
}
