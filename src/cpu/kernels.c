/* Which kernels: asked of the processor once per process. */
#include "cpu/kernels.h"
#include "cpu/kernels_sets.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define MAX_SETS 3

static pthread_once_t choose_once = PTHREAD_ONCE_INIT;
static struct tt_kernels sets[MAX_SETS]; /* those that this processor can run, best first */
static int n_sets;

void tt_demote_nothing(const void *p, size_t bytes)
{
    (void)p;
    (void)bytes;
}

#if defined(__x86_64__)

static void demote_lines(const void *p, size_t bytes)
{
    const uintptr_t end = (uintptr_t)p + bytes;

    for (uintptr_t line = (uintptr_t)p & ~(uintptr_t)63; line < end; line += 64)
        __asm__ volatile("cldemote %0" : : "m"(*(const char *)line));
}

/* __builtin_cpu_supports() does not know everything in every compiler. */
static int cpuid_has(unsigned leaf, unsigned ecx_bit)
{
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;

    return __get_cpuid_count(leaf, 0, &a, &b, &c, &d) && (c >> ecx_bit & 1u);
}

static void add_set(const struct tt_kernels *set)
{
    const int has_cldemote = cpuid_has(7, 25);

    sets[n_sets] = *set;
    if (has_cldemote)
        sets[n_sets].demote = demote_lines;
    n_sets++;
}

/* __builtin_cpu_supports() also asks whether the system saves the wider registers. */
static void add_vector_sets(void)
{
    const int has_f16c = cpuid_has(1, 29);

    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !has_f16c)
        return;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        add_set(&tt_kernels_avx512);
    add_set(&tt_kernels_avx2);
}

#else

static void add_set(const struct tt_kernels *set)
{
    sets[n_sets++] = *set;
}

static void add_vector_sets(void)
{
#if defined(__aarch64__)
    add_set(&tt_kernels_neon);
#endif
}

#endif

static void choose(void)
{
    add_vector_sets();
    add_set(&tt_kernels_scalar);
}

const struct tt_kernels *tt_kernels_get(const char *isa)
{
    pthread_once(&choose_once, choose);
    if (!isa || strcmp(isa, "auto") == 0)
        return &sets[0];
    for (int k = 0; k < n_sets; k++)
        if (strcmp(isa, sets[k].isa) == 0)
            return &sets[k];
    return NULL;
}

/* ------------------------------------------------------------ floating-point mode ------------- */

#if defined(__x86_64__)

#define MXCSR_FLAGS 0x3fu   /* exceptions seen so far: not a mode */
#define MXCSR_IEEE  0x1f80u /* no exception traps, to nearest, denormals kept */

uint64_t tt_fp_enter(void)
{
    const unsigned saved = __builtin_ia32_stmxcsr();

    if ((saved & ~MXCSR_FLAGS) != MXCSR_IEEE)
        __builtin_ia32_ldmxcsr(MXCSR_IEEE);
    return saved;
}

void tt_fp_leave(uint64_t saved)
{
    if ((saved & ~(uint64_t)MXCSR_FLAGS) != MXCSR_IEEE)
        __builtin_ia32_ldmxcsr((unsigned)saved);
}

#elif defined(__aarch64__)

/* Everything that changes a result: alternative half precision, default NaN, flush to zero,
 * rounding direction, flush fp16, the exception traps, and what FEAT_AFP adds. */
#define FPCR_MODES UINT64_C(0x07c89f07)

uint64_t tt_fp_enter(void)
{
    uint64_t saved;

    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    if (saved & FPCR_MODES)
        __asm__ volatile("msr fpcr, %0" : : "r"(saved & ~FPCR_MODES) : "memory");
    return saved;
}

void tt_fp_leave(uint64_t saved)
{
    if (saved & FPCR_MODES)
        __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}

#else
#include <fenv.h>

uint64_t tt_fp_enter(void)
{
    const int saved = fegetround();

    if (saved != FE_TONEAREST)
        fesetround(FE_TONEAREST);
    return (uint64_t)saved;
}

void tt_fp_leave(uint64_t saved)
{
    if ((int)saved != FE_TONEAREST)
        fesetround((int)saved);
}

#endif
