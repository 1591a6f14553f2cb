/* What `tutti tune --gpus` tries and keeps, with made-up times. */
#include "../../tools/tune.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

static struct tune_search *search;

static void begin(enum bench_id id, int n_sizes, int max_blocks)
{
    memset(search, 0, sizeof(*search));
    search->id = id;
    search->n_ranks = 4;
    search->max_blocks = max_blocks;
    search->n_sizes = n_sizes;
    for (int i = 0; i < n_sizes; i++)
        search->sizes[i].bytes = (size_t)1024 << i;
}

static void put(int size, int buffers, const char *algorithm, int n_blocks, double us)
{
    struct tune_trials *t = &search->sizes[size].trials[buffers];

    t->ways[t->n] = (struct tune_way){algorithm, n_blocks, n_blocks ? 128 : 0};
    t->us[t->n++] = us;
}

static int has(int size, int buffers, const char *algorithm, int n_blocks, int n_threads)
{
    const struct tune_trials *t = &search->sizes[size].trials[buffers];

    for (int i = 0; i < t->n; i++)
        if (strcmp(t->ways[i].algorithm, algorithm) == 0 && t->ways[i].n_blocks == n_blocks &&
            t->ways[i].n_threads == n_threads)
            return 1;
    return 0;
}

static void row_is(const struct tune_choice *choice, int row, size_t max_bytes,
                   const char *algorithm, int n_blocks)
{
    assert_true(row < choice->n);
    assert_int_equal(choice->rows[row].max_bytes, max_bytes);
    assert_string_equal(choice->rows[row].way.algorithm, algorithm);
    assert_int_equal(choice->rows[row].way.n_blocks, n_blocks);
}

/* Launches that a file may name, each once, and the engine's own first. */
static void check_trials(int max_blocks)
{
    for (int i = 0; i < search->n_sizes; i++)
        for (int b = 0; b < TUNE_N_BUFFERS; b++) {
            const struct tune_trials *t = &search->sizes[i].trials[b];

            assert_in_range(t->n, t->n, TUNE_MAX_WAYS);
            for (int k = 0; k < t->n; k++) {
                const struct tune_way *way = &t->ways[k];

                assert_true((way->n_blocks == 0) == (k == 0));
                assert_true((strcmp(way->algorithm, "auto") == 0) == (k == 0));
                assert_true(way->n_blocks <= max_blocks && way->n_threads <= 512);
                assert_int_equal(way->n_threads % 32, 0);
                assert_true(b == TUNE_WINDOWS || strcmp(way->algorithm, "direct") != 0);
                assert_true(search->id != BENCH_REDUCE_SCATTER ||
                            strcmp(way->algorithm, "one_shot") != 0);
                for (int j = 0; j < k; j++)
                    assert_false(strcmp(way->algorithm, t->ways[j].algorithm) == 0 &&
                                 way->n_blocks == t->ways[j].n_blocks &&
                                 way->n_threads == t->ways[j].n_threads);
            }
        }
}

static void the_net_can_be_launched(void **state)
{
    static const enum bench_id ids[] = {BENCH_ALL_REDUCE, BENCH_REDUCE_SCATTER, BENCH_ALL_GATHER,
                                        BENCH_BROADCAST, BENCH_REDUCE};

    (void)state;
    for (size_t c = 0; c < sizeof(ids) / sizeof(ids[0]); c++)
        for (int blocks = 1; blocks <= 128; blocks *= 2) {
            begin(ids[c], TUNE_MAX_SIZES, blocks);
            tune_propose(search);
            check_trials(blocks);
            for (int i = 0; i < search->n_sizes; i++) {
                assert_true(search->sizes[i].trials[TUNE_ORDINARY].n >= 2);
                assert_true((search->sizes[i].trials[TUNE_WINDOWS].n >= 2) ==
                            (ids[c] != BENCH_REDUCE));
            }
            for (int i = 0; i < search->n_sizes; i++)
                for (int b = 0; b < TUNE_N_BUFFERS; b++)
                    for (int k = 0; k < search->sizes[i].trials[b].n; k++)
                        search->sizes[i].trials[b].us[k] = 10 + (i * 7 + k * 5) % 11;
            tune_refine(search);
            check_trials(blocks);
        }
}

static void the_finer_net_is_about_the_best(void **state)
{
    (void)state;
    begin(BENCH_ALL_REDUCE, 3, 128);
    for (int i = 0; i < 3; i++) {
        put(i, TUNE_ORDINARY, "auto", 0, 5);
        put(i, TUNE_ORDINARY, "one_shot", 2 << 2 * i, 7);
        put(i, TUNE_ORDINARY, "one_shot", 64, 9);
        put(i, TUNE_ORDINARY, "two_shot", 16, 8);
    }
    tune_refine(search);
    assert_true(has(1, TUNE_ORDINARY, "one_shot", 8, 128)); /* the best */
    assert_true(has(1, TUNE_ORDINARY, "two_shot", 16, 128));
    assert_true(has(1, TUNE_ORDINARY, "one_shot", 2, 128)); /* of the sizes around */
    assert_true(has(1, TUNE_ORDINARY, "one_shot", 32, 128));
    assert_true(has(1, TUNE_ORDINARY, "one_shot", 12, 128)); /* its neighbours */
    assert_true(has(1, TUNE_ORDINARY, "one_shot", 8, 256));
    assert_false(has(1, TUNE_ORDINARY, "one_shot", 64, 128));
    assert_int_equal(search->sizes[1].trials[TUNE_WINDOWS].n, 0);
}

static void rows_are_few(void **state)
{
    struct tune_choice choice;

    (void)state;
    begin(BENCH_ALL_REDUCE, 5, 128);
    for (int i = 0; i < 5; i++) {
        put(i, TUNE_ORDINARY, "auto", 0, i < 2 ? 10.2 : 20);
        put(i, TUNE_ORDINARY, "one_shot", 8, i < 2 ? 10 : 12); /* best for two, bad for the rest */
        put(i, TUNE_ORDINARY, "two_shot", 16, i < 2 ? 15 : i < 4 ? 10.25 : 10);
        put(i, TUNE_ORDINARY, "two_shot", 32, i < 2 ? 15 : i < 4 ? 10 : 10.4);
    }
    tune_choose(search, TUNE_ORDINARY, &choice);
    assert_int_equal(choice.n, 2);
    row_is(&choice, 0, 2048, "auto", 0); /* 2 % slower than one_shot: it stays */
    row_is(&choice, 1, 16384, "two_shot", 16);
}

static void what_is_not_measured_is_not_chosen(void **state)
{
    struct tune_choice choice;

    (void)state;
    begin(BENCH_ALL_REDUCE, 3, 128);
    put(0, TUNE_ORDINARY, "auto", 0, 0); /* wrong results, say */
    put(0, TUNE_ORDINARY, "one_shot", 8, 10);
    put(1, TUNE_ORDINARY, "auto", 0, 0); /* nothing fitted */
    put(2, TUNE_ORDINARY, "auto", 0, 9);
    put(2, TUNE_ORDINARY, "one_shot", 8, 10);
    tune_choose(search, TUNE_ORDINARY, &choice);
    assert_int_equal(choice.n, 2);
    row_is(&choice, 0, 2048, "one_shot", 8);
    row_is(&choice, 1, 4096, "auto", 0);
}

static void windows_may_take_what_needs_none(void **state)
{
    struct tune_choice choice;

    (void)state;
    begin(BENCH_ALL_REDUCE, 2, 128);
    for (int i = 0; i < 2; i++) {
        put(i, TUNE_ORDINARY, "auto", 0, 1); /* in windows it is another one: see below */
        put(i, TUNE_ORDINARY, "one_shot", 8, 10 + 10 * i);
        put(i, TUNE_WINDOWS, "auto", 0, 30);
        put(i, TUNE_WINDOWS, "direct", 16, 15);
    }
    tune_choose(search, TUNE_WINDOWS, &choice);
    assert_int_equal(choice.n, 2);
    row_is(&choice, 0, 1024, "one_shot", 8);
    row_is(&choice, 1, 2048, "direct", 16);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_net_can_be_launched),
        cmocka_unit_test(the_finer_net_is_about_the_best),
        cmocka_unit_test(rows_are_few),
        cmocka_unit_test(what_is_not_measured_is_not_chosen),
        cmocka_unit_test(windows_may_take_what_needs_none),
    };

    search = cli_alloc(sizeof(*search));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
