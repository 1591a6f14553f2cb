/* ctest: no-tsan timeout=240 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* Every collective of every dtype and operation, by every algorithm, gives the bits of the reference:
 * in windows and not, in place and not, at any alignment, for any inputs. */
#include "support/algorithms.h"
#include "support/cases.h"

enum { SCRATCH = 1 << 20 };

/* A quick run takes a sample, another for each number of ranks and algorithm. */
static int is_chosen(uint64_t seed, int n_ranks)
{
    return t_hash(seed, 3) % t_times(n_ranks > 3 ? 12 : 4, 1) == 0;
}

static void every_call(struct t_stage *s, uint64_t seed)
{
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (int op = 0; op < (t_colls[coll].reduces ? TUTTI_N_OPS : 1); op++) {
                struct t_case c = t_case_of_some_count(++seed, s->n_ranks);

                c.coll = (enum t_coll)coll;
                c.dtype = (tutti_dtype)dtype;
                c.op = (tutti_op)op;
                if (is_chosen(seed, s->n_ranks))
                    t_case_run(s, &c);
            }
}

static void every_algorithm(struct t_rank *t)
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
            continue; /* the CPU's */
        config.algorithm = names[i];
        config.scratch_bytes = SCRATCH;
        T_OK(t_comm_create(t, 100 + i, &config, &comm));
        t_stage_open_on(&s, t, comm, t_case_room(t->n_ranks, T_CASE_MOST, 8), 1, &device);
        t_meet(t);
        every_call(&s, (uint64_t)t->n_ranks * 100000 + i * 10000);
        t_meet(t);
        t_stage_close(&s);
        tutti_comm_destroy(comm);
    }
    t_device_close(&device);
}

static void every_call_by_every_algorithm(void **state)
{
    static const int ranks[] = {1, 2, 3, 4, 5, 8, 0};

    (void)state;
    t_cuda_ranks(ranks, every_algorithm);
}

/* Numbers of ranks that nothing is made for. */
static void some_calls(struct t_rank *t)
{
    struct t_device device;
    uint64_t seed = (uint64_t)t->n_ranks * 1000;
    struct t_stage s;

    t_device_open(&device, t);
    t_stage_open_on(&s, t, t->comm, t_case_room(t->n_ranks, T_CASE_MOST, 8), 1, &device);
    t_meet(t);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (unsigned k = 0; k < t_times(2, 40); k++) {
            struct t_case c = t_case_of_some_count(++seed, t->n_ranks);

            c.coll = (enum t_coll)coll;
            c.dtype = (tutti_dtype)(t_hash(seed, 7) % TUTTI_N_DTYPES);
            c.op = (tutti_op)(t_hash(seed, 8) % TUTTI_N_OPS);
            c.count = c.count < 1027 ? c.count : 1027;
            t_case_run(&s, &c);
        }
    t_meet(t);
    t_stage_close(&s);
    t_device_close(&device);
}

static void any_number_of_ranks(void **state)
{
    static const int ranks[] = {6, 7, 9, 12, 0};
    static const char *const names[] = {NULL, "two_shot", "direct"};

    (void)state;
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++)
        for (size_t i = 0; i < T_LEN(names); i++) {
            struct t_job job = t_cuda_job(*n, some_calls);

            job.config.algorithm = names[i];
            t_run(&job);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_by_every_algorithm),
        cmocka_unit_test(any_number_of_ranks),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
