/* Tokens, serials and shapes of puts that travel as messages. */
#include "net/put_wire.h"

#include <string.h>

#include "base/sha256.h"

_Static_assert(sizeof(struct tt_put_header) == 64,
               "the same on all hosts: nothing between members");

static void make_token(const unsigned char key[32], int from, int to,
                       unsigned char token_out[TT_PUT_TOKEN_BYTES])
{
    static const char purpose[] = "tutti put";
    const uint32_t ends[] = {(uint32_t)from, (uint32_t)to};
    unsigned char digest[TT_SHA256_BYTES];
    struct tt_hmac hmac;

    tt_hmac_begin(&hmac, key, 32);
    tt_hmac_add(&hmac, purpose, sizeof(purpose));
    tt_hmac_add(&hmac, ends, sizeof(ends));
    tt_hmac_end(&hmac, digest);
    memcpy(token_out, digest, TT_PUT_TOKEN_BYTES);
}

void tt_put_tokens(const unsigned char key[32], int rank, int n_ranks, struct tt_put_peer peers[])
{
    for (int r = 0; r < n_ranks; r++) {
        make_token(key, r, rank, peers[r].token_in);
        make_token(key, rank, r, peers[r].token_out);
    }
}

/* Messages may overtake one another a little, so there is a window, as IPsec has it. */
static int use_serial(struct tt_put_peer *p, uint64_t serial)
{
    uint64_t *word = &p->seen[serial / 64 % (TT_PUT_WINDOW / 64)];
    const uint64_t bit = UINT64_C(1) << serial % 64;

    if (serial == 0 || (p->newest >= TT_PUT_WINDOW && serial <= p->newest - TT_PUT_WINDOW))
        return -1;
    if (serial > p->newest && serial - p->newest > TT_PUT_WINDOW) {
        memset(p->seen, 0, sizeof(p->seen));
        p->newest = serial;
    }
    while (p->newest < serial) {
        p->newest++;
        p->seen[p->newest / 64 % (TT_PUT_WINDOW / 64)] &= ~(UINT64_C(1) << p->newest % 64);
    }
    if (*word & bit)
        return -1;
    *word |= bit;
    return 0;
}

static int is_shaped(const struct tt_put_header *h, size_t n_header, size_t n_data)
{
    if (h->kind < TT_PUT_WRITE || h->kind > TT_PUT_NOTHING || h->has_word > 1 ||
        h->head_bytes > TT_PUT_MOST_HEAD || h->head_bytes != n_header - sizeof(*h) ||
        n_data > TT_PUT_MOST_DATA)
        return 0;
    return h->kind == TT_PUT_WRITE || (h->head_bytes == 0 && n_data == 0 && !h->has_word);
}

enum tt_put_verdict tt_put_parse(struct tt_put_peer peers[], int rank, int n_ranks,
                                 const void *header, size_t n_header, size_t n_data,
                                 struct tt_put_header *out)
{
    if (n_header < sizeof(*out))
        return TT_PUT_MALFORMED;
    memcpy(out, header, sizeof(*out));
    if (out->from >= (uint32_t)n_ranks || out->from == (uint32_t)rank ||
        !tt_equal_secret(out->token, peers[out->from].token_in, sizeof(out->token)))
        return TT_PUT_FORGED;
    if (!is_shaped(out, n_header, n_data))
        return TT_PUT_MALFORMED;
    if (out->kind != TT_PUT_FLUSHED && use_serial(&peers[out->from], out->serial) != 0)
        return TT_PUT_REPLAYED;
    return TT_PUT_GOOD;
}

const char *tt_put_verdict_text(enum tt_put_verdict verdict)
{
    switch (verdict) {
    case TT_PUT_GOOD: break;
    case TT_PUT_FORGED: return "it does not carry the token of a rank";
    case TT_PUT_REPLAYED: return "it has come before";
    case TT_PUT_MALFORMED: return "it is none of this protocol's";
    }
    return "it is good";
}
