/* ctest: no-tsan timeout=180 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* Every collective between GPUs of several hosts, of every dtype and operation, gives the bits of ranks
 * on hosts in host memory: in windows and not, in place and not, at any alignment. */
#include "support/cases.h"
#include "support/hosts.h"

static const size_t counts[] = {1, 5, 67, 0, 130, 1027, 2, 4099};
enum { MOST = 4099, SCRATCH = 1 << 20, LONG = 60001 };

static const char *const layouts[] = {"01", "0011", "0111", "0101", "10020"};

static struct t_case some_case(uint64_t seed, int n_ranks)
{
    struct t_case c = {.seed = t_hash(seed, 1)};

    c.count = counts[c.seed % T_LEN(counts)];
    c.inputs = (enum t_inputs)((c.seed >> 8) % 3);
    c.in_place = (int)(c.seed >> 16 & 1);
    c.place = (enum t_place)((c.seed >> 17) % T_N_PLACES);
    c.windows = (enum t_windows)((c.seed >> 24) % 4);
    c.root = (int)((c.seed >> 32) % (uint64_t)n_ranks);
    return c;
}

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
    uint64_t seed = (uint64_t)t->n_ranks * 100000 + (uint64_t)getenv("T_HOSTS")[1] * 7777;
    struct t_device device;
    struct t_stage s;

    open_stage(&s, t, &device, MOST);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (int op = 0; op < (t_colls[coll].reduces ? TUTTI_N_OPS : 1); op++) {
                struct t_case c = some_case(++seed, t->n_ranks);

                c.coll = (enum t_coll)coll;
                c.dtype = (tutti_dtype)dtype;
                c.op = (tutti_op)op;
                if (t_hash(seed, 3) % t_times(4, 1) == 0)
                    t_case_run(&s, &c);
            }
    close_stage(&s, t, &device);
}

static void run(void (*body)(struct t_rank *t), const char *hosts)
{
    struct t_job job = t_cuda_job((int)strlen(hosts), body);

    job.config.scratch_bytes = SCRATCH;
    t_hosts(hosts);
    if (t_is_wanted(job.n_ranks))
        t_run(&job);
    t_hosts(NULL);
}

static void every_collective_dtype_and_operation(void **state)
{
    (void)state;
    for (size_t i = 0; i < T_LEN(layouts); i++)
        run(every_call, layouts[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_dtype_and_operation),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
