#include "bench.h"

#include <stdlib.h>
#include <string.h>

const struct bench_traits bench_traits[BENCH_N_COLLECTIVES] = {
    /* name, reduces, rooted, in place, team, busbw */
    [BENCH_ALL_REDUCE] = {"all_reduce", 1, 0, 1, 1, 3},
    [BENCH_REDUCE_SCATTER] = {"reduce_scatter", 1, 0, 1, 1, 2},
    [BENCH_REDUCE_SCATTERV] = {"reduce_scatterv", 1, 0, 0, 0, 2},
    [BENCH_ALL_GATHER] = {"all_gather", 0, 0, 1, 1, 2},
    [BENCH_ALL_GATHERV] = {"all_gatherv", 0, 0, 0, 0, 2},
    [BENCH_ALL_GATHERV_ROWS] = {"all_gatherv_rows", 0, 0, 0, 0, 2},
    [BENCH_ALL_TO_ALL] = {"all_to_all", 0, 0, 1, 1, 2},
    [BENCH_ALL_TO_ALLV] = {"all_to_allv", 0, 0, 0, 0, 2},
    [BENCH_BROADCAST] = {"broadcast", 0, 1, 1, 1, 1},
    [BENCH_REDUCE] = {"reduce", 1, 1, 1, 0, 1},
    [BENCH_GATHER] = {"gather", 0, 1, 1, 0, 2},
    [BENCH_SCATTER] = {"scatter", 0, 1, 1, 0, 2},
    [BENCH_SENDRECV] = {"sendrecv", 0, 0, 0, 0, 1},
    [BENCH_BARRIER] = {"barrier", 0, 0, 0, 0, 0},
};

int bench_find_collective(const char *name)
{
    for (int i = 0; i < BENCH_N_COLLECTIVES; i++)
        if (strcmp(bench_traits[i].name, name) == 0)
            return i;
    return -1;
}

int bench_find_dtype(const char *name)
{
    for (int i = 0; i < TUTTI_N_DTYPES; i++)
        if (strcmp(tutti_dtype_name((tutti_dtype)i), name) == 0)
            return i;
    return -1;
}

int bench_find_op(const char *name)
{
    for (int i = 0; i < TUTTI_N_OPS; i++)
        if (strcmp(tutti_op_name((tutti_op)i), name) == 0)
            return i;
    return -1;
}

double bench_busbw_factor(enum bench_id id, int n_ranks)
{
    const double n = n_ranks;

    switch (bench_traits[id].busbw) {
    case 1: return 1;
    case 2: return (n - 1) / n;
    case 3: return 2 * (n - 1) / n;
    default: return 0;
    }
}

static int unknown_collective(const char *name)
{
    const char *names[BENCH_N_COLLECTIVES + 1];
    const char *near;

    for (int i = 0; i < BENCH_N_COLLECTIVES; i++)
        names[i] = bench_traits[i].name;
    names[BENCH_N_COLLECTIVES] = "all";
    near = cli_nearest(name, names, BENCH_N_COLLECTIVES + 1);
    if (near)
        return cli_error("no collective %s; did you mean %s?", name, near);
    return cli_error("no collective %s; `tutti help bench` lists them", name);
}

/* Does the library offer this algorithm for that collective? */
static int offers(enum bench_id id, const char *algorithm)
{
    const char *name;

    for (size_t i = 0; tutti_algorithm_name(bench_traits[id].name, i, &name) == TUTTI_OK; i++)
        if (strcmp(name, algorithm) == 0 || strcmp(algorithm, "all") == 0)
            return 1;
    return 0;
}

static int no_algorithm(const char *algorithm)
{
    cli_error("none of these collectives has an algorithm %s. There are:", algorithm);
    for (int i = 0; i < BENCH_N_COLLECTIVES; i++) {
        const char *name;

        if (tutti_algorithm_name(bench_traits[i].name, 0, &name) != TUTTI_OK)
            continue;
        fprintf(stderr, "  %s:", bench_traits[i].name);
        for (size_t k = 0; tutti_algorithm_name(bench_traits[i].name, k, &name) == TUTTI_OK; k++)
            fprintf(stderr, " %s", name);
        fputc('\n', stderr);
    }
    return 2;
}

static void add_cell(const struct bench_options *options, struct bench_plan *plan, enum bench_id id,
                     int dtype, int op, size_t bytes)
{
    struct bench_cell *cell;

    if (plan->n_cells >= BENCH_MAX_CELLS)
        return;
    cell = &plan->cells[plan->n_cells++];
    cell->id = id;
    cell->dtype = (tutti_dtype)dtype;
    cell->op = (tutti_op)op;
    cell->bytes = bytes;
    cell->even_counts = options->even_counts;
    cell->row = (size_t)options->row;
}

static void add_sizes(const struct bench_options *options, struct bench_plan *plan,
                      enum bench_id id, int dtype, int op)
{
    size_t bytes = options->min_bytes;

    for (;;) {
        add_cell(options, plan, id, dtype, op, bytes);
        if (bytes >= options->max_bytes || plan->n_cells >= BENCH_MAX_CELLS)
            break;
        bytes *= (size_t)options->factor;
        if (bytes > options->max_bytes)
            bytes = options->max_bytes;
    }
}

static int add_collective(const struct bench_options *options, struct bench_plan *plan,
                          enum bench_id id)
{
    const char *dtypes = options->dtypes;
    char word[16];
    char op_word[16];

    if (id == BENCH_BARRIER) {
        add_cell(options, plan, id, TUTTI_DTYPE_U8, TUTTI_OP_SUM, 0);
        return 0;
    }
    if (!dtypes)
        dtypes = bench_traits[id].reduces ? "f32,bf16" : "f32";
    if (id == BENCH_ALL_GATHERV_ROWS)
        dtypes = "u8"; /* rows are bytes */
    for (size_t k = 0; cli_word(dtypes, k, word, sizeof(word)); k++) {
        const int dtype = bench_find_dtype(word);

        if (dtype < 0)
            return cli_error("no dtype %s; there are f32 f16 bf16 f64 i8 u8 i32 u32 i64 u64 e4m3 "
                             "e5m2",
                             word);
        for (size_t j = 0; cli_word(options->ops, j, op_word, sizeof(op_word)); j++) {
            const int op = bench_find_op(op_word);

            if (op < 0)
                return cli_error("no operation %s; there are sum prod max min avg", op_word);
            if (j == 0 || bench_traits[id].reduces)
                add_sizes(options, plan, id, dtype, op);
        }
    }
    return 0;
}

int bench_plan_make(const struct bench_options *options, struct bench_plan *plan_out)
{
    int wanted[BENCH_N_COLLECTIVES] = {0};

    memset(plan_out, 0, sizeof(*plan_out));
    plan_out->n_ranks = options->n_ranks;
    plan_out->cells = cli_alloc(BENCH_MAX_CELLS * sizeof(*plan_out->cells));
    for (int i = 0; i < BENCH_N_COLLECTIVES && options->collectives[i]; i++) {
        const int id = bench_find_collective(options->collectives[i]);
        const int all = strcmp(options->collectives[i], "all") == 0;

        if (id < 0 && !all)
            return unknown_collective(options->collectives[i]);
        for (int k = 0; k < BENCH_N_COLLECTIVES; k++)
            wanted[k] |= all || k == id;
    }
    for (int i = 0; i < BENCH_N_COLLECTIVES; i++) {
        int status;

        wanted[i] &= !options->algorithm || offers((enum bench_id)i, options->algorithm);
        wanted[i] &= options->n_threads <= 1 || bench_traits[i].team;
        if (!wanted[i])
            continue;
        plan_out->n_collectives++;
        status = add_collective(options, plan_out, (enum bench_id)i);
        if (status)
            return status;
    }
    if (plan_out->n_cells == 0 && options->algorithm)
        return no_algorithm(options->algorithm);
    if (plan_out->n_cells == 0)
        return cli_error("--threads works with all_reduce, reduce_scatter, all_gather, all_to_all "
                         "and broadcast only");
    return 0;
}
