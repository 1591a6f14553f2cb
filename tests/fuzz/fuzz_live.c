/*
 * A communicator's segment that another process has made, and lines of its fdinfo, as `tutti info --live` reads
 * them. The first byte says which: a line, or a header with what is behind it, in a segment that is as long
 * as the header says or as the input is.
 */
#include "cpu/live.h"
#include "cpu/cpu_engine.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define MOST_BYTES ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_line(const uint8_t *data, size_t size)
{
    char *line = malloc(size + 1);
    int rank;

    CHECK(line);
    if (size > 0)
        memcpy(line, data, size);
    line[size] = 0;
    rank = tt_live_rank(line, 8);
    CHECK(rank >= -1 && rank < 8);
    free(line);
}

static void check_text(const char *text, size_t bytes)
{
    CHECK(memchr(text, 0, bytes));
    for (; *text; text++)
        CHECK(*text >= 0x20 && *text < 0x7f);
}

static void try_segment(const uint8_t *data, size_t size, int as_long_as_said)
{
    tutti_live_comm comm = {.size = sizeof(comm)};
    struct tt_segment head;
    size_t bytes = (size + TT_PAGE - 1) / TT_PAGE * TT_PAGE;
    unsigned char *at;
    tutti_stats *stats;

    if (size < sizeof(head))
        return;
    memcpy((void *)&head, data, sizeof(head));
    if (as_long_as_said && head.total_bytes >= size && head.total_bytes <= MOST_BYTES)
        bytes = (size_t)head.total_bytes;
    at = aligned_alloc(TT_PAGE, (bytes + TT_PAGE - 1) / TT_PAGE * TT_PAGE);
    CHECK(at);
    memset(at, 0x5a, bytes);
    memcpy(at, data, size);
    stats = tt_live_read(&head, at, bytes, &comm);
    if (stats) {
        CHECK(comm.n_ranks > 0 && comm.n_ranks <= TT_CPU_MAX_RANKS);
        check_text(comm.name, sizeof(comm.name));
        for (int r = 0; r < comm.n_ranks; r++) {
            CHECK(stats[r].rank == r);
            check_text(stats[r].last_call, sizeof(stats[r].last_call));
        }
    }
    free(stats);
    free(at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > MOST_BYTES)
        return 0;
    if (data[0] % 3 == 0)
        try_line(data + 1, size - 1);
    else
        try_segment(data + 1, size - 1, data[0] % 3 == 1);
    return 0;
}
