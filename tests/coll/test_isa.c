/* ctest: timeout=120 */
/* The same bits from the kernels of every instruction set, whatever the caller's FP modes. */
#include <fenv.h>
#include <unistd.h>

#include "support/cases.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static const size_t counts[] = {1, 3, 15, 31, 33, 64, 129, 1000, 4099};

static void every_reduction(struct t_stage *s)
{
    struct t_case c = {.seed = 99};

    for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
        for (int op = 0; op < TUTTI_N_OPS; op++)
            for (size_t i = 0; i < T_LEN(counts); i++) {
                c.coll = i % 2 == 0 ? T_all_reduce : T_reduce_scatter;
                c.dtype = (tutti_dtype)dtype;
                c.op = (tutti_op)op;
                c.count = counts[i];
                c.inputs = i == 2 ? T_NEAR : T_BITS;
                c.place = (enum t_place)(i % T_N_PLACES);
                c.seed++;
                t_case_run(s, &c);
            }
}

static void body(struct t_rank *t)
{
    struct t_stage s;

    t_stage_open(&s, t, t->comm, t_case_room(t->n_ranks, 4099, 8), 0);
    every_reduction(&s);
    t_stage_close(&s);
}

static void body_with_odd_modes(struct t_rank *t)
{
    struct t_stage s;

    t_stage_open(&s, t, t->comm, t_case_room(t->n_ranks, 4099, 8), 0);
    fesetround(FE_UPWARD);
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
    const unsigned before = _mm_getcsr() & ~0x3fu;
#endif
    every_reduction(&s);
    T_CHECK(fegetround() == FE_UPWARD, "the rounding mode was changed");
#if defined(__x86_64__)
    T_CHECK((_mm_getcsr() & ~0x3fu) == before, "mxcsr is %#x, was %#x", _mm_getcsr(), before);
#endif
    t_stage_close(&s);
}

static void run(const char *isa, void (*rank_body)(struct t_rank *))
{
    static char text[8192];

    for (int n = 1; n <= 3; n++) {
        const struct t_job job = {.n_ranks = n, .body = rank_body};

        if (isa != NULL)
            setenv("TUTTI_CPU_ISA", isa, 1);
        if (t_run_quietly(&job, text, sizeof(text))) {
            if (isa == NULL || strstr(text, "comm_create") == NULL)
                T_FAIL("%s: %s", isa ? isa : "best", text);
            printf("passed over: this processor has no %s\n", isa);
            break;
        }
    }
    unsetenv("TUTTI_CPU_ISA");
}

static void scalar_gives_the_reference(void **state)
{
    (void)state;
    run("scalar", body);
}

static void avx2_gives_the_reference(void **state)
{
    (void)state;
    run("avx2", body);
}

static void avx512_gives_the_reference(void **state)
{
    (void)state;
    run("avx512", body);
}

static void neon_gives_the_reference(void **state)
{
    (void)state;
    run("neon", body);
}

static void odd_fp_modes_change_nothing_and_are_kept(void **state)
{
    (void)state;
    run(NULL, body_with_odd_modes);
    run("scalar", body_with_odd_modes);
    run("avx2", body_with_odd_modes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_gives_the_reference),
        cmocka_unit_test(avx2_gives_the_reference),
        cmocka_unit_test(avx512_gives_the_reference),
        cmocka_unit_test(neon_gives_the_reference),
        cmocka_unit_test(odd_fp_modes_change_nothing_and_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
