#include "coll/select.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/error.h"

/* Small calls through windows gain nothing over scratch: their one exchange of flags is all. */
#define DIRECT_FROM_PAIR 1025u /* two ranks */
#define DIRECT_FROM      512u  /* more */
#define TUNE_FILE_HEADER "tutti-tune 1"

static const struct {
    enum tt_coll coll;
    int max_ranks;
    uint64_t max_bytes;
    enum tt_algo algo;
} table[] = {
#define ROW(coll, ranks, bytes, algo) {TT_COLL_##coll, ranks, bytes, TT_ALGO_##algo},
#include "coll/select_table.inc"
#undef ROW
};

static const char *const coll_names[] = {
#define NAME(name, text) text,
    TT_COLL_MAP(NAME)
#undef NAME
};

static const char *const algo_names[] = {
#define NAME(name, text) text,
    TT_ALGO_MAP(NAME)
#undef NAME
};

const char *tt_algo_name(enum tt_algo algo)
{
    return algo_names[algo];
}

const char *tt_coll_name(enum tt_coll coll)
{
    return coll_names[coll];
}

int tt_coll_from_name(const char *name)
{
    for (size_t i = 0; i < TT_LEN(coll_names); i++)
        if (strcmp(name, coll_names[i]) == 0)
            return (int)i;
    return -1;
}

int tt_algo_from_name(const char *name)
{
    for (size_t i = 0; i < TT_LEN(algo_names); i++)
        if (strcmp(name, algo_names[i]) == 0)
            return (int)i;
    return -1;
}

enum tt_algo tt_select_known(enum tt_coll coll, size_t index)
{
    static const enum tt_algo reducing[] = {TT_ALGO_ONE_SHOT, TT_ALGO_TWO_SHOT, TT_ALGO_XMEM,
                                            TT_ALGO_DIRECT};
    static const enum tt_algo moving[] = {TT_ALGO_ONE_SHOT, TT_ALGO_XMEM, TT_ALGO_DIRECT};

    if (coll == TT_COLL_ALL_REDUCE)
        return index < TT_LEN(reducing) ? reducing[index] : TT_ALGO_AUTO;
    if (coll == TT_COLL_BARRIER || coll == TT_COLL_SEND_RECV)
        return TT_ALGO_AUTO;
    return index < TT_LEN(moving) ? moving[index] : TT_ALGO_AUTO;
}

static int knows(enum tt_coll coll, enum tt_algo algo)
{
    enum tt_algo known;

    for (size_t i = 0; (known = tt_select_known(coll, i)) != TT_ALGO_AUTO; i++)
        if (known == algo)
            return 1;
    return 0;
}

static enum tt_algo without_xmem(enum tt_coll coll, enum tt_algo algo)
{
    if (algo != TT_ALGO_XMEM)
        return algo;
    return coll == TT_COLL_ALL_REDUCE ? TT_ALGO_TWO_SHOT : TT_ALGO_ONE_SHOT;
}

static void built_in_gpu(struct tt_select *select)
{
    for (int c = 0; c < TT_N_COLLS; c++)
        select->row[c][0] = (struct tt_select_row){UINT64_MAX, TT_ALGO_AUTO, 0};
}

static void built_in(struct tt_select *select, int n_ranks)
{
    for (int c = 0; c < TT_N_COLLS; c++) {
        size_t n = 0;
        int ranks = 0; /* the class of rank counts whose rows these are */

        for (size_t i = 0; i < TT_LEN(table); i++) {
            if ((int)table[i].coll != c || table[i].max_ranks < n_ranks)
                continue;
            if (ranks != 0 && table[i].max_ranks != ranks)
                continue;
            ranks = table[i].max_ranks;
            select->row[c][n].max_bytes = table[i].max_bytes;
            select->row[c][n].algo = table[i].algo;
            n++;
        }
        if (n == 0) {
            select->row[c][0].max_bytes = UINT64_MAX;
            select->row[c][0].algo = TT_ALGO_ONE_SHOT;
        }
        select->direct_from[c] = n_ranks > 2 ? DIRECT_FROM : DIRECT_FROM_PAIR;
    }
}

/* ---- tune files ---- */

int tt_tune_parse(const char *line, struct tt_tune_row *row)
{
    char op[24], n_ranks[24], bytes[24], algo[24], rest[2];
    uint64_t ranks;
    int coll, a;

    while (*line == ' ' || *line == '\t')
        line++;
    if (*line == '#' || *line == '\n' || *line == 0)
        return 0;
    if (sscanf(line, "%23s %23s %23s %23s %1s", op, n_ranks, bytes, algo, rest) != 4 ||
        tt_env_parse_number(n_ranks, &ranks) != 0 || ranks < 1 || ranks > INT_MAX)
        return -1;
    coll = tt_coll_from_name(op);
    a = tt_algo_from_name(algo);
    if (coll < 0 || a <= TT_ALGO_AUTO || !knows((enum tt_coll)coll, (enum tt_algo)a))
        return -1;
    row->max_bytes = UINT64_MAX;
    if (strcmp(bytes, "inf") != 0 && tt_env_parse_bytes(bytes, &row->max_bytes) != 0)
        return -1;
    row->coll = (enum tt_coll)coll;
    row->n_ranks = (int)ranks;
    row->algo = (enum tt_algo)a;
    return 1;
}

/* Append a row that fits; a file's rows for a collective replace the built-in ones. On the CPU DIRECT
 * says from which size windows are used; it is no choice for other buffers. */
static int apply(struct tt_select *select, enum tt_select_kind kind, const struct tt_tune_row *row,
                 size_t n[TT_N_COLLS])
{
    struct tt_select_row *rows = select->row[row->coll];
    const size_t used = n[row->coll];

    if (row->algo == TT_ALGO_DIRECT && kind != TT_SELECT_GPU)
        return 0;
    if (used == TT_SELECT_ROWS || (used > 0 && row->max_bytes <= rows[used - 1].max_bytes))
        return -1;
    rows[used].max_bytes = row->max_bytes;
    rows[used].algo = row->algo;
    n[row->coll]++;
    return 0;
}

static tutti_result load(struct tt_select *select, int n_ranks, enum tt_select_kind kind,
                         const char *path)
{
    FILE *f = fopen(path, "re");
    size_t n[TT_N_COLLS] = {0};
    char line[256];
    int number = 1;
    tutti_result res = TUTTI_OK;

    if (!f)
        return TT_FAIL_SYS("tune file %s", path);
    if (!fgets(line, sizeof(line), f) ||
        strncmp(line, TUNE_FILE_HEADER "\n", sizeof(TUNE_FILE_HEADER)) != 0)
        res = TT_FAIL(TUTTI_E_ARG,
                      "%s does not begin with \"" TUNE_FILE_HEADER "\": make it with `tutti tune`",
                      path);
    while (res == TUTTI_OK && fgets(line, sizeof(line), f)) {
        struct tt_tune_row row;
        const int is_row = tt_tune_parse(line, &row);

        number++;
        if (is_row < 0 ||
            (is_row == 1 && row.n_ranks == n_ranks && apply(select, kind, &row, n) != 0))
            res = TT_FAIL(TUTTI_E_ARG,
                          "%s:%d is not \"op ranks max_bytes algorithm\" with rising max_bytes",
                          path, number);
    }
    fclose(f);
    for (int c = 0; res == TUTTI_OK && c < TT_N_COLLS; c++)
        if (n[c] > 0)
            select->row[c][n[c] - 1].max_bytes = UINT64_MAX;
    return res;
}

static tutti_result force_one(struct tt_select *select, enum tt_select_kind kind, const char *name)
{
    const int algo = tt_algo_from_name(name);

    if (algo < 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "no algorithm \"%s\" (config.algorithm or TUTTI_ALGO): there are one_shot, "
                       "two_shot, xmem, direct (and auto)",
                       name);
    if (algo == TT_ALGO_AUTO)
        return TUTTI_OK;
    if (algo == TT_ALGO_XMEM && kind == TT_SELECT_GPU)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "algorithm xmem is for host memory; on GPUs there are "
                                            "one_shot, two_shot and direct (and auto)");
    if (algo == TT_ALGO_XMEM && kind != TT_SELECT_CPU_XMEM)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "algorithm xmem was asked for, but the ranks may not "
                                            "read each other's memory (see tutti info)");
    for (int c = 0; c < TT_N_COLLS && kind == TT_SELECT_GPU; c++)
        select->row[c][0] = (struct tt_select_row){UINT64_MAX, (uint32_t)algo, 0};
    for (int c = 0; c < TT_N_COLLS && kind != TT_SELECT_GPU; c++) {
        if (!knows((enum tt_coll)c, (enum tt_algo)algo))
            continue;
        select->direct_from[c] = algo == TT_ALGO_DIRECT ? 0 : UINT64_MAX;
        if (algo != TT_ALGO_DIRECT)
            select->row[c][0] = (struct tt_select_row){UINT64_MAX, (uint32_t)algo, 0};
    }
    return TUTTI_OK;
}

tutti_result tt_select_make(struct tt_select *select, int n_ranks, enum tt_select_kind kind,
                            const char *tune_file, const char *force)
{
    memset(select, 0, sizeof(*select));
    if (kind == TT_SELECT_GPU)
        built_in_gpu(select);
    else
        built_in(select, n_ranks);
    if (tune_file[0])
        TT_TRY(load(select, n_ranks, kind, tune_file));
    if (force[0])
        TT_TRY(force_one(select, kind, force));
    for (int c = 0; c < TT_N_COLLS; c++)
        for (int i = 0; i < TT_SELECT_ROWS && kind != TT_SELECT_CPU_XMEM; i++)
            select->row[c][i].algo =
                without_xmem((enum tt_coll)c, (enum tt_algo)select->row[c][i].algo);
    return TUTTI_OK;
}
