/* ctest: no-tsan timeout=60 */
/* The kernel of an all_reduce between hosts, run by the simulated GPU without an engine around it: one rank of a
 * host of two, whose peer is memory that the test fills, and so is the proxy. */
#include <stdlib.h>

#include "support/sim/sim.h"
#include "support/t.h"

#include "cuda/kernels/reduce_bodies.inc"

#define TT_DTYPE F32
#include "cuda/kernels/reduce_dtype.inc"

TT_KERNEL(t_rail, tt_cuda_rail_args)
{
    tt_body_ONE_SHOT_RAIL_F32(&args, 0, 8, TUTTI_OP_SUM);
}

enum { BLOCKS = 2, THREADS = 32, COUNT = BLOCKS * THREADS * 4 - 3, ROOM = COUNT + 3 };
#define ONE_SHOT ((uint64_t)TT_CUDA_CONTROL_BYTES)

static struct tt_cuda_report report;
static struct tt_cuda_stage_words words;
static struct tt_cuda_stage_counters counters[TT_CUDA_MAX_BLOCKS];
static float slot_out[ROOM] __attribute__((aligned(16))),
    slot_in[ROOM] __attribute__((aligned(16)));
static float send[ROOM] __attribute__((aligned(16))), recv[ROOM] __attribute__((aligned(16)));

static unsigned char *new_arena(void)
{
    const size_t bytes = ONE_SHOT + TT_CUDA_PARTS * 2 * sizeof(send);
    void *arena;

    T_CHECK(posix_memalign(&arena, 64, bytes) == 0, "no memory");
    memset(arena, 0, ONE_SHOT);
    memset((unsigned char *)arena + ONE_SHOT, 0xff, bytes - ONE_SHOT);
    return arena;
}

/* With what the peer has sent of its vector, and a proxy that has answered. */
static void run(size_t n_sent)
{
    struct tt_cuda_rail_args args = {.sum = {.send = (const unsigned char *)send,
                                             .recv = (unsigned char *)slot_out,
                                             .bytes = COUNT * sizeof(float),
                                             .op = TUTTI_OP_SUM,
                                             .result_to = TT_RESULT_ALL,
                                             .aligned = 1},
                                     .side = {.words = &words,
                                              .counters = counters,
                                              .record = 77,
                                              .n_chunks = 1,
                                              .timeout_ns = 10000000000u,
                                              .out_blocks = BLOCKS,
                                              .in_blocks = BLOCKS},
                                     .in = (const unsigned char *)slot_in,
                                     .recv = (unsigned char *)recv,
                                     .aligned = 1};
    struct tt_cuda_base *base = &args.sum.base;
    float from_peer[ROOM];

    memset(&report, 0, sizeof(report));
    memset(&words, 0, sizeof(words));
    memset(counters, 0, sizeof(counters));
    words.done = 1;
    base->n_ranks = 2;
    base->report = &report;
    base->timeout_ns = 100000000u;
    base->one_shot = ONE_SHOT;
    base->one_shot_part = 2 * sizeof(send);
    for (int r = 0; r < 2; r++)
        base->arena[r] = new_arena();
    for (size_t i = 0; i < ROOM; i++) {
        send[i] = (float)i;
        from_peer[i] = i < COUNT ? 1000 : 0; /* the last vector is filled up */
        slot_in[i] = (float)i * 3;
        slot_out[i] = recv[i] = -1;
    }
    memcpy(base->arena[0] + ONE_SHOT + sizeof(send), from_peer, n_sent * sizeof(float));
    tt_sim_run(t_rail, &args, BLOCKS, THREADS, BLOCKS);
    for (int r = 0; r < 2; r++)
        free(base->arena[r]);
}

static void sums_go_out_and_answers_come_in(void **state)
{
    (void)state;
    run(ROOM);
    T_CHECK(report.result == 0, "it failed: %d", -(int)report.result);
    T_CHECK(words.launch == 1 && words.record == 77 && words.n_chunks == 1, "not announced");
    T_CHECK(words.shape == ((uint64_t)BLOCKS << 32 | BLOCKS << 16 | BLOCKS), "shape %llx",
            (unsigned long long)words.shape);
    for (int b = 0; b < TT_CUDA_MAX_BLOCKS; b++)
        T_CHECK(words.put[b] == (b < BLOCKS) && counters[b].launches == 1 &&
                    counters[b].chunks == 1,
                "block %d: put %llu, chunks %llu", b, (unsigned long long)words.put[b],
                (unsigned long long)counters[b].chunks);
    for (size_t i = 0; i < ROOM; i++)
        T_CHECK(slot_out[i] == (i < COUNT ? (float)i + 1000 : -1) &&
                    recv[i] == (i < COUNT ? (float)i * 3 : -1),
                "element %zu: %g goes out, %g comes in", i, (double)slot_out[i], (double)recv[i]);
}

/* Threads of a block that have all they wait for do not speak for one that has not. */
static void nothing_goes_out_that_is_not_complete(void **state)
{
    (void)state;
    run(ROOM - 4);
    T_CHECK(report.result == (uint32_t)-TUTTI_E_TIMEOUT && report.peer == 1, "%d, rank %d",
            -(int)report.result, report.peer);
    T_CHECK(words.put[0] == 1 && words.put[1] == 0, "put %llu and %llu",
            (unsigned long long)words.put[0], (unsigned long long)words.put[1]);
    run(THREADS * 4 - 4); /* in block 0, which announces the launch */
    T_CHECK(report.peer == 1, "rank %d was missing", report.peer);
    T_CHECK(words.launch == 0 && words.put[0] == 0 && words.put[1] == 0, "it was announced");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_go_out_and_answers_come_in),
        cmocka_unit_test(nothing_goes_out_that_is_not_complete),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
