/* `tutti info --live`: communicators of other processes, seen without their doing anything for it. */
#include <unistd.h>

#include "support/board.h"
#include "support/program.h"

enum { N = 3, COUNT = 1 << 16, CALLS = 4, LATE = 1, LATE_US = 20000 };

struct shared { /* between the ranks and the test */
    atomic_int n_ready;
    atomic_int done;
};

struct view { /* what the program said, kept until the ranks have ended */
    int status;
    char text[1 << 18];
};

static struct view table, as_json, of_late, of_none, of_all;
static char name[24]; /* that no other test has at the same time */
static pid_t late_pid;

static struct shared *shared(unsigned char *area)
{
    return (struct shared *)(void *)area;
}

static uint64_t begun(const tutti_comm *comm, int rank)
{
    tutti_stats stats = TUTTI_STATS_INIT;

    T_OK(tutti_comm_stats(comm, rank, &stats));
    return stats.sequence;
}

/* One is late, by what the others wait for certain; then all hold still. */
static void work(struct t_rank *t)
{
    static float x[COUNT];

    for (uint64_t i = 1; i <= CALLS; i++) {
        for (int r = 0; r < N && t->rank == LATE; r++)
            while (r != LATE && begun(t->comm, r) < i)
                t_sleep_us(100);
        if (t->rank == LATE)
            t_sleep_us(LATE_US);
        T_OK(tutti_all_reduce(t->comm, x, x, COUNT, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    }
    atomic_fetch_add(&shared(t->shared)->n_ready, 1);
    while (!atomic_load(&shared(t->shared)->done))
        t_sleep_us(1000);
}

static void look(struct view *view, const char *format, int pid)
{
    char arguments[800];

    snprintf(arguments, sizeof(arguments), format, pid);
    view->status = t_tutti(arguments, view->text, sizeof(view->text));
}

static void look_at_all(const struct t_job *job, struct t_board *board, const pid_t pids[])
{
    struct shared *s = shared(t_board_shared(board));

    (void)job;
    for (int ms = 0; atomic_load(&s->n_ready) < N && ms < 20000; ms++)
        t_sleep_us(1000);
    late_pid = pids[LATE];
    look(&table, "info --live %d", pids[LATE]);
    look(&of_late, "info %d --live", pids[0]);
    look(
        &as_json,
        "info --live --json %d | python3 -c 'import json, sys\n"
        "for c in json.load(sys.stdin):\n"
        "    print(c[\"name\"], c[\"rank\"], c[\"n_ranks\"], c[\"failed\"])\n"
        "    for r in c[\"ranks\"]: print(r[\"rank\"], r[\"calls\"], r[\"bytes\"], r[\"sequence\"],"
        " r[\"last_call\"], r[\"last_bytes\"], r[\"wait_ns\"] > 70e6)'",
        pids[LATE]);
    look(&of_none, "info --live %d", (int)getpid());
    look(&of_all, "info --live", 0);
    atomic_store(&s->done, 1);
}

static void a_table_of_every_communicator(void **state)
{
    struct t_job job = {.n_ranks = N, .body = work, .parent = look_at_all};
    char line[400];

    (void)state;
    job.config = (tutti_comm_config)TUTTI_COMM_CONFIG_INIT;
    snprintf(name, sizeof(name), "live-%d", (int)getpid());
    job.config.name = name;
    t_run(&job);
    T_CHECK(table.status == 0, "exit status %d: %s", table.status, table.text);
    snprintf(line, sizeof(line), "communicator %s: 3 ranks, seen in process %d (rank 1)\n", name,
             (int)late_pid);
    T_CONTAINS(table.text, line);
    T_CONTAINS(table.text, "  wait %  copy %  reduce %  sync %  sleeps  refused  last call\n");
    T_CONTAINS(table.text, "\n   0      4  1.0 ");
    T_CONTAINS(table.text,
               "#4 all_reduce f32 sum, 256 KiB  <- the others wait for this rank\n   2 ");
    T_CONTAINS(of_late.text, "(rank 0)\n");
    snprintf(line, sizeof(line),
             "%s 1 3 False\n"
             "0 4 1048576 4 all_reduce f32 sum 262144 True\n"
             "1 4 1048576 4 all_reduce f32 sum 262144 False\n"
             "2 4 1048576 4 all_reduce f32 sum 262144 True\n",
             name);
    assert_string_equal(as_json.text, line);
    T_CHECK(of_none.status == 1, "exit status %d: %s", of_none.status, of_none.text);
    T_CONTAINS(of_none.text, "has no communicator");
    T_CHECK(of_all.status == 0, "exit status %d: %s", of_all.status, of_all.text);
    snprintf(line, sizeof(line), "communicator %s: 3 ranks, seen in process ", name);
    T_CONTAINS(of_all.text, line);
    T_CHECK(!strstr(strstr(of_all.text, line) + 1, line), "shown more than once: %s", of_all.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_of_every_communicator),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
