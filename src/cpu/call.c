/* What a call is, in 64 bits: ranks compare these words at every meeting. */
#include <stdio.h>

#include "cpu/cpu.h"

static const char *const coll_text[] = {
#define TEXT(name, text) text,
    TT_COLL_MAP(TEXT)
#undef TEXT
};

static const char *const purpose_text[] = {
#define TEXT(name, text) text,
    TT_PURPOSE_MAP(TEXT)
#undef TEXT
};

void tt_what_text(uint64_t what, char *text, size_t bytes)
{
    const unsigned coll = what & 31, dtype = what >> 5 & 31, op = what >> 10 & 15;
    const unsigned purpose = (unsigned)(what >> TT_PURPOSE_SHIFT);
    const unsigned root = (unsigned)(what >> 25);
    const char *name = coll < TT_LEN(coll_text) ? coll_text[coll] : "?";

    if (purpose != TT_FOR_CALLER) {
        snprintf(text, bytes, "%s", purpose < TT_N_PURPOSES ? purpose_text[purpose] : "?");
        return;
    }
    switch (coll) {
    case TT_COLL_BARRIER:
    case TT_COLL_SEND_RECV: snprintf(text, bytes, "%s", name); return;
    case TT_COLL_ALL_REDUCE:
    case TT_COLL_REDUCE_SCATTER:
        snprintf(text, bytes, "%s %s %s", name, tt_dtype_name((tutti_dtype)dtype),
                 tt_op_name((tutti_op)op));
        return;
    case TT_COLL_REDUCE:
        snprintf(text, bytes, "%s %s %s root %u", name, tt_dtype_name((tutti_dtype)dtype),
                 tt_op_name((tutti_op)op), root);
        return;
    case TT_COLL_BROADCAST:
    case TT_COLL_GATHER:
    case TT_COLL_SCATTER:
        snprintf(text, bytes, "%s %s root %u", name, tt_dtype_name((tutti_dtype)dtype), root);
        return;
    default: snprintf(text, bytes, "%s %s", name, tt_dtype_name((tutti_dtype)dtype)); return;
    }
}

uint64_t tt_hash_on(uint64_t h, uint64_t x)
{
    h = (h ^ x) * UINT64_C(0xff51afd7ed558ccd);
    return h ^ h >> 32;
}

uint64_t tt_counts_hash(const size_t *counts, size_t n)
{
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15);

    for (size_t i = 0; i < n; i++)
        h = tt_hash_on(h, counts[i]);
    return h;
}
