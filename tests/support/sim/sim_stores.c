/*
 * Stores that are seen late. In bad weather (T_SIM_SEED) each thread's stores wait in a queue, eight
 * bytes at a time, which is what packets rely on, and reach memory in any order that keeps those to
 * one address: at random times, and all of them at the kernel's end. A release or a fence orders the
 * thread's own stores, and those that other threads of its block made before a barrier that it has
 * passed. So a protocol that needs an order and does not ask for it fails here as it would on a GPU.
 * (Weaker than a GPU in one respect, which kernels do not rely on: a block barrier alone does not show
 * a thread what others of its block have stored in GPU memory.)
 *
 * T_SIM_BREAK takes one promise away, to prove that the tests would notice:
 *   no_release   releases and fences order nothing, and a thread may keep a store back for long
 *   no_acquire   waits for flags do not wait
 *   no_rearm     sentinels are not put back
 *   ones         what travels in place of all ones goes out as all ones
 *   no_grid_wait early launches wait for nothing
 *   torn         the data of packets comes later than their flags
 *   no_meet      ranks do not show that they came (sim_launch.c)
 *   one_half     both halves of the sentinel memory are the same (sim_launch.c)
 */
#include <stdio.h>
#include <stdlib.h>

#include "support/sim/sim.h"

int tt_sim_breaks(const char *what)
{
    const char *breaks = getenv("T_SIM_BREAK");

    return breaks != NULL && strcmp(breaks, what) == 0;
}

enum broken { NO_RELEASE = 1, NO_ACQUIRE = 2, NO_REARM = 4, TORN = 8, ONES = 16, KNOWN = 32 };

static unsigned broken(void)
{
    static unsigned bits;
    unsigned known = __atomic_load_n(&bits, __ATOMIC_RELAXED);

    if (known == 0) {
        known = KNOWN;
        known |= tt_sim_breaks("no_release") ? NO_RELEASE : 0;
        known |= tt_sim_breaks("no_acquire") ? NO_ACQUIRE : 0;
        known |= tt_sim_breaks("no_rearm") ? NO_REARM : 0;
        known |= tt_sim_breaks("torn") ? TORN : 0;
        known |= tt_sim_breaks("ones") ? ONES : 0;
        __atomic_store_n(&bits, known, __ATOMIC_RELAXED);
    }
    return known;
}

static void put(struct tt_sim_store s)
{
    uint32_t words[2];

    if (s.bytes == 4) {
        __atomic_store_n((uint32_t *)s.p, (uint32_t)s.value, __ATOMIC_RELAXED);
        return;
    }
    if (broken() & TORN) { /* each half has its flag in the second word */
        memcpy(words, &s.value, sizeof(words));
        __atomic_store_n((uint32_t *)s.p + 1, words[1], __ATOMIC_RELAXED);
        if (tt_sim_now != NULL)
            tt_sim_pause();
        __atomic_store_n((uint32_t *)s.p, words[0], __ATOMIC_RELAXED);
        return;
    }
    __atomic_store_n((uint64_t *)s.p, s.value, __ATOMIC_RELAXED);
}

/* Entry i, or the first before it to the same address. */
static void drain_one(struct tt_sim_pending *q, int i)
{
    struct tt_sim_store s;
    int first = 0;

    while (q->at[first].p != q->at[i].p)
        first++;
    s = q->at[first];
    q->n--;
    q->n_before -= first < q->n_before;
    memmove(&q->at[first], &q->at[first + 1], (size_t)(q->n - first) * sizeof(q->at[0]));
    put(s);
}

static void drain_late(struct tt_sim_pending *q)
{
    const struct tt_sim_store late = q->late;

    q->late.p = NULL;
    if (late.p != NULL)
        put(late);
}

void tt_sim_drain(struct tt_sim_pending *q)
{
    while (q->n > 0)
        drain_one(q, (int)(tt_sim_random() % (uint64_t)q->n));
    drain_late(q);
}

void tt_sim_drain_some(struct tt_sim_pending *q)
{
    while (q->n > 0 && (tt_sim_random() >> 8) % 4 != 0)
        drain_one(q, (int)(tt_sim_random() % (uint64_t)q->n));
    if ((tt_sim_random() >> 8) % 64 == 0)
        drain_late(q);
}

void tt_sim_passed_barrier(struct tt_sim_pending *q)
{
    q->n_before = q->n;
}

static void drain_for_release(void)
{
    if (broken() & NO_RELEASE)
        return;
    for (int i = 0; i < TT_THREADS; i++) {
        struct tt_sim_pending *q = tt_sim_stores_of(i);

        while (q->n_before > 0)
            drain_one(q, (int)(tt_sim_random() % (uint64_t)q->n_before));
    }
    tt_sim_drain(tt_sim_my_stores());
}

static int is_in(const struct tt_sim_store *s, const void *p, size_t bytes)
{
    const uintptr_t at = (uintptr_t)s->p, begin = (uintptr_t)p;

    return at + (size_t)s->bytes > begin && at < begin + bytes;
}

/* This thread sees its own stores. */
static void drain_range(struct tt_sim_pending *q, const void *p, size_t bytes)
{
    if (q->late.p != NULL && is_in(&q->late, p, bytes))
        drain_late(q);
    for (int i = 0; i < q->n; i++)
        if (is_in(&q->at[i], p, bytes))
            drain_one(q, i--);
}

/* On a GPU it is an error that ends the process's work. */
static void need_alignment(const void *p)
{
    if ((uintptr_t)p % 16 == 0)
        return;
    fprintf(stderr, "a kernel makes a 16-byte access to %p\n", p);
    abort();
}

/* Now, or later. */
static void store(const struct tt_sim_store s[], int n)
{
    struct tt_sim_pending *q;

    if (tt_sim_random() == 0) {
        for (int i = 0; i < n; i++)
            put(s[i]);
        return;
    }
    q = tt_sim_my_stores();
    if (q->late.p != NULL && is_in(&q->late, s[0].p, (size_t)(n * s[0].bytes)))
        drain_late(q);
    while (q->n + n > TT_SIM_PENDING)
        drain_one(q, (int)(tt_sim_random() % (uint64_t)q->n));
    for (int i = 0; i < n; i++)
        q->at[q->n++] = s[i];
    if (broken() & NO_RELEASE && q->late.p == NULL && (tt_sim_random() >> 8) % 16 == 0)
        q->late = q->at[--q->n];
}

/* Where memory waits, words that are all ones but for their top bit get that too. */
static uint64_t with_ones(const void *p, uint64_t value)
{
    uint64_t all = value;

    if (__atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED) != UINT64_MAX)
        return value;

    for (int shift = 0; shift < 64; shift += 32)
        if ((value >> shift & UINT32_MAX) == UINT32_MAX >> 1)
            all |= (uint64_t)UINT32_MAX << shift;
    return all;
}

void tt_sim_store16(void *p, const void *vec)
{
    struct tt_sim_store halves[2];

    need_alignment(p);
    for (int i = 0; i < 2; i++) {
        halves[i].p = (uint64_t *)p + i;
        halves[i].bytes = 8;
        memcpy(&halves[i].value, (const char *)vec + 8 * i, 8);
        if (broken() & ONES)
            halves[i].value = with_ones(halves[i].p, halves[i].value);
    }
    if ((broken() & NO_REARM) && (halves[0].value & halves[1].value) == UINT64_MAX)
        return;
    store(halves, 2);
}

void tt_sim_store4(void *p, uint32_t word)
{
    const struct tt_sim_store s = {p, word, 4};

    if (!((broken() & NO_REARM) && word == UINT32_MAX))
        store(&s, 1);
}

uint32_t tt_sim_load4(const void *p)
{
    if (tt_sim_random() != 0)
        drain_range(tt_sim_my_stores(), p, 4);
    return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
}

void tt_sim_load16(const void *p, void *vec)
{
    const uint64_t dice = tt_sim_random();
    uint64_t halves[2];

    need_alignment(p);
    if (dice != 0)
        drain_range(tt_sim_my_stores(), p, 16);
    for (int i = 0; i < 2; i++) {
        const int half = i ^ (int)(dice >> 8 & 1); /* either first */

        halves[half] = __atomic_load_n((const uint64_t *)p + half, __ATOMIC_RELAXED);
        if (i == 0 && (dice >> 16 & 31) == 1)
            tt_sim_pause();
    }
    memcpy(vec, halves, 16);
}

void tt_sim_store_flag(uint64_t *p, uint64_t value, int release)
{
    struct tt_sim_pending *q = tt_sim_my_stores();

    if (release)
        drain_for_release();
    drain_range(q, p, sizeof(*p));
    __atomic_store_n(p, value, release ? __ATOMIC_RELEASE : __ATOMIC_RELAXED);
}

uint64_t tt_sim_load_flag(const uint64_t *p, int acquire)
{
    if (broken() & NO_ACQUIRE)
        return UINT64_MAX;
    drain_range(tt_sim_my_stores(), p, sizeof(*p));
    return __atomic_load_n(p, acquire ? __ATOMIC_ACQUIRE : __ATOMIC_RELAXED);
}

void tt_sim_fence(void)
{
    drain_for_release();
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
