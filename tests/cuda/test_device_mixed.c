/* ctest: no-tsan timeout=120 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* Sums of floats whose buffers are aligned on some ranks and not on others, so that some take the bodies of
 * even.inc and some the general ones in the same launch: one wire, the same chunks, blocks and credits. */
#include "support/cases.h"

/* So little scratch that the longest shards are many chunks, which go round in it. */
enum { SCRATCH = 168 << 10, SCRATCH_A_RANK = 64 << 10, MOST = 1400 };

static const tutti_dtype floats[] = {TUTTI_DTYPE_F32, TUTTI_DTYPE_F16, TUTTI_DTYPE_BF16};
static const enum t_coll colls[] = {T_all_reduce, T_reduce_scatter};
static const size_t vectors[] = {1, 67, 300, MOST}; /* of a shard */
enum { N_CASES = T_LEN(colls) * T_LEN(vectors) };

static void one_call(struct t_stage *s, enum t_coll coll, size_t n_vectors, uint64_t seed)
{
    const uint64_t h = t_hash(seed, n_vectors);
    struct t_case c = {.coll = coll, .op = TUTTI_OP_SUM, .seed = h, .windows = T_SKEWED};

    c.dtype = floats[h % T_LEN(floats)];
    c.count = n_vectors * 16 / tutti_dtype_bytes(c.dtype);
    c.count *= coll == T_all_reduce ? (size_t)s->n_ranks : 1;
    c.in_place = (int)(h >> 8 & 1);
    c.inputs = h >> 9 & 1 ? T_NEAR : T_BITS;
    t_case_run(s, &c);
}

static void every_call(struct t_rank *t)
{
    static const char *const names[] = {"one_shot", "two_shot"};
    const unsigned n_seeds = t_times(1, 30);
    struct t_device device;

    t_device_open(&device, t);
    for (size_t i = 0; i < T_LEN(names); i++) {
        tutti_comm_config config = t_cuda_config(t);
        tutti_comm *comm;
        struct t_stage s;

        config.algorithm = names[i];
        config.scratch_bytes = SCRATCH + (size_t)t->n_ranks * SCRATCH_A_RANK;
        T_OK(t_comm_create(t, 100 + i, &config, &comm));
        t_stage_open_on(&s, t, comm, (size_t)t->n_ranks * MOST * 16 + 65536, 0, &device);
        t_meet(t);
        for (uint64_t k = 0; k < n_seeds * N_CASES; k++)
            one_call(&s, colls[k % 2], vectors[k / 2 % T_LEN(vectors)], k + 1000 * i);
        t_meet(t);
        t_stage_close(&s);
        tutti_comm_destroy(comm);
    }
    t_device_close(&device);
}

static void run(const char *seed)
{
    static const int ranks[] = {2, 4, 8, 0};

    if (seed != NULL)
        setenv("T_SIM_SEED", seed, 1);
    t_cuda_ranks(ranks, every_call);
    unsetenv("T_SIM_SEED");
}

static void bodies_mix(void **state)
{
    (void)state;
    run(NULL);
}

static void also_in_bad_weather(void **state)
{
    (void)state;
    if (!t_is_simulated())
        t_skip("a real GPU makes its own weather");
    run("7");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_mix),
        cmocka_unit_test(also_in_bad_weather),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
