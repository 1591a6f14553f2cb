/* ctest: no-tsan timeout=120 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* Data that looks like memory that waits for data: vectors and words of all ones, which are NaNs as floats, and
 * what travels in their place. Sums are NaN where they must be, moves bring every bit, and nobody waits
 * for what has come. */
#include "support/algorithms.h"
#include "support/cases.h"

enum { SCRATCH = 1 << 20, MOST = 60000, TIMEOUT_MS = 20000 };

static const tutti_dtype floats[] = {TUTTI_DTYPE_F32, TUTTI_DTYPE_F16, TUTTI_DTYPE_BF16,
                                     TUTTI_DTYPE_E4M3, TUTTI_DTYPE_E5M2};
static const size_t sizes[] = {16, 1000, 16384, MOST};

static struct t_case some_case(enum t_coll coll, tutti_dtype dtype, size_t bytes, uint64_t seed,
                               const struct t_stage *s)
{
    const uint64_t h = t_hash(seed, bytes);
    const size_t element = tutti_dtype_bytes(dtype), whole = 16 / element * (size_t)s->n_ranks;
    struct t_case c = {.coll = coll, .dtype = dtype, .inputs = T_ONES, .seed = h};

    c.count = t_case_fit(coll, s->n_ranks, s->room, element, bytes / element);
    if (h % 2 != 0 && c.count > whole) /* kernels/even.inc's */
        c.count -= c.count % whole;
    c.op = h >> 8 & 1 ? TUTTI_OP_SUM : (tutti_op)((h >> 9) % TUTTI_N_OPS);
    c.place = h >> 16 & 1 ? T_ALIGNED : T_ODD;
    c.windows = h >> 17 & 1 ? T_REGISTERED : T_SKEWED;
    c.in_place = (int)(h >> 18 & 1);
    c.root = (int)((h >> 20) % (uint64_t)s->n_ranks);
    return c;
}

struct plan {
    unsigned timeout_ms;
    int coll; /* this one alone, or -1 */
};

static void every_call(struct t_stage *s, const struct plan *plan, uint64_t seed)
{
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (size_t d = 0; d < T_LEN(floats); d++)
            for (size_t k = 0; k < T_LEN(sizes); k++) {
                struct t_case c = some_case((enum t_coll)coll, floats[d], sizes[k], ++seed, s);

                if (plan->coll >= 0 ? plan->coll == coll
                                    : t_hash(seed, 3) % t_times(s->n_ranks > 3 ? 16 : 8, 1) == 0)
                    t_case_run(s, &c);
            }
}

static void every_algorithm(struct t_rank *t)
{
    static const char *const names[] = {"one_shot", "two_shot", "direct"};
    const struct plan *plan = t->arg;
    struct t_device device;

    t_device_open(&device, t);
    for (size_t i = 0; i < T_LEN(names); i++) {
        tutti_comm_config config = t_cuda_config(t);
        tutti_comm *comm;
        struct t_stage s;

        config.algorithm = names[i];
        config.scratch_bytes = SCRATCH;
        config.timeout_ms = plan->timeout_ms;
        T_OK(t_comm_create(t, 100 + i, &config, &comm));
        t_stage_open_on(&s, t, comm, 4 * MOST + 65536, 1, &device);
        t_meet(t);
        every_call(&s, plan, (uint64_t)t->n_ranks * 1000 + i * 10000);
        t_meet(t);
        t_stage_close(&s);
        tutti_comm_destroy(comm);
    }
    t_device_close(&device);
}

static void ones_are_data(void **state)
{
    static const int ranks[] = {2, 3, 4, 0};
    struct plan plan = {TIMEOUT_MS * t_scale(), -1};

    (void)state;
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, every_algorithm);

        job.arg = &plan;
        t_run(&job);
    }
}

/* Would it be noticed if they went out as they are? */
static void ones_that_are_sent_are_noticed(void **state)
{
    static const enum t_coll colls[] = {T_all_reduce, T_reduce_scatter, T_all_gather, T_ring};
    struct t_job job = t_cuda_job(2, every_algorithm);
    static char text[8192];
    struct plan plan = {500, -1};

    (void)state;
    if (!t_is_simulated())
        t_skip("a real GPU sends what it is told to");
    job.arg = &plan;
    setenv("T_SIM_BREAK", "ones", 1);
    for (size_t i = 0; i < T_LEN(colls); i++) {
        plan.coll = colls[i];
        T_CHECK(t_run_quietly(&job, text, sizeof(text)), "nothing was noticed in %s",
                t_colls[colls[i]].name);
        T_CONTAINS(text, "did not come within");
    }
    unsetenv("T_SIM_BREAK");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ones_are_data),
        cmocka_unit_test(ones_that_are_sent_are_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
