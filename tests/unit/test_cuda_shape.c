/* How an arena is divided, and what a call is made into: pure functions, for all that they may be
 * asked. */
#include "base/error.h"
#include "cuda/cuda.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static const uint64_t scratches[] = {4 * MIB, 5 * MIB + 12345, 56 * MIB, 1024 * MIB};
static const enum tt_coll reductions[] = {TT_COLL_ALL_REDUCE, TT_COLL_REDUCE_SCATTER,
                                          TT_COLL_REDUCE};
static const enum tt_algo forces[] = {TT_ALGO_AUTO, TT_ALGO_ONE_SHOT, TT_ALGO_TWO_SHOT,
                                      TT_ALGO_DIRECT};

static struct tt_cuda_limits limits_of(int n_ranks, uint64_t scratch, int max_blocks)
{
    struct tt_cuda_limits limits;

    memset(&limits, 0, sizeof(limits));
    limits.n_ranks = n_ranks;
    limits.max_blocks = max_blocks;
    assert_int_equal(tt_cuda_layout(n_ranks, scratch, &limits.layout), TUTTI_OK);
    return limits;
}

/* 0, and around every power of two. */
static uint64_t next_size(uint64_t bytes)
{
    uint64_t power = 1;

    if (bytes < 4)
        return bytes + 1;
    while (power * 2 <= bytes + 1)
        power *= 2;
    return bytes + 1 == power ? power : bytes == power ? power + 1 : 2 * power - 1;
}

static void areas_do_not_overlap(void **state)
{
    (void)state;
    for (int n = 1; n <= TT_CUDA_MAX_RANKS; n++)
        for (size_t s = 0; s < TT_LEN(scratches); s++) {
            const struct tt_cuda_layout l = limits_of(n, scratches[s], 1).layout;
            const uint64_t ranks = (uint64_t)n;

            assert_true(l.packets >= TT_CUDA_CONTROL_BYTES);
            assert_true(l.p2p >= l.packets + 2 * ranks * l.packet_slot);
            assert_true(l.sentinel >= l.p2p + (ranks > 1 ? ranks - 1 : 1) * l.p2p_slot);
            assert_true(l.bytes >= l.sentinel + 2 * l.sentinel_half);
            assert_int_equal(l.bytes, scratches[s]);
            assert_int_equal((l.packets | l.p2p | l.sentinel) % 256, 0);
            assert_int_equal((l.packet_slot | l.sentinel_half | l.one_shot_part) % 256, 0);
            assert_true(tt_cuda_p2p_place(&l) >= TT_CUDA_TILE_TOPS + 16);
            assert_true(l.p2p_slot >= tt_cuda_p2p_place(&l) * TT_CUDA_P2P_RING *
                                          (uint64_t)tt_cuda_p2p_most_lanes(&l));
            for (int packets = 0; packets < 2; packets++) {
                assert_true(tt_cuda_one_shot_bytes(&l, n, packets) >= 16);
                assert_true(tt_cuda_two_shot_chunk(&l, n, packets, TT_RESULT_ALL) >= 16);
                assert_true(tt_cuda_two_shot_chunk(&l, n, packets, TT_RESULT_WHOLE) >=
                            2 * tt_cuda_two_shot_chunk(&l, n, packets, TT_RESULT_ALL));
            }
            assert_true(l.sentinel_half >= TT_CUDA_STAGED_RING * (ranks - 1) * TT_CUDA_TILE_ROOM);
        }
}

static void too_little_scratch_is_refused(void **state)
{
    struct tt_cuda_layout l;

    (void)state;
    assert_int_equal(tt_cuda_layout(8, 65536, &l), TUTTI_E_ARG);
    assert_non_null(strstr(tt_error_text(), "TUTTI_CUDA_SCRATCH"));
}

static void check_width(const struct tt_cuda_limits *limits, struct tt_cuda_shape s)
{
    assert_in_range(s.n_blocks, 1, limits->max_blocks);
    assert_in_range(s.n_threads, TT_CUDA_MAX_RANKS, TT_CUDA_MAX_THREADS);
    assert_int_equal(s.n_threads % 32, 0);
}

static void check_reduction(const struct tt_cuda_limits *limits, enum tt_coll coll, uint64_t bytes)
{
    for (size_t f = 0; f < TT_LEN(forces); f++)
        for (int packets = 0; packets < 2; packets++)
            for (int windows = 0; windows < 2; windows++) {
                const struct tt_cuda_shape s =
                    tt_cuda_reduce_shape(limits, coll, forces[f], bytes, windows, packets);
                const int fits =
                    coll == TT_COLL_ALL_REDUCE ||
                    (coll == TT_COLL_REDUCE &&
                     bytes <= tt_cuda_one_shot_bytes(&limits->layout, limits->n_ranks, packets));

                check_width(limits, s);
                assert_true(s.algo == TT_ALGO_ONE_SHOT || s.algo == TT_ALGO_TWO_SHOT ||
                            s.algo == TT_ALGO_DIRECT);
                assert_true(s.algo != TT_ALGO_ONE_SHOT || fits);
                assert_true(s.algo != TT_ALGO_DIRECT || windows);
                if (forces[f] == TT_ALGO_DIRECT && windows)
                    assert_int_equal(s.algo, TT_ALGO_DIRECT);
                if (forces[f] == TT_ALGO_ONE_SHOT && fits)
                    assert_int_equal(s.algo, TT_ALGO_ONE_SHOT);
            }
}

/* What one hop takes is the same for a reduce as for an all_reduce, launch and all. */
static void a_reduce_goes_like_an_all_reduce(void **state)
{
    uint64_t n_hops[2] = {0, 0};

    (void)state;
    for (int n = 2; n <= 8; n++)
        for (int packets = 0; packets < 2; packets++)
            for (uint64_t bytes = 1; bytes <= 64 * MIB; bytes = next_size(bytes)) {
                const struct tt_cuda_limits limits = limits_of(n, 62 * MIB, TT_CUDA_MAX_BLOCKS);
                const struct tt_cuda_shape all = tt_cuda_reduce_shape(
                    &limits, TT_COLL_ALL_REDUCE, TT_ALGO_AUTO, bytes, 0, packets);
                const struct tt_cuda_shape root =
                    tt_cuda_reduce_shape(&limits, TT_COLL_REDUCE, TT_ALGO_AUTO, bytes, 0, packets);

                assert_false(root.in_chunks);
                if (all.in_chunks) {
                    assert_int_equal(root.algo, TT_ALGO_TWO_SHOT);
                    continue;
                }
                assert_int_equal(root.algo, all.algo);
                assert_int_equal(root.n_blocks, all.n_blocks);
                assert_int_equal(root.n_threads, all.n_threads);
                n_hops[root.algo == TT_ALGO_TWO_SHOT]++;
            }
    assert_true(n_hops[0] > 0 && n_hops[1] > 0);
}

static void every_reduction_has_a_shape(void **state)
{
    (void)state;
    for (int n = 1; n <= TT_CUDA_MAX_RANKS; n++)
        for (int blocks = 1; blocks <= TT_CUDA_MAX_BLOCKS; blocks *= 2) {
            const struct tt_cuda_limits limits = limits_of(n, 56 * MIB, blocks);

            for (uint64_t bytes = 0; bytes <= (uint64_t)1 << 40; bytes = next_size(bytes))
                for (size_t c = 0; c < TT_LEN(reductions); c++)
                    check_reduction(&limits, reductions[c], bytes);
        }
}

/* As measured: in windows, tiles up to some 9 MiB that a rank sends, straight into them from 16 MiB on. */
static void long_moves_go_straight(void **state)
{
    static const struct {
        int n_ranks;
        uint64_t pair_bytes;
        enum tt_algo want;
    } rows[] = {
        {2, 8 * MIB, TT_ALGO_TWO_SHOT}, {2, 16 * MIB, TT_ALGO_DIRECT},
        {4, 2 * MIB, TT_ALGO_TWO_SHOT}, {4, 8 * MIB * 4 / 11, TT_ALGO_TWO_SHOT},
        {4, 8 * MIB, TT_ALGO_DIRECT},
    };

    (void)state;
    for (size_t i = 0; i < TT_LEN(rows); i++) {
        const struct tt_cuda_limits limits =
            limits_of(rows[i].n_ranks, 62 * MIB, TT_CUDA_MAX_BLOCKS);
        const uint64_t bytes = rows[i].pair_bytes, room = tt_cuda_packet_bytes(bytes);

        assert_int_equal(tt_cuda_move_shape(&limits, TT_ALGO_AUTO, bytes, room, 1).algo,
                         rows[i].want);
        assert_int_equal(tt_cuda_move_shape(&limits, TT_ALGO_AUTO, bytes, room, 0).algo,
                         TT_ALGO_TWO_SHOT);
    }
}

static void every_move_has_a_shape(void **state)
{
    (void)state;
    for (int n = 2; n <= TT_CUDA_MAX_RANKS; n++)
        for (int blocks = 1; blocks <= TT_CUDA_MAX_BLOCKS; blocks *= 2) {
            const struct tt_cuda_limits limits = limits_of(n, 56 * MIB, blocks);

            for (uint64_t bytes = 0; bytes <= (uint64_t)1 << 40; bytes = next_size(bytes))
                for (size_t f = 0; f < TT_LEN(forces); f++)
                    for (int windows = 0; windows < 2; windows++) {
                        const uint64_t room = tt_cuda_packet_bytes(bytes);
                        const struct tt_cuda_shape s =
                            tt_cuda_move_shape(&limits, forces[f], bytes, room, windows);

                        check_width(&limits, s);
                        assert_true(s.algo != TT_ALGO_ONE_SHOT ||
                                    room <= limits.layout.packet_slot);
                        assert_true(s.algo != TT_ALGO_DIRECT || windows);
                        if (forces[f] == TT_ALGO_AUTO && windows && bytes > 10 * MIB)
                            assert_int_equal(s.algo, TT_ALGO_DIRECT);
                    }
        }
}

/* all_to_allv: nobody knows all sizes, so they cannot matter. */
static void unknown_sizes_are_staged(void **state)
{
    const struct tt_cuda_limits limits = limits_of(8, 56 * MIB, TT_CUDA_MAX_BLOCKS);

    (void)state;
    for (size_t f = 0; f < TT_LEN(forces); f++) {
        const struct tt_cuda_shape s =
            tt_cuda_move_shape(&limits, forces[f], UINT64_MAX, UINT64_MAX, 0);

        check_width(&limits, s);
        assert_int_equal(s.algo, TT_ALGO_TWO_SHOT);
    }
}

/* A message each way has a block for each of its lanes; with more messages no block has more lanes to serve than
 * it has room for. */
static void lanes_fit_the_blocks(void **state)
{
    (void)state;
    for (int n = 2; n <= TT_CUDA_MAX_RANKS; n++)
        for (int blocks = 1; blocks <= TT_CUDA_MAX_BLOCKS; blocks++) {
            const struct tt_cuda_limits limits = limits_of(n, 56 * MIB, blocks);

            for (uint64_t bytes = 0; bytes <= (uint64_t)1 << 40; bytes = next_size(bytes)) {
                const int lanes = tt_cuda_p2p_lanes(&limits, bytes);

                assert_in_range(lanes, 1, TT_CUDA_P2P_LANES);
                assert_true(lanes == 1 || lanes * 2 <= blocks);
                assert_in_range((TT_CUDA_P2P_OPS * lanes + blocks - 1) / blocks, 1,
                                TT_CUDA_P2P_OPS);
            }
        }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(areas_do_not_overlap),
        cmocka_unit_test(too_little_scratch_is_refused),
        cmocka_unit_test(every_reduction_has_a_shape),
        cmocka_unit_test(a_reduce_goes_like_an_all_reduce),
        cmocka_unit_test(every_move_has_a_shape),
        cmocka_unit_test(long_moves_go_straight),
        cmocka_unit_test(unknown_sizes_are_staged),
        cmocka_unit_test(lanes_fit_the_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
