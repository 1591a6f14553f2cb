/* A host that has vanished before it was first contacted: nobody answers for its address, so that the kernel gives up
 * each attempt to connect after some seconds, or, as is set here, much sooner. */
/* ctest: quick timeout=60 */
#include <fcntl.h>
#include <unistd.h>

#include "net/watches.h"
#include "support/netns.h"

static const struct tt_boot_address here = {.kind = TT_BOOT_IP4, .ip = {10, 77, 0, 1}};
static const struct tt_boot_address nobody = {.kind = TT_BOOT_IP4, .ip = {10, 77, 0, 9}};

/* Into a network where nobody else has an address. */
static int enter(struct t_rank *t)
{
    static const char *const ip4[] = {"10.77.0.1/24", NULL}, *const ip6[] = {NULL, NULL};

    t_netns_enter(t, ip4, ip6, 0);
    return t->rank == 0;
}

/* How long the kernel waits for each of three answers to "who has this address?" */
static void ask_every(const char *ms)
{
    const int fd = open("/proc/sys/net/ipv4/neigh/host0/retrans_time_ms", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, ms, strlen(ms)) < 0)
        t_skip("the kernel's patience cannot be set here: %s", strerror(errno));
    close(fd);
}

/* Attempts that fail one after the other are one silence. */
static void be_alone(struct t_rank *t)
{
    const uint64_t lost_ns = 1000 * MS, end_ns = 20000 * MS * t_scale();
    struct tt_boot_endpoint where;
    struct told told = {0};
    struct tt_watch *watch;
    uint64_t start;

    if (enter(t)) {
        ask_every("20");
        watch = open_watch_at(here, lost_ns, 0, key, &told, &where);
        tt_boot_address_resolve(&nobody, 4321, &where, 1);
        tt_watch_find(watch, 1, &where);
        start = tt_now_ns();
        tt_watch_start(watch, 1);
        while (!told.n_lost && tt_now_ns() - start < end_ns) {
            tt_watch_poll(watch);
            t_sleep_us(1000);
        }
        T_CHECK(told.n_lost == 1 && told.last == 1, "nobody was lost, %d gone", told.n_gone);
        T_CHECK(tt_now_ns() - start >= lost_ns, "lost too soon: %s", told.why);
        tt_watch_close(watch);
    }
    t_meet(t);
}

/* Who is heard is not lost, however long a connection there takes. */
static void be_heard(struct t_rank *t)
{
    const uint64_t lost_ns = 1500 * MS; /* connections are probed every second */
    struct tt_boot_endpoint where;
    struct told told[2] = {{0}};
    struct tt_watch *watch[2];

    if (enter(t)) {
        ask_every("5000");
        for (int i = 0; i < 2; i++)
            watch[i] = open_watch_at(here, lost_ns, i, key, &told[i], &where);
        tt_watch_where(watch[0], &where);
        tt_watch_find(watch[1], 0, &where);
        tt_boot_address_resolve(&nobody, 4321, &where, 1);
        tt_watch_find(watch[0], 1, &where);
        for (int i = 0; i < 2; i++)
            tt_watch_start(watch[i], !i);
        T_CHECK(both_ready(watch[0], 1, watch[1], 0), "no connection");
        poll_for(watch[0], watch[1], 2200);
        T_CHECK(told[0].n_lost + told[1].n_lost == 0, "lost: %s%s", told[0].why, told[1].why);
        for (int i = 0; i < 2; i++)
            tt_watch_close(watch[i]);
    }
    t_meet(t);
}

static void test_alone(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = be_alone};

    (void)state;
    t_run(&job);
}

static void test_heard(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = be_heard};

    (void)state;
    t_run(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_heard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
