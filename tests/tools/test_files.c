/* What the program leaves in files: a tune file that communicators follow, the figures of a bench and
 * their plot. */
#include <unistd.h>

#include "coll/comm.h"
#include "support/job.h"
#include "support/program.h"

enum { N = 2, COUNT = 4096 };

static char folder[] = "/tmp/tutti-tools-XXXXXX";
static char path[64], partial[80], json[64], plot[64], files[160], text[65536];

static void run(const char *format, const char *file)
{
    char arguments[400];
    int status;

    snprintf(arguments, sizeof(arguments), format, file);
    status = t_tutti(arguments, text, sizeof(text));
    T_CHECK(status == 0, "tutti %s: exit status %d: %s", arguments, status, text);
}

/* --- tune --- */

struct rows {
    struct tt_tune_row row[64];
    int n;
};

static int keep(void *context, const struct tt_tune_row *row, char *why)
{
    struct rows *rows = context;

    (void)why;
    T_CHECK(rows->n < (int)T_LEN(rows->row), "too many rows");
    rows->row[rows->n++] = *row;
    return 0;
}

/* Each row counts up to its last byte, on a rank that was told of no file, too. */
static void follows(struct t_rank *t)
{
    const struct rows *rows = t->arg;
    static int x[COUNT];
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    config.tune_file = t->rank == 0 ? path : NULL;
    T_OK(t_comm_create(t, 1, &config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CONTAINS(info.details, path);
    for (int i = 0; i < rows->n; i++) {
        const struct tt_tune_row *row = &rows->row[i];
        const struct tt_select_row *got =
            tt_select_row(&comm->select, row->coll, TT_TUNE_ORDINARY, row->max_bytes);

        T_CHECK(got->algo == row->algo && got->max_bytes == row->max_bytes,
                "row %d of %s: algorithm %d up to %llu, not %d", i, path, (int)got->algo,
                (unsigned long long)got->max_bytes, (int)row->algo);
    }
    for (int i = 0; i < COUNT; i++)
        x[i] = i;
    T_OK(tutti_all_reduce(comm, x, x, COUNT, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    for (int i = 0; i < COUNT; i++)
        T_CHECK(x[i] == N * i, "sum %d of %d", x[i], i);
    tutti_comm_destroy(comm);
}

static void follow(struct rows *rows)
{
    const struct t_job job = {.n_ranks = N, .body = follows, .no_comm = 1, .arg = rows};

    rows->n = 0;
    T_OK(tt_tune_read(path, keep, rows));
    t_run(&job);
}

static int has(const struct rows *rows, enum tt_coll coll)
{
    int n = 0;

    for (int i = 0; i < rows->n; i++)
        n += rows->row[i].coll == coll && rows->row[i].n_ranks == N;
    return n > 0 && n == rows->n;
}

static void a_tune_file_is_made_and_followed(void **state)
{
    struct rows rows;

    (void)state;
    run("tune --quick -n 2 -c all_gather -e 16K --time 0.3 -o %s", path);
    T_CONTAINS(text, "collective  ranks");
    T_CONTAINS(text, "\n  export TUTTI_TUNE_FILE=/");
    T_CHECK(access(partial, F_OK) != 0, "%s was left behind", partial);
    follow(&rows);
    T_CHECK(has(&rows, TT_COLL_ALL_GATHER), "%d rows, not all of all_gather", rows.n);
    run("tune --quick -n 2 -c all_reduce -e 16K --time 0.3 -o %s", path);
    follow(&rows);
    T_CHECK(has(&rows, TT_COLL_ALL_REDUCE), "%d rows, not all of all_reduce", rows.n);
}

/* Whatever was measured: rows that no measurement gives must be taken as well. */
static void a_file_by_hand_is_followed(void **state)
{
    FILE *file = fopen(path, "we");
    struct rows rows;

    (void)state;
    T_CHECK(file != NULL, "%s: %s", path, strerror(errno));
    fputs("tutti-tune 1\nall_reduce 2 77 two_shot\nall_reduce 2 78 one_shot\n"
          "all_reduce 2 inf two_shot\nbroadcast 2 inf one_shot\n",
          file);
    T_CHECK(fclose(file) == 0, "%s: %s", path, strerror(errno));
    follow(&rows);
    T_CHECK(rows.n == 4, "%d rows", rows.n);
}

/* --- the files of a bench --- */

/* Prints ranks, collectives, sizes and columns, after a look at every figure; and the plot's points. */
static const char reader[] =
    "import json, sys, xml.dom.minidom as xml\n"
    "all = json.load(open(sys.argv[1]))\n"
    "for row in all['rows']:\n"
    "    for us in row['us'].values():\n"
    "        assert 0 < us['min_us'] <= us['p50_us'] <= us['p99_us'] and us['samples'] > 0, us\n"
    "        assert us['checked'] > 0 and us['wrong'] == 0, us\n"
    "    print(all['ranks'], row['collective'], row['bytes'], *row['us'])\n"
    "for point in xml.parse(sys.argv[2]).getElementsByTagName('title'):\n"
    "    print(point.firstChild.data.split(':')[0])\n";

static void a_bench_leaves_json_and_a_plot(void **state)
{
    const char *const words[] = {"python3", "-c", reader, json, plot, NULL};
    int out, status;
    pid_t pid;

    (void)state;
    run("bench all_gather -n 2 -b 64 -e 4K -f 64 --time 0.3 %s", files);
    T_CONTAINS(text, "\n4 results, 0 wrong\n");
    pid = t_start(words, &out);
    status = t_finish(pid, out, text, sizeof(text));
    T_CHECK(status == 0, "exit status %d: %s", status, text);
    assert_string_equal(text, "2 all_gather 64 ordinary registered\n"
                              "2 all_gather 4096 ordinary registered\n"
                              "tutti, ordinary buffers, 64 bytes\n"
                              "tutti, ordinary buffers, 4096 bytes\n"
                              "tutti, registered buffers, 64 bytes\n"
                              "tutti, registered buffers, 4096 bytes\n");
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/new/tune.txt", folder);
    snprintf(partial, sizeof(partial), "%s.partial", path);
    snprintf(json, sizeof(json), "%s/bench.json", folder);
    snprintf(plot, sizeof(plot), "%s/bench.svg", folder);
    snprintf(files, sizeof(files), "--json %s --plot %s", json, plot);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    unlink(json);
    unlink(plot);
    *strrchr(path, '/') = 0;
    return rmdir(path) != 0 || rmdir(folder) != 0; /* nothing else was left there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tune_file_is_made_and_followed),
        cmocka_unit_test(a_file_by_hand_is_followed),
        cmocka_unit_test(a_bench_leaves_json_and_a_plot),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
