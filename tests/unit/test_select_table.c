/* Tables of algorithms: what the rows of a tune file make of the built-in one, and what is refused. */
#include "base/error.h"
#include "coll/select.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

static char path[] = "/tmp/tutti-select-XXXXXX";
static char last_log[512];
static int n_logs;

static void note_log(void *context, tutti_log_level level, const char *line)
{
    (void)context;
    n_logs += level <= TUTTI_LOG_WARN;
    snprintf(last_log, sizeof(last_log), "%s", line);
}

static struct tt_select_place gpu_place(int n_ranks)
{
    return (struct tt_select_place){.kind = TT_SELECT_GPU,
                                    .n_ranks = n_ranks,
                                    .limits = {.gpu = "NVIDIA H200",
                                               .max_blocks = 64,
                                               .max_threads = 512,
                                               .packets_dtypes = 1u << TUTTI_DTYPE_I32},
                                    .tune_file = path,
                                    .force = ""};
}

static struct tt_select_place cpu_place(int n_ranks)
{
    return (struct tt_select_place){
        .kind = TT_SELECT_CPU_XMEM, .n_ranks = n_ranks, .tune_file = path, .force = ""};
}

static tutti_result make(struct tt_select_place place, const char *rows, struct tt_select *select)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    fprintf(file, "tutti-tune 1\n# a comment\n%s", rows);
    assert_int_equal(fclose(file), 0);
    return tt_select_make(select, &place);
}

static void is(const struct tt_select *select, enum tt_coll coll, unsigned list, uint64_t bytes,
               enum tt_algo algo, int n_blocks, int n_threads)
{
    const struct tt_select_row *row = tt_select_row(select, coll, list, bytes);

    assert_int_equal(row->algo, algo);
    assert_int_equal(row->width.n_blocks, n_blocks);
    assert_int_equal(row->width.n_threads, n_threads);
}

static void refused(struct tt_select_place place, const char *rows, const char *part)
{
    struct tt_select select;

    assert_int_equal(make(place, rows, &select), TUTTI_E_ARG);
    if (!strstr(tt_error_text(), part) || !strstr(tt_error_text(), path))
        fail_msg("\"%s\" does not name the file and \"%s\"", tt_error_text(), part);
}

static void rows_are_taken(void **state)
{
    struct tt_select s;

    (void)state;
    assert_int_equal(make(gpu_place(4),
                          "all_reduce 4 64K one_shot 32x256 ordinary sentinel NVIDIA_H200\n"
                          "all_reduce 4 inf two_shot 64x512 ordinary sentinel NVIDIA_H200\n"
                          "all_reduce 4 1M direct 16x512 windows sentinel NVIDIA_H200\n"
                          "all_reduce 4 4K one_shot auto any packets NVIDIA_H200\n"
                          "all_gather 4 inf two_shot 8x128 any any NVIDIA_H200\n",
                          &s),
                     TUTTI_OK);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, 0, TT_ALGO_ONE_SHOT, 32, 256);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, 65536, TT_ALGO_ONE_SHOT, 32, 256);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, 65537, TT_ALGO_TWO_SHOT, 64, 512);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, UINT64_MAX, TT_ALGO_TWO_SHOT, 64, 512);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_WINDOWS, 1 << 20, TT_ALGO_DIRECT, 16, 512);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_WINDOWS, (1 << 20) + 1, TT_ALGO_AUTO, 0, 0);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_WINDOWS_PACKETS, 4096, TT_ALGO_ONE_SHOT, 0, 0);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY_PACKETS, 4097, TT_ALGO_AUTO, 0, 0);
    is(&s, TT_COLL_ALL_GATHER, TT_TUNE_WINDOWS, 5, TT_ALGO_TWO_SHOT, 8, 128);
    is(&s, TT_COLL_BROADCAST, TT_TUNE_ORDINARY, 5, TT_ALGO_AUTO, 0, 0);
    assert_non_null(strstr(s.source, "5 rows of "));
    assert_int_equal(s.packets_dtypes, 1u << TUTTI_DTYPE_I32);
}

static void rows_of_others_are_not(void **state)
{
    struct tt_select s, built_in;
    struct tt_select_place place = gpu_place(4);

    (void)state;
    place.tune_file = "";
    assert_int_equal(tt_select_make(&built_in, &place), TUTTI_OK);
    n_logs = 0;
    /* Other numbers of ranks, host memory: nothing to say. Blocks that these GPUs cannot run: theirs. */
    assert_int_equal(make(gpu_place(4),
                          "all_reduce 2 inf one_shot 128x256 any any NVIDIA_H200\n"
                          "all_reduce 4 inf one_shot\n",
                          &s),
                     TUTTI_OK);
    assert_int_equal(n_logs, 0);
    assert_int_equal(tt_select_id(&s), tt_select_id(&built_in));
    /* Another GPU, and names of which one begins with the other: one line. */
    assert_int_equal(make(gpu_place(4),
                          "all_reduce 4 inf one_shot 128x256 any any NVIDIA_H100\n"
                          "all_reduce 4 inf one_shot 128x256 any any NVIDIA_H200_NVL\n"
                          "all_reduce 4 inf one_shot 128x256 any any NVIDIA_H20\n",
                          &s),
                     TUTTI_OK);
    assert_int_equal(n_logs, 1);
    assert_non_null(strstr(last_log, "3 rows for 4 ranks"));
    assert_non_null(strstr(last_log, "NVIDIA H200"));
    assert_int_equal(tt_select_id(&s), tt_select_id(&built_in));
    assert_string_equal(s.source, "built in");
}

/* One file for both: on the CPU its four-word rows count, as they always did. */
static void rows_of_host_memory(void **state)
{
    struct tt_select s;

    (void)state;
    assert_int_equal(make(cpu_place(2),
                          "all_reduce 2 4K one_shot\n"
                          "all_reduce 2 8K direct\n"
                          "all_reduce 2 inf one_shot 8x128 any any NVIDIA_H200\n"
                          "all_reduce 2 64K xmem\n",
                          &s),
                     TUTTI_OK);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, 4096, TT_ALGO_ONE_SHOT, 0, 0);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, 4097, TT_ALGO_XMEM, 0, 0);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, UINT64_MAX, TT_ALGO_XMEM, 0, 0);
}

static void bad_rows_are_refused(void **state)
{
    const struct tt_select_place gpus = gpu_place(4), cpus = cpu_place(4);
    char many[4096] = "";

    (void)state;
    refused(gpus, "all_reduce 4 inf two_shot 65x256 any any NVIDIA_H200\n", ":3: 65 blocks");
    refused(gpus, "\nall_reduce 4 inf two_shot 8x544 any any NVIDIA_H200\n", ":4: 544 threads");
    refused(gpus, "all_reduce 4 inf two_shot 8x100 any any X\n", "multiple of 32");
    refused(gpus, "all_reduce 4 inf two_shot 0x32 any any X\n", "0 blocks");
    refused(gpus, "all_reduce 4 inf two_shot 8 any any X\n", "blocks x threads");
    refused(gpus, "all_reduce 4 inf direct 8x128 ordinary any X\n", "windows only");
    refused(gpus, "all_reduce 4 inf direct 8x128 any any X\n", "windows only");
    refused(gpus, "reduce 4 inf direct 8x128 windows any X\n", "reduce has no direct");
    refused(gpus, "reduce_scatter 4 inf one_shot 8x128 any any X\n", "reduce_scatter has no");
    refused(gpus, "all_reduce 4 inf xmem 8x128 any any X\n", "xmem");
    refused(gpus, "all_reduce 4 inf auto 8x128 any any X\n", "auto");
    refused(gpus, "all_gather 4 inf two_shot 8x128 any packets X\n", "packets");
    refused(gpus, "all_reduce 4 inf two_shot 8x128 any wires X\n", "wires");
    refused(gpus, "all_reduce 4 inf two_shot 8x128 some any X\n", "some");
    refused(gpus, "barrier 4 inf two_shot 8x128 any any X\n", "barrier");
    refused(gpus, "all_reduce 4 inf two_shot 8x128 any any\n", "expected");
    refused(gpus, "all_reduce 0 inf two_shot\n", "\"0\"");
    refused(gpus, "all_reduce 4 big two_shot\n", "\"big\"");
    refused(gpus, "all_reduce 4 inf three_shot\n", "three_shot");
    refused(gpus,
            "all_reduce 4 64K one_shot 8x128 any sentinel NVIDIA_H200\n"
            "all_reduce 4 64K two_shot 8x128 windows any NVIDIA_H200\n",
            ":4: max_bytes must rise");
    refused(cpus, "all_reduce 4 inf auto\n", "auto");
    refused(cpus, "all_gather 4 inf two_shot\n", "all_gather has no algorithm two_shot");
    for (int i = 0; i < TT_SELECT_ROWS; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "all_reduce 4 %d one_shot\n",
                 i + 1);
    refused(cpus, many, "more than 23 rows");
    snprintf(many, sizeof(many), "#%0600d\n", 0);
    refused(cpus, many, "longer than");
}

static void a_name_wins(void **state)
{
    struct tt_select s;
    struct tt_select_place place = gpu_place(2);

    (void)state;
    place.force = "two_shot";
    assert_int_equal(make(place, "all_reduce 2 inf one_shot 8x128 any any NVIDIA_H200\n", &s),
                     TUTTI_OK);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_ORDINARY, 4096, TT_ALGO_TWO_SHOT, 0, 0);
    is(&s, TT_COLL_ALL_REDUCE, TT_TUNE_WINDOWS_PACKETS, 4096, TT_ALGO_TWO_SHOT, 0, 0);
    assert_string_equal(s.source, "two_shot forced");
}

/* What a table says must show in its number. */
static void tables_have_numbers(void **state)
{
    struct tt_select a, b, c;

    (void)state;
    make(gpu_place(2), "all_reduce 2 inf one_shot 8x128 any any NVIDIA_H200\n", &a);
    make(gpu_place(2), "all_reduce 2 inf one_shot 8x128 any any NVIDIA_H200\n", &b);
    make(gpu_place(2), "all_reduce 2 inf one_shot 8x160 any any NVIDIA_H200\n", &c);
    assert_int_equal(tt_select_id(&a), tt_select_id(&b));
    assert_int_not_equal(tt_select_id(&a), tt_select_id(&c));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_taken),      cmocka_unit_test(rows_of_others_are_not),
        cmocka_unit_test(rows_of_host_memory), cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(a_name_wins),         cmocka_unit_test(tables_have_numbers),
    };
    const int fd = mkstemp(path);
    int status;

    if (fd < 0)
        return 1;
    close(fd);
    tutti_log_set(note_log, NULL);
    status = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return status;
}
