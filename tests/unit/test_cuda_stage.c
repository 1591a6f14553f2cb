/* ctest: tsan */
/* The stage's hand-over between a GPU, which is two threads here that do what kernels/stage.inc does, and a
 * proxy: slots are never touched by both, whatever follows on what. For ThreadSanitizer above all, which cannot
 * look into the simulated GPU. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* The state is its own. NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "cuda/stage.c"

enum { LAUNCHES = 300, MOST_CHUNKS = 11, MOST_BLOCKS = 3, SLOT = 4096 };

static struct tt_cuda_stage stage;
static int records[LAUNCHES]; /* launch i: chunks */
static pthread_barrier_t launch_over;

static uint64_t get(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void set(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void await(const uint64_t *word, uint64_t value)
{
    while (get(word) < value)
        sched_yield();
}

static unsigned char *slot(int is_in, uint64_t c)
{
    return stage.memory + WORDS_BYTES +
           ((uint64_t)is_in * TT_CUDA_STAGE_SLOTS + c % TT_CUDA_STAGE_SLOTS) * SLOT;
}

static unsigned char mark(uint64_t launch, uint64_t chunk)
{
    return (unsigned char)(launch * 31 + chunk);
}

/* ---- the GPU ---- */

struct launch {
    uint64_t number, before; /* from 1; chunks of earlier launches */
    int n_chunks, n_blocks, out_blocks, in_blocks;
};

static void announce(const struct launch *l)
{
    struct tt_cuda_stage_words *w = stage.words;

    w->counts[0] = l->number;
    set(&w->record, (uint64_t)(uintptr_t)&records[l->number - 1]);
    set(&w->shape,
        (uint64_t)l->n_blocks << 32 | (uint64_t)l->out_blocks << 16 | (uint64_t)l->in_blocks);
    set(&w->launch, l->number);
}

static void put(const struct launch *l, uint64_t c)
{
    if (c >= TT_CUDA_STAGE_SLOTS)
        await(&stage.words->done, l->before + c - TT_CUDA_STAGE_SLOTS + 1);
    memset(slot(0, c), mark(l->number, c), SLOT);
    for (int b = 0; b < l->out_blocks; b++)
        set(&stage.words->put[b], l->before + c + 1);
}

static void take(const struct launch *l, uint64_t c)
{
    await(&stage.words->done, l->before + c + 1);
    for (int i = 0; i < SLOT; i++)
        assert_int_equal(slot(1, c)[i], (unsigned char)(mark(l->number, c) + 1));
    for (int b = l->n_blocks - l->in_blocks; b < l->n_blocks; b++)
        set(&stage.words->taken[b], l->before + c + 1);
}

static struct launch launch_of(uint64_t number, uint64_t before)
{
    struct launch l = {.number = number, .before = before, .n_chunks = records[number - 1]};

    l.out_blocks = 1 + (int)(number % MOST_BLOCKS);
    l.in_blocks = 1 + (int)(number / 2 % MOST_BLOCKS);
    l.n_blocks = l.out_blocks + l.in_blocks;
    return l;
}

/* Half of the blocks put, half take: a thread for each, and a launch is over when both are. */
static void *putter(void *context)
{
    uint64_t before = 0;

    (void)context;
    for (uint64_t i = 1; i <= LAUNCHES; i++) {
        const struct launch l = launch_of(i, before);

        announce(&l);
        if (i % 5 == 0) {
            await(&stage.words->planned, i);
            assert_int_equal(stage.words->plan.received[0], i);
        }
        for (int c = 0; c < l.n_chunks; c++)
            put(&l, (uint64_t)c);
        before += (uint64_t)l.n_chunks;
        pthread_barrier_wait(&launch_over);
    }
    return NULL;
}

static void *taker(void *context)
{
    uint64_t before = 0;

    (void)context;
    for (uint64_t i = 1; i <= LAUNCHES; i++) {
        const struct launch l = launch_of(i, before);

        for (int c = 0; c < l.n_chunks; c++) {
            if (i % 7 == 0)
                sched_yield();
            take(&l, (uint64_t)c);
        }
        before += (uint64_t)l.n_chunks;
        pthread_barrier_wait(&launch_over);
    }
    return NULL;
}

/* ---- the proxy ---- */

static void serve(uint64_t launch, int n_chunks)
{
    if (launch % 5 == 0) {
        tt_cuda_stage_plan(&stage)->received[0] = tt_cuda_stage_count(&stage, 0);
        tt_cuda_stage_planned(&stage);
    }
    for (int c = 0; c < n_chunks; c++) {
        const unsigned char *out = tt_cuda_stage_out(&stage, (uint64_t)c);
        unsigned char *in = tt_cuda_stage_in(&stage, (uint64_t)c);

        assert_true(tt_cuda_stage_is_due(&stage, (uint64_t)c));
        assert_false(tt_cuda_stage_is_due(&stage, (uint64_t)c + TT_CUDA_STAGE_SLOTS));
        while (!tt_cuda_stage_is_put(&stage, (uint64_t)c))
            sched_yield();
        for (int i = 0; i < SLOT; i++) {
            assert_int_equal(out[i], mark(launch, (uint64_t)c));
            in[i] = (unsigned char)(out[i] + 1);
        }
        tt_cuda_stage_done(&stage);
    }
}

static void slots_are_one_sides_at_a_time(void **state)
{
    pthread_t threads[2];

    (void)state;
    stage.slot_bytes = SLOT;
    stage.bytes = WORDS_BYTES + (uint64_t)2 * TT_CUDA_STAGE_SLOTS * SLOT;
    stage.memory = calloc(1, stage.bytes);
    assert_non_null(stage.memory);
    stage.words = (struct tt_cuda_stage_words *)(void *)stage.memory;
    for (int i = 0; i < LAUNCHES; i++)
        records[i] = 1 + i * 7 % MOST_CHUNKS;
    assert_int_equal(pthread_barrier_init(&launch_over, NULL, 2), 0);
    assert_int_equal(pthread_create(&threads[0], NULL, putter, NULL), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, taker, NULL), 0);
    for (uint64_t i = 1; i <= LAUNCHES; i++) {
        const int *record;

        while (!(record = tt_cuda_stage_next(&stage)))
            sched_yield();
        assert_ptr_equal(record, &records[i - 1]);
        serve(i, *record);
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    free(stage.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_one_sides_at_a_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
