/*
 * Lines of tune files. What is accepted means what it says: printed again from its fields it parses to
 * the same row; what is refused comes with a reason, and leaves the row alone.
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

/* The words of a GPU behind those that all rows have. */
static void print_gpu(const struct tt_tune_row *row, char *text, size_t bytes)
{
    static const char *const buffers[] = {"?", "ordinary", "windows", "any"};
    const unsigned sentinel = row->lists & 3, packets = row->lists >> 2;
    char width[16] = "auto";

    CHECK(row->lists > 0 && row->lists < 16);
    CHECK(sentinel == 0 || packets == 0 || sentinel == packets);
    if (row->width.n_blocks)
        snprintf(width, sizeof(width), "%dx%d", row->width.n_blocks, row->width.n_threads);
    snprintf(text, bytes, " %s %s %s %s", width, buffers[sentinel | packets],
             !packets    ? "sentinel"
             : !sentinel ? "packets"
                         : "any",
             row->gpu);
}

static void check_gpu(const struct tt_tune_row *row)
{
    CHECK((row->width.n_blocks == 0) == (row->width.n_threads == 0));
    CHECK(row->width.n_threads % 32 == 0 && row->width.n_threads <= 1024);
    CHECK(row->algo != TT_ALGO_XMEM);
    CHECK(row->algo != TT_ALGO_AUTO || row->width.n_blocks == 0);
    CHECK(row->algo != TT_ALGO_DIRECT || (row->lists & 5) == 0); /* in windows only */
    CHECK(row->algo != TT_ALGO_ONE_SHOT || row->coll != TT_COLL_REDUCE_SCATTER);
    CHECK(row->gpu[0] != 0 && memchr(row->gpu, 0, sizeof(row->gpu)));
}

static void try_line(const char *line)
{
    struct tt_tune_row row, again;
    char text[256], ranks[16], why[TT_TUNE_WHY_BYTES] = "";
    int kind;

    memset(&row, 0, sizeof(row));
    row.n_ranks = -1;
    kind = tt_tune_parse(line, &row, why);
    CHECK(kind >= -1 && kind <= 1);
    CHECK(memchr(why, 0, sizeof(why)) && (kind == -1) == (why[0] != 0));
    if (kind != 1) {
        CHECK(row.n_ranks == -1); /* nothing is stored of a line that is no row */
        return;
    }
    CHECK((int)row.coll >= 0 && row.coll < TT_N_COLLS && row.n_ranks >= 1);
    snprintf(ranks, sizeof(ranks), "%d", row.n_ranks);
    CHECK(strstr(line, ranks)); /* a number that does not fit is no row, not another number */
    snprintf(text, sizeof(text), "%s %d %" PRIu64 " %s", tt_coll_name(row.coll), row.n_ranks,
             row.max_bytes, tt_algo_name(row.algo));
    if (row.on_gpu) {
        check_gpu(&row);
        print_gpu(&row, text + strlen(text), sizeof(text) - strlen(text));
    } else {
        CHECK(known(row.coll, row.algo) && row.lists == 1 && row.width.n_blocks == 0);
    }
    CHECK(tt_tune_parse(text, &again, why) == 1);
    CHECK(memcmp(&again, &row, sizeof(row)) == 0);
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
