/* ctest: timeout=120 */
/* ctest: long as=65 args=9,16,33,64,65 timeout=900 */
/* Every call among many ranks, more than there are cores: tables and rings are laid out for the number of
 * ranks, and the rings shrink when that passes 8, 16 and 64. */
#include "support/cases.h"

enum { ROOM = 1 << 18, MOST = 20000 };

static void every_call(struct t_rank *t)
{
    static const size_t counts[] = {1, 300};
    static const tutti_dtype dtypes[] = {TUTTI_DTYPE_I32, TUTTI_DTYPE_BF16, TUTTI_DTYPE_F64};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (uint64_t i = 0; i < 3 * T_LEN(counts); i++) {
            struct t_case c = {.coll = (enum t_coll)coll, .op = TUTTI_OP_SUM};

            c.dtype = dtypes[i % T_LEN(dtypes)];
            c.count = t_case_fit(c.coll, t->n_ranks, ROOM, 8, counts[i % T_LEN(counts)]);
            c.seed = t_hash((uint64_t)coll, i);
            c.root = (int)(c.seed % (uint64_t)t->n_ranks);
            c.place = (enum t_place)(c.seed / 7 % T_N_PLACES);
            c.windows = i < T_LEN(counts) ? T_REGISTERED : T_ORDINARY;
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

static unsigned char byte_of(int from, int to, size_t i)
{
    return (unsigned char)(from * 131 + to * 31 + (int)(i * 7) + (int)(i >> 8));
}

/* Lengths in a line, within a ring, and beyond it. */
static size_t bytes_of(int from, int to)
{
    static const size_t lengths[] = {0, 40, 3000, MOST};

    return lengths[t_hash((uint64_t)from, (uint64_t)to) % T_LEN(lengths)];
}

/* All send to all at once. */
static void all_pairs(struct t_rank *t)
{
    const size_t n = (size_t)t->n_ranks;
    unsigned char *in = calloc(n, MOST), *out = malloc(n * MOST);

    T_CHECK(in && out, "no memory");
    T_OK(tutti_group_begin(t->comm));
    for (int r = 0; r < t->n_ranks; r++) {
        unsigned char *to = out + (size_t)r * MOST;

        for (size_t i = 0; i < bytes_of(t->rank, r); i++)
            to[i] = byte_of(t->rank, r, i);
        if (r == t->rank)
            continue;
        T_OK(tutti_send(t->comm, to, bytes_of(t->rank, r), TUTTI_DTYPE_U8, r, NULL));
        T_OK(tutti_recv(t->comm, in + (size_t)r * MOST, bytes_of(r, t->rank), TUTTI_DTYPE_U8, r,
                        NULL));
    }
    T_OK(tutti_group_end(t->comm));
    for (int r = 0; r < t->n_ranks; r++)
        for (size_t i = 0; r != t->rank && i < bytes_of(r, t->rank); i++)
            T_CHECK(in[(size_t)r * MOST + i] == byte_of(r, t->rank, i), "from rank %d, byte %zu", r,
                    i);
    free(in);
    free(out);
}

static void all(struct t_rank *t)
{
    every_call(t);
    all_pairs(t);
}

/* Once by system calls across memories, where they are allowed, and once by scratch and rings alone. */
static void run(int n_ranks)
{
    struct t_job job = {.n_ranks = n_ranks, .body = all, .limit_s = 300};

    job.config.size = sizeof(job.config);
    job.config.scratch_bytes = 1 << 20;
    t_run(&job);
    setenv("TUTTI_CPU_XMEM", "off", 1);
    t_run(&job);
    unsetenv("TUTTI_CPU_XMEM");
}

static int numbers[8] = {17}, n_numbers = 1;

static void calls_are_right(void **state)
{
    (void)state;
    for (int i = 0; i < n_numbers; i++)
        run(numbers[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_right),
    };

    if (argc > 1)
        n_numbers = argc - 1 < (int)T_LEN(numbers) ? argc - 1 : (int)T_LEN(numbers);
    for (int i = 0; i + 1 < argc && i < n_numbers; i++)
        numbers[i] = (int)strtol(argv[i + 1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
