#include "coll/tune_rows.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/error.h"
#include "coll/select.h"

#define HEADER      "tutti-tune 1"
#define LINE_BYTES  512
#define CPU_WORDS   4
#define GPU_WORDS   8
#define MOST_BLOCKS 65535u /* that a file may name; what runs at once is checked when it is used */

static int refuse(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char *why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, TT_TUNE_WHY_BYTES, format, args);
    va_end(args);
    return -1;
}

/* "16x256", or "auto" */
static int parse_width(const char *text, struct tt_width *width, char *why)
{
    unsigned blocks, threads;
    char after;

    if (strcmp(text, "auto") == 0)
        return 0;
    if (strspn(text, "0123456789x") != strlen(text) || strlen(text) > 11 ||
        sscanf(text, "%ux%u%c", &blocks, &threads, &after) != 2)
        return refuse(why, "\"%s\" is not blocks x threads, as 16x256, nor auto", text);
    if (blocks < 1 || blocks > MOST_BLOCKS)
        return refuse(why, "%u blocks: there must be 1 to %u", blocks, MOST_BLOCKS);
    if (threads < 32 || threads > 1024 || threads % 32 != 0)
        return refuse(why, "%u threads: a block has a multiple of 32 up to 1024", threads);
    width->n_blocks = (uint16_t)blocks;
    width->n_threads = (uint16_t)threads;
    return 0;
}

static int parse_lists(const char *buffers, const char *wire, struct tt_tune_row *row, char *why)
{
    const unsigned sentinel = 1u << TT_TUNE_ORDINARY | 1u << TT_TUNE_WINDOWS;
    const unsigned windows = 1u << TT_TUNE_WINDOWS | 1u << TT_TUNE_WINDOWS_PACKETS;
    const unsigned all = (1u << TT_N_TUNE_FOR) - 1;
    const int reduces = row->coll == TT_COLL_ALL_REDUCE || row->coll == TT_COLL_REDUCE_SCATTER ||
                        row->coll == TT_COLL_REDUCE;

    row->lists = all;
    if (strcmp(buffers, "windows") == 0)
        row->lists &= windows;
    else if (strcmp(buffers, "ordinary") == 0)
        row->lists &= ~windows;
    else if (strcmp(buffers, "any") != 0)
        return refuse(why, "buffers \"%s\": there are ordinary, windows and any", buffers);
    if (strcmp(wire, "any") == 0)
        return 0;
    if (!reduces)
        return refuse(why, "wire \"%s\": what only moves data has any", wire);
    if (strcmp(wire, "sentinel") == 0)
        row->lists &= sentinel;
    else if (strcmp(wire, "packets") == 0)
        row->lists &= ~sentinel;
    else
        return refuse(why, "wire \"%s\": there are sentinel, packets and any", wire);
    return 0;
}

/* Can a GPU do it that way? */
static int check_gpu_algo(const struct tt_tune_row *row, char *why)
{
    const unsigned ordinary = 1u << TT_TUNE_ORDINARY | 1u << TT_TUNE_ORDINARY_PACKETS;
    const int rooted =
        row->coll == TT_COLL_REDUCE || row->coll == TT_COLL_GATHER || row->coll == TT_COLL_SCATTER;

    switch (row->algo) {
    case TT_ALGO_AUTO:
        return row->width.n_blocks ? refuse(why, "auto chooses its launch itself: auto auto") : 0;
    case TT_ALGO_ONE_SHOT:
        return row->coll == TT_COLL_REDUCE_SCATTER
                   ? refuse(why, "reduce_scatter has no one_shot on GPUs: two_shot or direct")
                   : 0;
    case TT_ALGO_DIRECT:
        if (rooted)
            return refuse(why, "%s has no direct on GPUs: one_shot or two_shot",
                          tt_coll_name(row->coll));
        return row->lists & ordinary
                   ? refuse(why, "direct is for buffers in windows only: ... direct %s windows ...",
                            row->width.n_blocks ? "16x256" : "auto")
                   : 0;
    case TT_ALGO_TWO_SHOT: return 0;
    default:
        return refuse(why, "GPUs have no %s: one_shot, two_shot, direct or auto",
                      tt_algo_name(row->algo));
    }
}

static int check_cpu_algo(const struct tt_tune_row *row, char *why)
{
    enum tt_algo known;

    for (size_t i = 0; (known = tt_select_known(row->coll, i)) != TT_ALGO_AUTO; i++)
        if (known == row->algo)
            return 0;
    return refuse(why, "%s has no algorithm %s in host memory", tt_coll_name(row->coll),
                  tt_algo_name(row->algo));
}

static int parse_words(char words[GPU_WORDS][LINE_BYTES], int n_words, struct tt_tune_row *row,
                       char *why)
{
    const int coll = tt_coll_from_name(words[0]), algo = tt_algo_from_name(words[3]);
    uint64_t ranks;

    if (coll < 0 || coll == TT_COLL_BARRIER || coll == TT_COLL_SEND_RECV)
        return refuse(why, "\"%.40s\" is no collective that has a choice", words[0]);
    if (tt_env_parse_number(words[1], &ranks) != 0 || ranks < 1 || ranks > INT_MAX)
        return refuse(why, "\"%.40s\" is no number of ranks", words[1]);
    if (algo < 0)
        return refuse(why, "there is no algorithm \"%.40s\"", words[3]);
    row->coll = (enum tt_coll)coll;
    row->algo = (enum tt_algo)algo;
    row->n_ranks = (int)ranks;
    row->max_bytes = UINT64_MAX;
    if (strcmp(words[2], "inf") != 0 && tt_env_parse_bytes(words[2], &row->max_bytes) != 0)
        return refuse(why, "\"%.40s\" is no size, as 4096, 64K or inf", words[2]);
    row->lists = 1u << TT_TUNE_ORDINARY;
    if (n_words == CPU_WORDS)
        return check_cpu_algo(row, why);
    row->on_gpu = 1;
    if (strlen(words[7]) >= sizeof(row->gpu))
        return refuse(why, "the GPU's name is longer than %zu bytes", sizeof(row->gpu) - 1);
    memcpy(row->gpu, words[7], strlen(words[7]) + 1);
    if (parse_width(words[4], &row->width, why) != 0 ||
        parse_lists(words[5], words[6], row, why) != 0)
        return -1;
    return check_gpu_algo(row, why);
}

int tt_tune_parse(const char *line, struct tt_tune_row *row_out, char *why)
{
    char words[GPU_WORDS][LINE_BYTES];
    struct tt_tune_row row;
    int n = 0;

    for (;;) {
        const char *word = line + strspn(line, " \t\r\n");
        const size_t length = strcspn(word, " \t\r\n");

        if (*word == 0 || (n == 0 && *word == '#'))
            break;
        if (n == GPU_WORDS || length >= LINE_BYTES) {
            n = -1;
            break;
        }
        memcpy(words[n], word, length);
        words[n++][length] = 0;
        line = word + length;
    }
    if (n == 0)
        return 0;
    if (n != CPU_WORDS && n != GPU_WORDS)
        return refuse(why,
                      "expected \"op ranks max_bytes algorithm\", and on GPUs \"blocksxthreads "
                      "buffers wire gpu\" behind it");
    memset(&row, 0, sizeof(row));
    if (parse_words(words, n, &row, why) != 0)
        return -1;
    *row_out = row;
    return 1;
}

tutti_result tt_tune_read(const char *path, tt_tune_take take, void *context)
{
    FILE *f = fopen(path, "re");
    char line[LINE_BYTES];
    char why[TT_TUNE_WHY_BYTES];
    int number = 1;
    tutti_result res = TUTTI_OK;

    if (!f)
        return TT_FAIL_SYS("tune file %s", path);
    if (!fgets(line, sizeof(line), f) || strcmp(line, HEADER "\n") != 0)
        res = TT_FAIL(TUTTI_E_ARG,
                      "%s does not begin with \"" HEADER "\": make it with `tutti tune`", path);
    while (res == TUTTI_OK && fgets(line, sizeof(line), f)) {
        struct tt_tune_row row = {.n_ranks = 0};
        const int whole = strchr(line, '\n') || feof(f);
        int is_row = whole ? tt_tune_parse(line, &row, why)
                           : refuse(why, "the line is longer than %d bytes", LINE_BYTES - 2);

        number++;
        if (is_row == 1 && take(context, &row, why) != 0)
            is_row = -1;
        if (is_row < 0)
            res = TT_FAIL(TUTTI_E_ARG, "%s:%d: %s; correct the line, or measure with `tutti tune`",
                          path, number, why);
    }
    if (res == TUTTI_OK && ferror(f))
        res = TT_FAIL_SYS("tune file %s", path);
    fclose(f);
    return res;
}

int tt_tune_is_gpu(const char *gpu, const char *name)
{
    while (*gpu && (*gpu == *name || (*gpu == '_' && isspace((unsigned char)*name)))) {
        gpu++;
        name++;
    }
    return *gpu == *name;
}

struct count {
    const char *name;
    int n_rows, n_others;
};

static int count_row(void *context, const struct tt_tune_row *row, char *why)
{
    struct count *count = context;

    (void)why;
    if (row->on_gpu && tt_tune_is_gpu(row->gpu, count->name))
        count->n_rows++;
    else if (row->on_gpu)
        count->n_others++;
    return 0;
}

tutti_result tt_tune_count(const char *path, const char *name, int *n_rows_out, int *n_others_out)
{
    struct count count = {.name = name};

    TT_TRY(tt_tune_read(path, count_row, &count));
    *n_rows_out = count.n_rows;
    *n_others_out = count.n_others;
    return TUTTI_OK;
}
