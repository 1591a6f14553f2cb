/*
 * Lines of tune files: "op ranks max_bytes algorithm". What is accepted means what it says: printed
 * again from its fields it parses to the same row.
 */
#include "coll/select.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int known(enum tt_coll coll, enum tt_algo algo)
{
    enum tt_algo a;

    for (size_t i = 0; (a = tt_select_known(coll, i)) != TT_ALGO_AUTO; i++)
        if (a == algo)
            return 1;
    return 0;
}

static void try_line(const char *line)
{
    struct tt_tune_row row = {.n_ranks = -1}, again;
    char text[128], ranks[16];
    const int kind = tt_tune_parse(line, &row);

    CHECK(kind >= -1 && kind <= 1);
    if (kind != 1) {
        CHECK(row.n_ranks == -1); /* nothing is stored of a line that is no row */
        return;
    }
    CHECK((int)row.coll >= 0 && row.coll < TT_N_COLLS && row.n_ranks >= 1);
    CHECK(known(row.coll, row.algo));
    snprintf(ranks, sizeof(ranks), "%d", row.n_ranks);
    CHECK(strstr(line, ranks)); /* a number that does not fit is no row, not another number */
    snprintf(text, sizeof(text), "%s %d %" PRIu64 " %s", tt_coll_name(row.coll), row.n_ranks,
             row.max_bytes, tt_algo_name(row.algo));
    CHECK(tt_tune_parse(text, &again) == 1);
    CHECK(again.coll == row.coll && again.n_ranks == row.n_ranks && again.algo == row.algo &&
          again.max_bytes == row.max_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    CHECK(text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    try_line(text);
    free(text);
    return 0;
}
