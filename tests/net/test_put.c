/* Puts and signals between processes, over the real provider: every byte is looked at. */
/* ctest: timeout=120 no-tsan */
#include <sys/mman.h>

#include "base/clock.h"
#include "support/nets.h"

#define MIB     ((size_t)1 << 20)
#define MOST    (16 * MIB)
#define FLAG_AT MOST
#define BYTES   (MOST + 4096)
#define WAIT_S  20
#define TIMEOUT 20000

static unsigned char *area(void)
{
    unsigned char *p =
        mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_CHECK(p != MAP_FAILED, "no memory");
    return p;
}

static void wait_sent(struct tt_net *net, int peer)
{
    const uint64_t all = tt_net_posted(net, peer);
    const uint64_t end = tt_now_ns() + (uint64_t)WAIT_S * t_scale() * 1000000000u;

    while (tt_net_sent(net, peer) < all && tt_now_ns() < end)
        T_OK(tt_net_progress(net));
    T_CHECK(tt_net_sent(net, peer) == all, "%llu of %llu sent",
            (unsigned long long)tt_net_sent(net, peer), (unsigned long long)all);
}

/* Rank 0 puts, rank 1 checks and puts the same back from memory that is not registered. */
static void sizes(struct t_rank *t)
{
    static const size_t bytes[] = {1, 8, 13, 4096, 65535, 300000, MIB, 3 * MIB + 5, MOST};
    struct tt_net *net = t_net_new(t, NULL, TIMEOUT);
    const struct tt_exchange x = t_net_exchange(t);
    struct tt_net_region *region;
    unsigned char *mine = area(), *src = area();
    const int peer = 1 - t->rank;

    T_OK(tt_net_expose(net, &x, mine, BYTES, &region));
    for (size_t i = 0; i < T_LEN(bytes); i++) {
        const size_t n = bytes[i], at = i % 3;

        if (t->rank == 1) {
            t_net_wait(net, mine + FLAG_AT, i + 1, WAIT_S);
            const size_t wrong = t_net_find_wrong(mine + at, n - at % n, i);

            T_CHECK(wrong == n - at % n, "byte %zu of %zu is wrong", wrong, n);
        }
        t_net_fill(src, n, i);
        T_OK(tt_net_put(net, peer, src, n - at % n, region, at));
        T_OK(tt_net_signal(net, peer, region, FLAG_AT, i + 1));
        wait_sent(net, peer);
        memset(src, 0xee, n); /* sent means that this cannot hurt */
        if (t->rank == 0) {
            t_net_wait(net, mine + FLAG_AT, i + 1, WAIT_S);
            const size_t wrong = t_net_find_wrong(mine + at, n - at % n, i);

            T_CHECK(wrong == n - at % n, "byte %zu of %zu came back wrong", wrong, n);
        }
    }
    if (t->rank == 0)
        printf("%s\n", tt_net_details(net));
    tt_net_hide(region);
    tt_net_destroy(net);
}

static void test_sizes(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = sizes};

    (void)state;
    t_run(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
