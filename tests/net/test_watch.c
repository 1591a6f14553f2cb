/* Two ranks that watch each other, one of which leaves or dies at any step of their handshakes: who leaves is
 * not taken for dead, and who dies does not go unnoticed. */
/* ctest: quick timeout=60 */
#include "watches.h"

enum { STEPS = 16, SCHEDULES = 25, SETTLE_MS = 5000 };

struct pair {
    struct tt_watch *watch[2];
    struct told told[2];
};

/* Both connect at once, so that there are two connections; then polls of either, by chance. */
static void begin(struct pair *p, struct t_rng *rng, int n_polls)
{
    struct tt_boot_endpoint where[2];

    memset(p, 0, sizeof(*p));
    for (int i = 0; i < 2; i++)
        p->watch[i] = open_watch(i, key, &p->told[i], &where[i]);
    for (int i = 0; i < 2; i++)
        tt_watch_find(p->watch[i], !i, &where[!i]);
    for (int i = 0; i < 2; i++)
        tt_watch_start(p->watch[i], !i);
    for (int i = 0; i < n_polls; i++)
        tt_watch_poll(p->watch[t_random_below(rng, 2)]);
}

static int has_heard(const struct told *told)
{
    return told->n_left + told->n_lost + told->n_gone;
}

/* Rank 1, alone now, until it has heard something of rank 0, and whatever more there is to hear. */
static void hear_the_end(struct pair *p)
{
    const uint64_t end = tt_now_ns() + SETTLE_MS * MS * t_scale();

    while (!has_heard(&p->told[1]) && tt_now_ns() < end)
        tt_watch_poll(p->watch[1]);
    for (int i = 0; i < 10; i++)
        tt_watch_poll(p->watch[1]);
    tt_watch_close(p->watch[1]);
}

/* Handshakes come to their end, then all links are told: as a net does that is destroyed. */
static void leave(struct pair *p, struct t_rng *rng)
{
    while (tt_watch_poll(p->watch[0])) {
        if (t_random_below(rng, 2))
            tt_watch_poll(p->watch[1]);
    }
    tt_watch_tell(p->watch[0], TT_NOTICE_LEFT, 0);
    tt_watch_close(p->watch[0]);
}

static void test_leaving(void **state)
{
    struct t_rng rng = {.state = 1};
    struct pair p;

    (void)state;
    for (int i = 0; i < STEPS * SCHEDULES; i++) {
        begin(&p, &rng, i % STEPS);
        leave(&p, &rng);
        hear_the_end(&p);
        T_CHECK(p.told[1].n_lost == 0, "after %d polls: who left is lost: %s", i % STEPS,
                p.told[1].why);
        T_CHECK(has_heard(&p.told[1]), "after %d polls: nobody noticed", i % STEPS);
    }
}

/* The one that stays tells something to the one that has gone, which resets the connection: what was said
 * before is read all the same. */
static void test_leaving_unheard(void **state)
{
    struct t_rng rng = {.state = 2};
    struct pair p;

    (void)state;
    for (int i = 0; i < SCHEDULES; i++) {
        begin(&p, &rng, 0);
        T_CHECK(both_ready(p.watch[0], 1, p.watch[1], 0), "no handshake");
        leave(&p, &rng);
        for (int k = 0; k < 3; k++) {
            tt_watch_tell(p.watch[1], TT_NOTICE_WAITS, 0);
            t_sleep_us(100);
        }
        hear_the_end(&p);
        T_CHECK(p.told[1].n_lost == 0 && p.told[1].n_left > 0, "who left is lost: %s",
                p.told[1].why);
    }
}

static void test_dying(void **state)
{
    struct t_rng rng = {.state = 3};
    struct pair p;

    (void)state;
    for (int i = 0; i < STEPS * SCHEDULES; i++) {
        begin(&p, &rng, i % STEPS);
        tt_watch_close(p.watch[0]);
        hear_the_end(&p);
        T_CHECK(p.told[1].n_left == 0 && p.told[1].n_lost + p.told[1].n_gone == 1,
                "after %d polls: %d left, %d lost, %d gone", i % STEPS, p.told[1].n_left,
                p.told[1].n_lost, p.told[1].n_gone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_leaving_unheard),
        cmocka_unit_test(test_dying),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
