/* ctest: no-tsan timeout=240 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* Sizes around every boundary: vectors, blocks, slots, and messages of many chunks, with so little
 * scratch that 64 KiB are many. With T_GPU_LARGE=1 up to hundreds of MiB. */
#include "support/algorithms.h"
#include "support/cases.h"

enum { SCRATCH = 1 << 20 };

static const struct {
    tutti_dtype dtype;
    tutti_op op;
} kinds[] = {
    {TUTTI_DTYPE_BF16, TUTTI_OP_SUM}, {TUTTI_DTYPE_U8, TUTTI_OP_MAX},
    {TUTTI_DTYPE_F32, TUTTI_OP_SUM},  {TUTTI_DTYPE_F16, TUTTI_OP_AVG},
    {TUTTI_DTYPE_I32, TUTTI_OP_SUM},  {TUTTI_DTYPE_F64, TUTTI_OP_SUM},
};

static void one_size(struct t_stage *s, enum t_coll coll, size_t bytes, uint64_t seed)
{
    const uint64_t h = t_hash(seed, bytes);
    struct t_case c = {.coll = coll, .seed = h, .inputs = T_BITS};
    const size_t kind = h % T_LEN(kinds);
    size_t element;

    c.dtype = kinds[kind].dtype;
    c.op = kinds[kind].op;
    element = tutti_dtype_bytes(c.dtype);
    c.count = t_case_fit(coll, s->n_ranks, s->room, element, bytes / element);
    c.place = (h >> 8 & 3) != 0 ? T_ALIGNED : T_ODD;
    c.windows = (h >> 16 & 1) != 0 ? T_REGISTERED : T_ORDINARY;
    c.in_place = (int)(h >> 17 & 1);
    c.root = (int)((h >> 20) % (uint64_t)s->n_ranks);
    t_case_run(s, &c);
}

static void all_sizes(struct t_stage *s, size_t most, unsigned step, uint64_t seed)
{
    for (int coll = 0; coll < T_N_COLLS; coll++) {
        if (coll == T_barrier)
            continue;
        for (size_t bytes = 16; bytes <= most; bytes *= 2)
            for (int around = -1; around <= 1; around++)
                if (t_hash(++seed, 5) % step == 0)
                    one_size(s, (enum t_coll)coll, bytes + (size_t)(around * 8), seed);
    }
}

static void run_algorithms(struct t_rank *t, size_t scratch, size_t most, unsigned step)
{
    const char *names[T_MAX_ALGORITHMS];
    const size_t n = t_algorithms(names);
    struct t_device device;

    t_device_open(&device, t);
    for (size_t i = 0; i < n; i++) {
        tutti_comm_config config = t_cuda_config(t);
        tutti_comm *comm;
        struct t_stage s;

        if (names[i] != NULL && strcmp(names[i], "xmem") == 0)
            continue;
        config.algorithm = names[i];
        config.scratch_bytes = scratch;
        T_OK(t_comm_create(t, 200 + i, &config, &comm));
        t_stage_open_on(&s, t, comm, 4 * most + 65536, 1, &device);
        t_meet(t);
        all_sizes(&s, most, step, (uint64_t)t->n_ranks * 1000 + i);
        t_meet(t);
        t_stage_close(&s);
        tutti_comm_destroy(comm);
    }
    t_device_close(&device);
}

static void many_chunks(struct t_rank *t)
{
    const size_t most = ((size_t)512 << 10) / (size_t)t->n_ranks;

    run_algorithms(t, SCRATCH, most, t_times(t->n_ranks > 5 ? 72 : 24, 1));
}

static void large(struct t_rank *t)
{
    run_algorithms(t, 0, (size_t)256 << 20, 2);
}

static void sizes_of_many_chunks(void **state)
{
    static const int ranks[] = {2, 3, 4, 5, 8, 0};

    (void)state;
    t_cuda_ranks(ranks, many_chunks);
}

static void large_sizes(void **state)
{
    static const int ranks[] = {2, 4, 8, 0};

    (void)state;
    if (!t_is_large())
        t_skip("set T_GPU_LARGE=1 for large sizes");
    t_cuda_ranks(ranks, large);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_many_chunks),
        cmocka_unit_test(large_sizes),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
