/* ctest: no-tsan timeout=180 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* ctest: long as=2_proxies args=proxies=2 no-tsan timeout=360 */
/* ctest: long as=4_proxies args=proxies=4 no-tsan timeout=360 */
/* Every collective between GPUs of several hosts, of every dtype and operation, gives the bits of ranks
 * on hosts in host memory: in windows and not, in place and not, at any alignment. */
#include "support/cases.h"
#include "support/hosts.h"
#include "support/proc.h"

enum { SCRATCH = 1 << 20, LONG = 60001 };

static const char *const layouts[] = {"01", "0011", "0111", "0101", "10020"};
static const char *const large_layout = "00001111"; /* takes a simulation long */

static void open_stage(struct t_stage *s, struct t_rank *t, struct t_device *device, size_t most)
{
    t_device_open(device, t);
    t_stage_open_on(s, t, t->comm, t_case_room(t->n_ranks, most, 8), 1, device);
    t_meet(t);
}

static void close_stage(struct t_stage *s, struct t_rank *t, struct t_device *device)
{
    t_meet(t);
    t_stage_close(s);
    t_device_close(device);
}

/* A quick run takes a sample, another for each layout. */
static void every_call(struct t_rank *t)
{
    uint64_t seed = (uint64_t)t->n_ranks * 100000;
    struct t_device device;
    struct t_stage s;

    for (int r = 0; r < t->n_ranks; r++)
        seed += (uint64_t)(t_host_of(r) * r) * 7777;
    open_stage(&s, t, &device, T_CASE_MOST);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (int op = 0; op < (t_colls[coll].reduces ? TUTTI_N_OPS : 1); op++) {
                struct t_case c = t_case_of_some_count(++seed, t->n_ranks);

                c.coll = (enum t_coll)coll;
                c.dtype = (tutti_dtype)dtype;
                c.op = (tutti_op)op;
                if (t_hash(seed, 3) % t_times(4, 1) == 0)
                    t_case_run(&s, &c);
            }
    close_stage(&s, t, &device);
}

/* Longer than all slots of the stage, of every collective, by one type each. */
static void long_calls(struct t_rank *t)
{
    struct t_device device;
    struct t_stage s;

    open_stage(&s, t, &device, LONG / (size_t)t->n_ranks);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (uint64_t k = 0; k < t_times(2, 8); k++) {
            struct t_case c = t_case_of_some_count(t_hash(k, (uint64_t)coll), t->n_ranks);

            c.coll = (enum t_coll)coll;
            c.dtype = (tutti_dtype)(t_hash(c.seed, 7) % TUTTI_N_DTYPES);
            c.op = (tutti_op)(t_hash(c.seed, 8) % TUTTI_N_OPS);
            c.count = t_case_fit(c.coll, t->n_ranks, s.room, tutti_dtype_bytes(c.dtype), LONG);
            t_case_run(&s, &c);
        }
    close_stage(&s, t, &device);
}

static void run_with(size_t scratch, void (*body)(struct t_rank *t), const char *hosts)
{
    struct t_job job;

    t_hosts(hosts);
    job = t_cuda_job((int)strlen(hosts), body);
    job.config.scratch_bytes = scratch;
    if (t_is_wanted(job.n_ranks))
        t_run(&job);
    t_hosts(NULL);
}

static void run(void (*body)(struct t_rank *t), const char *hosts)
{
    run_with(SCRATCH, body, hosts);
}

static void every_collective_dtype_and_operation(void **state)
{
    (void)state;
    for (size_t i = 0; i < T_LEN(layouts); i++)
        run(every_call, layouts[i]);
    if (t_times(!t_is_simulated(), 1))
        run(every_call, large_layout);
}

static void longer_than_the_stage(void **state)
{
    (void)state;
    run(long_calls, "01");
    run(long_calls, "0110");
    run(long_calls, "10020");
    if (t_times(!t_is_simulated(), 1))
        run(long_calls, large_layout);
}

/* Called, captured and replayed, with other inputs each time. Returns how many launches were captured. */
static size_t call_and_replay(struct t_rank *t, struct t_stage *s, struct t_device *device,
                              struct t_case *c)
{
    t_graph graph;
    size_t n;

    t_case_run(s, c);
    t_case_load(s, c);
    t_device_sync(device);
    t_capture_begin(device);
    T_OK(t_case_launch(s));
    graph = t_capture_end(device, &n);
    for (c->round = 1; c->round < 4; c->round++) {
        t_case_load(s, c);
        t_graph_launch(device, graph);
        T_OK(t_case_verify(s));
    }
    t_meet(t);
    t_graph_free(graph);
    return n;
}

/* A sum that goes in several pieces at the same time, called and replayed. */
static void pieces(struct t_rank *t)
{
    static const size_t counts[] = {110001, 300001}; /* of f32: 6 and 8 pieces on hosts of two */
    struct t_device device;
    struct t_stage s;

    open_stage(&s, t, &device, counts[1] / 2 / (size_t)t->n_ranks);
    for (uint64_t i = 0; i < 2 * T_LEN(counts); i++) {
        struct t_case c = t_case_of_some_count(i, t->n_ranks);

        c.coll = T_all_reduce;
        c.dtype = TUTTI_DTYPE_F32;
        c.op = i % 2 ? TUTTI_OP_SUM : TUTTI_OP_AVG;
        c.in_place = i > 1;
        c.count = counts[i % 2];
        (void)call_and_replay(t, &s, &device, &c);
    }
    close_stage(&s, t, &device);
}

static void large_sums_go_in_pieces(void **state)
{
    (void)state;
    run(pieces, "0011");
    run(pieces, "00101");
    run(pieces, "0110122");
}

/* Such sums on one stream while those on another are captured: eager ones, and ones of a graph of their own. */
static void pieces_meanwhile(struct t_rank *t)
{
    struct t_device devices[2];
    struct t_stage s[2];
    struct t_case c[2];
    t_graph graphs[2];
    size_t n;

    for (int i = 0; i < 2; i++) {
        open_stage(&s[i], t, &devices[i], 110001 / 2 / (size_t)t->n_ranks);
        c[i] = t_case_of_some_count((uint64_t)i, t->n_ranks);
        c[i].coll = T_all_reduce;
        c[i].dtype = TUTTI_DTYPE_F32;
        c[i].op = TUTTI_OP_SUM;
        c[i].count = 110001;
        t_case_load(&s[i], &c[i]);
    }
    t_capture_begin(&devices[0]);
    T_OK(t_case_launch(&s[0]));
    T_OK(t_case_launch(&s[1])); /* eagerly */
    T_OK(t_case_verify(&s[1]));
    t_capture_begin(&devices[1]);
    T_OK(t_case_launch(&s[1]));
    for (int i = 0; i < 2; i++)
        graphs[i] = t_capture_end(&devices[i], &n);
    for (uint64_t round = 1; round < 3; round++)
        for (int i = 0; i < 2; i++) {
            c[i].round = round;
            t_case_load(&s[i], &c[i]);
            t_graph_launch(&devices[i], graphs[i]);
            T_OK(t_case_verify(&s[i]));
        }
    for (int i = 0; i < 2; i++) {
        t_device_enter(&devices[i]);
        t_meet(t);
        t_graph_free(graphs[i]);
        close_stage(&s[i], t, &devices[i]);
    }
}

static void large_sums_go_while_others_are_captured(void **state)
{
    (void)state;
    run(pieces_meanwhile, "0011");
}

static void launches(struct t_rank *t, size_t n_launches)
{
    static const tutti_dtype dtypes[] = {TUTTI_DTYPE_F32, TUTTI_DTYPE_BF16, TUTTI_DTYPE_I64,
                                         TUTTI_DTYPE_U8};
    static const size_t counts[] = {1, 2047, 130, 0, 7, 1026}; /* of up to 16 KiB, a slot */
    struct t_device device;
    struct t_stage s;

    open_stage(&s, t, &device, T_CASE_MOST);
    for (uint64_t i = 0; i < t_times(1, 8) * T_LEN(counts); i++) {
        struct t_case c = t_case_of_some_count(i, t->n_ranks);
        size_t n;

        c.coll = T_all_reduce;
        c.dtype = dtypes[i % T_LEN(dtypes)];
        c.op = (tutti_op)(t_hash(i, 5) % (c.dtype == TUTTI_DTYPE_U8 ? TUTTI_OP_AVG : TUTTI_N_OPS));
        c.count = counts[i % T_LEN(counts)];
        n = call_and_replay(t, &s, &device, &c);
        T_CHECK(n == n_launches, "%zu launches, not %zu: %s", n, n_launches, t_case_text(&c));
    }
    close_stage(&s, t, &device);
}

static void in_one_launch(struct t_rank *t)
{
    launches(t, 1);
}

static void in_two_launches(struct t_rank *t)
{
    launches(t, 2);
}

static void small_sums_take_one_launch(void **state)
{
    (void)state;
    run(in_one_launch, "012102");
    run(in_one_launch, "01");
    run_with(4 * (size_t)SCRATCH, in_one_launch, "0000000011111111"); /* room for eight vectors */
    setenv("TUTTI_ALGO", "two_shot", 1);                              /* within a host */
    run(in_two_launches, "0011");
    unsetenv("TUTTI_ALGO");
    if (t_times(0, 1))
        run(in_one_launch, "021012021");
}

/* GPUs of a small host do for several of a larger one; in place the blocks of other hosts keep their order. */
static void shared_out(struct t_rank *t)
{
    static const enum t_coll colls[] = {T_reduce_scatter, T_reduce_scatterv, T_reduce,
                                        T_all_to_all};
    static const tutti_op ops[] = {TUTTI_OP_SUM, TUTTI_OP_AVG};
    struct t_device device;
    struct t_stage s;

    open_stage(&s, t, &device, LONG / (size_t)t->n_ranks);
    for (size_t i = 0; i < 4 * T_LEN(colls); i++) {
        struct t_case c = t_case_of_some_count(i, t->n_ranks);

        c.coll = colls[i / 4];
        c.dtype = i % 2 ? TUTTI_DTYPE_BF16 : TUTTI_DTYPE_F32;
        c.op = ops[i % 2];
        c.in_place = (int)(i / 2 % 2);
        c.root = (int)i % t->n_ranks;
        c.count = t_case_fit(c.coll, t->n_ranks, s.room, tutti_dtype_bytes(c.dtype), LONG);
        t_case_run(&s, &c);
    }
    close_stage(&s, t, &device);
}

/* Every set of ranks may work in place while the others do not. */
static void some_in_place(struct t_rank *t)
{
    static const size_t counts[] = {0, 33, 9001};
    const size_t most = (size_t)t->n_ranks * counts[2];
    int32_t *buf[2], *host = malloc(most * sizeof(*host));
    struct t_device device;

    T_CHECK(host != NULL, "no memory");
    t_device_open(&device, t);
    for (int side = 0; side < 2; side++)
        buf[side] = t_device_alloc(most * sizeof(**buf));
    for (unsigned i = 0; i < T_LEN(counts) << t->n_ranks; i++) {
        const size_t set = i / T_LEN(counts), n = counts[i % T_LEN(counts)];
        int32_t *recv = buf[set >> t->rank & 1 ? 0 : 1];

        for (size_t k = 0; k < n * (size_t)t->n_ranks; k++)
            host[k] = (int32_t)(k + (size_t)t->rank * 10000000);
        t_device_push(&device, buf[0], host, most * sizeof(*host));
        T_OK(tutti_all_to_all(t->comm, buf[0], recv, n, TUTTI_DTYPE_I32, device.stream));
        t_device_pull(&device, host, recv, most * sizeof(*host));
        t_device_sync(&device);
        for (size_t k = 0; k < n * (size_t)t->n_ranks; k++)
            T_CHECK(host[k] == (int32_t)(k % n + n * (size_t)t->rank + k / n * 10000000),
                    "in place on the ranks %#zx, blocks of %zu: element %zu is %d", set, n, k,
                    (int)host[k]);
    }
    t_meet(t);
    for (int side = 0; side < 2; side++)
        t_device_free(buf[side]);
    t_device_close(&device);
    free(host);
}

static void all_to_all_in_place_on_some_ranks(void **state)
{
    (void)state;
    run(some_in_place, "0011");
    run(some_in_place, "0112");
}

static void uneven_hosts_share_out_the_work(void **state)
{
    (void)state;
    run(shared_out, "0011");
    run(shared_out, "0111");
    run(shared_out, "10110");
}

/* In the order of a single host. */
static void flat_calls(struct t_rank *t)
{
    static const enum t_coll colls[] = {T_all_reduce, T_reduce_scatterv, T_reduce};
    struct t_device device;
    struct t_stage s;

    open_stage(&s, t, &device, T_CASE_MOST);
    s.is_flat = 1;
    for (size_t i = 0; i < 3 * T_LEN(colls); i++) {
        struct t_case c = t_case_of_some_count(i, t->n_ranks);

        c.coll = colls[i % 3];
        c.dtype = i < 6 ? TUTTI_DTYPE_BF16 : TUTTI_DTYPE_F32;
        c.inputs = T_NEAR;
        c.count = t_case_counts[i % 3 + 4];
        t_case_run(&s, &c);
    }
    close_stage(&s, t, &device);
}

static void flat_gives_the_bits_of_one_host(void **state)
{
    (void)state;
    setenv("TUTTI_ALGO", "flat", 1);
    run(flat_calls, "0110");
    unsetenv("TUTTI_ALGO");
}

/* A name of an algorithm is that of the steps within a host. */
static void forced_algorithms_are_taken(void **state)
{
    static char text[8192];
    struct t_job job;
    int failed;

    (void)state;
    setenv("TUTTI_ALGO", "two_shot", 1);
    run(every_call, "0011");
    setenv("TUTTI_ALGO", "xmem", 1);
    t_hosts("01");
    job = t_cuda_job(2, flat_calls);
    failed = t_run_quietly(&job, text, sizeof(text));
    t_hosts(NULL);
    unsetenv("TUTTI_ALGO");
    assert_true(failed);
    T_CONTAINS(text, "algorithm xmem is for host memory");
}

/* A part of one host has the plain engine for GPUs; one of several hosts this one. */
static void splits(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    struct t_device device;

    t_device_open(&device, t);
    for (int way = 0; way < 2; way++) {
        const int color = way == 0 ? t_host_of(t->rank) : t->rank % 2;
        tutti_comm *part;
        float *p, x = 1;

        T_OK(tutti_comm_split(t->comm, color, 0, &part));
        T_OK(tutti_comm_query(part, &info));
        T_CHECK(strcmp(info.engine, way == 0 ? "cuda" : "cuda hosts") == 0, "the engine is %s",
                info.engine);
        p = t_device_alloc(sizeof(x));
        t_device_push(&device, p, &x, sizeof(x));
        T_OK(tutti_all_reduce(part, p, p, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, device.stream));
        t_device_pull(&device, &x, p, sizeof(x));
        t_device_sync(&device);
        T_CHECK(x == (float)info.n_ranks, "the sum is %g", (double)x);
        t_meet(t);
        tutti_comm_destroy(part);
        t_device_free(p);
    }
    t_device_close(&device);
}

static void parts_take_the_engine_that_fits(void **state)
{
    (void)state;
    run(splits, "0011");
}

/* It naps when it has carried out what there was. */
static void idle(struct t_rank *t)
{
    struct t_device device;
    struct t_stage s;
    struct t_case c;
    double percent;

    open_stage(&s, t, &device, T_CASE_MOST);
    c = t_case_of_some_count(1, t->n_ranks);
    c.coll = T_all_reduce;
    t_case_run(&s, &c);
    t_meet(t);
    percent = t_idle_percent();
    T_CHECK(percent < 2.0 * t_scale(), "an idle proxy takes %.2f %% of a core", percent);
    close_stage(&s, t, &device);
}

static void idle_proxies_take_under_2_percent(void **state)
{
    (void)state;
    run(idle, "01");
}

/* Chunks and messages by several threads of each rank: as many as there may be, or as are asked for. */
static void shared_by(struct t_rank *t)
{
    const char *const n = getenv("TUTTI_NET_PROXIES");
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    char words[32];

    snprintf(words, sizeof(words), ", %s proxies; ", strcmp(n, "16") == 0 ? "4" : n);
    T_OK(tutti_comm_query(t->comm, &info));
    T_CONTAINS(info.details, words);
    long_calls(t);
}

static void several_proxies_share_calls(void **state)
{
    (void)state;
    setenv("TUTTI_NET_PROXIES", "2", 1); /* and others, from here on */
    run(shared_by, "01");
    setenv("TUTTI_NET_PROXIES", "3", 1);
    run(pieces, "0011");
    setenv("TUTTI_NET_PROXIES", "16", 1);
    run(shared_by, "1020");
    run(idle, "01");
}

/* Who destroys its communicator does not wait for each of the networks of a rank that does nothing more with its
 * GPU: soon, and not at the deadline, the split, for which the ranks talk without GPUs, hears that it has left. */
static void leave_alone(struct t_rank *t)
{
    tutti_comm *part;

    long_calls(t);
    t_meet(t);
    if (t->rank == 0)
        T_IS(TUTTI_E_PEER, tutti_comm_split(t->comm, 0, 0, &part));
    tutti_comm_destroy(t->comm);
}

static void idle_lanes_let_others_leave(void **state)
{
    struct t_job job = t_cuda_job(2, leave_alone);

    (void)state;
    job.keep_comm = 1;
    job.config.scratch_bytes = SCRATCH;
    job.config.timeout_ms = 15000;
    setenv("TUTTI_NET_PROXIES", "4", 1);
    t_hosts("01");
    if (t_is_wanted(job.n_ranks))
        t_run(&job);
    t_hosts(NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_dtype_and_operation),
        cmocka_unit_test(longer_than_the_stage),
        cmocka_unit_test(large_sums_go_in_pieces),
        cmocka_unit_test(large_sums_go_while_others_are_captured),
        cmocka_unit_test(small_sums_take_one_launch),
        cmocka_unit_test(all_to_all_in_place_on_some_ranks),
        cmocka_unit_test(uneven_hosts_share_out_the_work),
        cmocka_unit_test(flat_gives_the_bits_of_one_host),
        cmocka_unit_test(forced_algorithms_are_taken),
        cmocka_unit_test(parts_take_the_engine_that_fits),
        cmocka_unit_test(idle_proxies_take_under_2_percent),
        cmocka_unit_test(several_proxies_share_calls),
        cmocka_unit_test(idle_lanes_let_others_leave),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
