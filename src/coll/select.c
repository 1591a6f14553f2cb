#include "coll/select.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"

/* Small calls through windows gain nothing over scratch: their one exchange of flags is all. */
#define DIRECT_FROM_PAIR 1025u /* two ranks */
#define DIRECT_FROM      512u  /* more */

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

static int has_two_shot(enum tt_coll coll)
{
    return coll == TT_COLL_ALL_REDUCE || coll == TT_COLL_REDUCE;
}

enum tt_algo tt_select_known(enum tt_coll coll, size_t index)
{
    static const enum tt_algo reducing[] = {TT_ALGO_ONE_SHOT, TT_ALGO_TWO_SHOT, TT_ALGO_XMEM,
                                            TT_ALGO_DIRECT};
    static const enum tt_algo moving[] = {TT_ALGO_ONE_SHOT, TT_ALGO_XMEM, TT_ALGO_DIRECT};

    if (has_two_shot(coll))
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
    return has_two_shot(coll) ? TT_ALGO_TWO_SHOT : TT_ALGO_ONE_SHOT;
}

/* One row for all sizes of a collective. */
static void always(struct tt_select *select, int coll, int list, int algo)
{
    select->row[coll][list][0] = (struct tt_select_row){UINT64_MAX, (uint16_t)algo, {0, 0}, 0};
}

static void always_for_all(struct tt_select *select, int algo)
{
    for (int c = 0; c < TT_N_COLLS; c++)
        for (int list = 0; list < TT_N_TUNE_FOR; list++)
            always(select, c, list, algo);
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
            select->row[c][TT_TUNE_ORDINARY][n++] =
                (struct tt_select_row){table[i].max_bytes, (uint16_t)table[i].algo, {0, 0}, 0};
        }
        if (n == 0)
            always(select, c, TT_TUNE_ORDINARY, TT_ALGO_ONE_SHOT);
        select->direct_from[c] = n_ranks > 2 ? DIRECT_FROM : DIRECT_FROM_PAIR;
    }
}

/* ---- tune files ---- */

struct filling {
    struct tt_select *select;
    const struct tt_select_place *place;
    size_t n[TT_N_COLLS][TT_N_TUNE_FOR]; /* rows of the file; they replace the built-in ones */
    int n_rows, n_others;                /* for this GPU, for others */
};

static int check_width(const struct tt_launch_limits *limits, struct tt_width width, char *why)
{
    if (width.n_blocks > limits->max_blocks)
        snprintf(
            why, TT_TUNE_WHY_BYTES,
            "%d blocks: at most %d can run at once on the GPUs of these ranks, and blocks wait "
            "for those of the peers",
            width.n_blocks, limits->max_blocks);
    else if (width.n_threads > limits->max_threads)
        snprintf(why, TT_TUNE_WHY_BYTES, "%d threads: a block of this engine has at most %d",
                 width.n_threads, limits->max_threads);
    else
        return 0;
    return -1;
}

static int append(struct filling *f, const struct tt_tune_row *row, int list, char *why)
{
    struct tt_select_row *rows = f->select->row[row->coll][list];
    size_t *n = &f->n[row->coll][list];

    if (*n >= TT_SELECT_ROWS - 1u) {
        snprintf(why, TT_TUNE_WHY_BYTES, "more than %d rows for %s", TT_SELECT_ROWS - 1,
                 coll_names[row->coll]);
        return -1;
    }
    if (*n > 0 && row->max_bytes <= rows[*n - 1].max_bytes) {
        snprintf(why, TT_TUNE_WHY_BYTES, "max_bytes must rise from row to row of %s",
                 coll_names[row->coll]);
        return -1;
    }
    rows[*n] = (struct tt_select_row){row->max_bytes, (uint16_t)row->algo, row->width, 0};
    ++*n;
    return 0;
}

static int take_row(void *context, const struct tt_tune_row *row, char *why)
{
    struct filling *f = context;
    const int on_gpu = f->place->kind == TT_SELECT_GPU;

    if (row->on_gpu != on_gpu || row->n_ranks != f->place->n_ranks)
        return 0;
    if (on_gpu && !tt_tune_is_gpu(row->gpu, f->place->limits.gpu)) {
        f->n_others++;
        return 0;
    }
    if (!on_gpu && row->algo == TT_ALGO_DIRECT)
        return 0; /* which says from which size windows are used: no choice for other buffers */
    if (on_gpu && check_width(&f->place->limits, row->width, why) != 0)
        return -1;
    for (int list = 0; list < TT_N_TUNE_FOR; list++)
        if (row->lists >> list & 1 && append(f, row, list, why) != 0)
            return -1;
    f->n_rows++;
    return 0;
}

/* Beyond a file's last row: on the CPU the row goes on, on GPUs the engine chooses. */
static void end_lists(struct filling *f)
{
    for (int c = 0; c < TT_N_COLLS; c++)
        for (int list = 0; list < TT_N_TUNE_FOR; list++) {
            struct tt_select_row *rows = f->select->row[c][list];
            const size_t n = f->n[c][list];

            if (n == 0 || rows[n - 1].max_bytes == UINT64_MAX)
                continue;
            if (f->place->kind == TT_SELECT_GPU)
                rows[n] = (struct tt_select_row){UINT64_MAX, TT_ALGO_AUTO, {0, 0}, 0};
            else
                rows[n - 1].max_bytes = UINT64_MAX;
        }
}

static tutti_result load(struct tt_select *select, const struct tt_select_place *place)
{
    struct filling filling = {.select = select, .place = place};

    TT_TRY(tt_tune_read(place->tune_file, take_row, &filling));
    end_lists(&filling);
    if (filling.n_others > 0)
        TT_LOG(filling.n_rows > 0 ? TUTTI_LOG_INFO : TUTTI_LOG_WARN, 0, place->n_ranks,
               "%s: %d rows for %d ranks are of other GPUs than this %s and are left out",
               place->tune_file, filling.n_others, place->n_ranks, place->limits.gpu);
    if (filling.n_rows > 0)
        snprintf(select->source, sizeof(select->source), "%d rows of %s", filling.n_rows,
                 place->tune_file);
    return TUTTI_OK;
}

static tutti_result force_one(struct tt_select *select, enum tt_select_kind kind, const char *name)
{
    const int algo = tt_algo_from_name(name);

    if (algo < 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "no algorithm \"%s\" (config.algorithm or TUTTI_ALGO): there are one_shot, "
                       "two_shot, xmem, direct (and auto; across hosts also flat)",
                       name);
    if (kind == TT_SELECT_HOSTS) {
        for (int c = 0; c < TT_N_COLLS && algo == TT_ALGO_FLAT; c++)
            always(select, c, TT_TUNE_ORDINARY, TT_ALGO_FLAT);
        return TUTTI_OK;
    }
    if (algo == TT_ALGO_AUTO || algo == TT_ALGO_FLAT) /* on one host every algorithm is flat */
        return TUTTI_OK;
    if (algo == TT_ALGO_XMEM && kind == TT_SELECT_GPU)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "algorithm xmem is for host memory; on GPUs there are "
                                            "one_shot, two_shot and direct (and auto)");
    if (algo == TT_ALGO_XMEM && kind != TT_SELECT_CPU_XMEM)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "algorithm xmem was asked for, but the ranks may not "
                                            "read each other's memory (see tutti info)");
    if (kind == TT_SELECT_GPU)
        always_for_all(select, algo);
    for (int c = 0; c < TT_N_COLLS && kind != TT_SELECT_GPU; c++) {
        if (!knows((enum tt_coll)c, (enum tt_algo)algo))
            continue;
        select->direct_from[c] = algo == TT_ALGO_DIRECT ? 0 : UINT64_MAX;
        if (algo != TT_ALGO_DIRECT)
            always(select, c, TT_TUNE_ORDINARY, algo);
    }
    snprintf(select->source, sizeof(select->source), "%s forced", algo_names[algo]);
    return TUTTI_OK;
}

tutti_result tt_select_make(struct tt_select *select, const struct tt_select_place *place)
{
    memset(select, 0, sizeof(*select));
    snprintf(select->source, sizeof(select->source), "built in");
    if (place->kind == TT_SELECT_GPU || place->kind == TT_SELECT_HOSTS)
        always_for_all(select, TT_ALGO_AUTO);
    else
        built_in(select, place->n_ranks);
    select->packets_dtypes = place->limits.packets_dtypes;
    if (place->tune_file[0] && place->kind != TT_SELECT_HOSTS)
        TT_TRY(load(select, place));
    if (place->force[0])
        TT_TRY(force_one(select, place->kind, place->force));
    for (int c = 0; c < TT_N_COLLS; c++)
        for (int i = 0; i < TT_SELECT_ROWS && place->kind != TT_SELECT_CPU_XMEM; i++) {
            struct tt_select_row *row = &select->row[c][TT_TUNE_ORDINARY][i];

            row->algo = (uint16_t)without_xmem((enum tt_coll)c, (enum tt_algo)row->algo);
        }
    return TUTTI_OK;
}

uint32_t tt_select_id(const struct tt_select *select)
{
    const unsigned char *bytes = (const unsigned char *)select;
    const size_t n = offsetof(struct tt_select, source);
    uint64_t hash = 0;

    for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
        uint64_t word = 0;

        memcpy(&word, bytes + i, n - i < sizeof(word) ? n - i : sizeof(word));
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return (uint32_t)hash;
}
