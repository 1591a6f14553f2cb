/* Puts and signals between processes, over the real provider: every byte is looked at. */
/* ctest: timeout=120 no-tsan */
/* ctest: timeout=120 no-tsan as=rma args=rma */
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
    while (!tt_net_has_left(net, peer, all) && tt_now_ns() < end)
        T_OK(tt_net_progress(net));
    T_CHECK(tt_net_has_left(net, peer, all), "what was sent does not leave");
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

/* Rank 1 goes on putting into memory that rank 0 has taken back: nothing of it is written. (It must not;
 * but a rank that is late must not be able to hurt either.) */
static void late_puts(struct t_rank *t)
{
    struct tt_net *net = t_net_new(t, NULL, TIMEOUT);
    const struct tt_exchange x = t_net_exchange(t);
    struct tt_net_region *regions[2];
    unsigned char *mine = area(), *other = area();
    const int peer = 1 - t->rank;

    T_OK(tt_net_expose(net, &x, mine, MIB, &regions[0]));
    T_OK(tt_net_expose(net, &x, other, BYTES, &regions[1]));
    if (t->rank == 0)
        tt_net_hide(regions[0]);
    t_meet(t);
    if (t->rank == 1) {
        t_net_fill(other, MIB, 1);
        T_OK(tt_net_put(net, peer, other, MIB, regions[0], 0));
        T_OK(tt_net_put(net, peer, other, 8, regions[0], 64));
        T_OK(tt_net_signal(net, peer, regions[0], 4096, 1));
    }
    /* What is in order is carried out all the same. */
    T_OK(tt_net_signal(net, peer, regions[1], FLAG_AT, 1));
    t_net_wait(net, other + FLAG_AT, 1, WAIT_S);
    wait_sent(net, peer);
    if (t->rank == 0) {
        for (size_t i = 0; i < MIB; i++)
            T_CHECK(mine[i] == 0, "byte %zu was written after its memory was taken back", i);
    }
    tt_net_destroy(net);
}

struct shelf { /* what is taken of the region's first half; the rest is left to the net */
    unsigned char *bytes;
    uint64_t end;
    int n_out_of_order;
};

static int take(void *context, uint64_t at, const void *data, uint64_t bytes)
{
    struct shelf *s = context;

    if (at >= MOST / 2)
        return 0;
    s->n_out_of_order += at != s->end;
    s->end = at + bytes;
    memcpy(s->bytes + at, data, bytes);
    return 1;
}

/* A small put, a large one and a signal go in one message where puts are messages. What comes for the first
 * half of rank 0's memory is taken as it comes, in order, and not stored; what comes for the rest is. */
static void offered(struct t_rank *t)
{
    static const size_t large[] = {1000, 100000, 245760, 245761, 3 * MIB};
    const char *puts_by = getenv("TUTTI_NET_PUTS");
    const int is_offered = !puts_by || strcmp(puts_by, "rma") != 0;
    struct tt_net *net = t_net_new(t, NULL, TIMEOUT);
    const struct tt_exchange x = t_net_exchange(t);
    struct tt_net_region *region;
    unsigned char *mine = area(), *src = area();
    struct shelf shelf = {.bytes = area()};
    const size_t half = MOST / 2;
    uint64_t at = 0;

    T_CHECK((tt_net_bundle_bytes(net) > 0) == is_offered, "bundles of %llu bytes",
            (unsigned long long)tt_net_bundle_bytes(net));
    T_OK(tt_net_expose(net, &x, mine, BYTES, &region));
    if (t->rank == 0)
        tt_net_offer(region, take, &shelf);
    t_net_fill(src, half, 5);
    t_meet(t);
    for (size_t i = 0; i < T_LEN(large); i++) {
        if (t->rank == 1) {
            T_OK(tt_net_put(net, 0, src + at, 48, region, half + at));
            T_OK(tt_net_put(net, 0, src + at, large[i], region, at));
            T_OK(tt_net_signal(net, 0, region, FLAG_AT, i + 1));
            wait_sent(net, 0);
        } else {
            t_net_wait(net, mine + FLAG_AT, i + 1, WAIT_S);
            T_CHECK(memcmp(mine + half + at, src + at, 48) == 0, "small put %zu is wrong", i);
        }
        at += large[i];
    }
    if (t->rank == 0) {
        const unsigned char *there = is_offered ? shelf.bytes : mine;
        const unsigned char *nothing = is_offered ? mine : shelf.bytes;

        T_CHECK(shelf.n_out_of_order == 0, "%d pieces out of order", shelf.n_out_of_order);
        T_CHECK(t_net_find_wrong(there, at, 5) == at, "taken bytes are wrong");
        for (size_t i = 0; i < at; i++)
            T_CHECK(nothing[i] == 0, "byte %zu was stored as well", i);
    }
    tt_net_destroy(net);
}

static void test_offered(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = offered};

    (void)state;
    t_run(&job);
}

static void test_late_puts(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = late_puts};
    const char *puts_by = getenv("TUTTI_NET_PUTS");

    (void)state;
    if (puts_by && strcmp(puts_by, "rma") == 0)
        skip(); /* UCX's emulation of a card does write it */
    t_run(&job);
}

static void test_sizes(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = sizes};

    (void)state;
    t_run(&job);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_offered),
        cmocka_unit_test(test_late_puts),
    };

    if (argc > 1) /* "rma": as over a card, carried out by UCX */
        setenv("TUTTI_NET_PUTS", argv[1], 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
