/* Two ranks as on two hosts (network namespaces joined by a virtual cable): which interface is chosen,
 * who listens where, and what a cable that is pulled looks like. */
/* ctest: timeout=180 processors=1 no-tsan */
#include <unistd.h>

#include "base/clock.h"
#include "net/net_parts.h"
#include "support/netns.h"
#include "support/nets.h"

#define MIB     ((size_t)1 << 20)
#define BYTES   (8 * MIB)
#define FLAG_AT (BYTES - 64)
#define TIMEOUT 20000
#define WAIT_S  20

static const char *const four[] = {"10.77.0.1/24", "10.77.0.2/24"};
static const char *const six[] = {"fd77::1/64", "fd77::2/64"};
static const char *const none[] = {NULL, NULL};

static void enter(struct t_rank *t, const char *const ip4[2], const char *const ip6[2], int more)
{
    if (*tt_net_missing())
        t_skip("%s", tt_net_missing());
    t_netns_enter(t, ip4, ip6, more);
}

/* Data and a signal each way, of growing size. */
static void exchange(struct t_rank *t, struct t_net_world *w)
{
    static const size_t bytes[] = {8, 4096, 100000, MIB, 6 * MIB};
    const int peer = 1 - t->rank;

    for (size_t i = 0; i < T_LEN(bytes); i++) {
        unsigned char *src = malloc(bytes[i]);

        t_net_fill(src, bytes[i], i + (unsigned)t->rank);
        T_OK(tt_net_put(w->net, peer, src, bytes[i], w->region, 0));
        T_OK(tt_net_signal(w->net, peer, w->region, FLAG_AT, i + 1));
        t_net_wait(w->net, w->mine + FLAG_AT, i + 1, WAIT_S);
        T_CHECK(t_net_find_wrong(w->mine, bytes[i], i + (unsigned)peer) == bytes[i],
                "%zu bytes came wrong", bytes[i]);
        /* The other has read its own before it is written again. */
        T_OK(tt_net_signal(w->net, peer, w->region, FLAG_AT + 8, i + 1));
        t_net_wait(w->net, w->mine + FLAG_AT + 8, i + 1, WAIT_S);
        while (tt_net_sent(w->net, peer) < tt_net_posted(w->net, peer))
            T_OK(tt_net_progress(w->net));
        free(src);
    }
}

static void run(void (*body)(struct t_rank *))
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = body};

    t_run(&job);
}

/* ---- which interface ---- */

static void one_cable(struct t_rank *t)
{
    enter(t, four, none, 0);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    T_CONTAINS(tt_net_details(w.net), "devices host0, address 10.77.0.");
    exchange(t, &w);
    T_CHECK(t_netns_count_listeners() >= 2, "who listens?"); /* the watch's and UCX's */
    t_net_end(&w);
}

static void only_ip6(struct t_rank *t)
{
    enter(t, none, six, 0);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    T_CONTAINS(tt_net_details(w.net), "devices host0, address fd77::");
    exchange(t, &w);
    T_CHECK(t_netns_count_listeners() >= 2, "who listens?");
    t_net_end(&w);
}

static void named_device(struct t_rank *t)
{
    struct tt_net *net;

    enter(t, four, none, T_NETNS_SECOND);
    setenv("TUTTI_NET_DEVICES", "host1", 1);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    T_CONTAINS(tt_net_details(w.net), "devices host1, address 10.78.0.");
    exchange(t, &w);
    T_CHECK(t_netns_count_listeners() >= 2, "who listens?");
    t_net_end(&w);
    if (t->rank == 1)
        setenv("TUTTI_NET_DEVICES", "host7", 1);
    T_IS(TUTTI_E_ARG, t_net_try(t, NULL, TIMEOUT, &net));
    T_CONTAINS(tutti_last_error(), "there is no device \"host7\" here; there are ");
    T_CONTAINS(tutti_last_error(), "host1");
    if (t->rank == 0)
        T_CONTAINS(tutti_last_error(), "rank 1 on ");
}

static void public_address(struct t_rank *t)
{
    static const char *const public[] = {"8.8.8.1/24", "8.8.8.2/24"};
    struct tt_net *net;

    enter(t, public, none, 0);
    T_IS(TUTTI_E_ARG, t_net_try(t, NULL, TIMEOUT, &net));
    T_CONTAINS(tutti_last_error(), "public address 8.8.8.");
    T_CONTAINS(tutti_last_error(), "TUTTI_NET_ALLOW_PUBLIC=1");
    T_CHECK(t_netns_count_listeners() == 0, "it listens all the same");
    setenv("TUTTI_NET_ALLOW_PUBLIC", "1", 1);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    exchange(t, &w);
    t_net_end(&w);
}

/* An address with a label is one of its interface, by whose name UCX knows it. UCX takes another one there, and must
 * have one. */
static void labelled(struct t_rank *t)
{
    static const char *const names[] = {"", "host0"};
    static const char *const without[] = {"10.76.0.1/24", "10.76.0.2/24"};
    struct tt_net *net;

    enter(t, none, none, 0);
    t_netns_add("host0", four[t->rank], "host0:1");
    t_meet(t);
    for (size_t i = 0; i < T_LEN(names); i++) {
        setenv("TUTTI_NET_DEVICES", names[i], 1);
        T_IS(TUTTI_E_UNSUPPORTED, t_net_try(t, NULL, TIMEOUT, &net));
        T_CONTAINS(tutti_last_error(), "of host0 has a label");
    }
    t_netns_add("host0", without[t->rank], NULL);
    t_meet(t);
    for (size_t i = 0; i < T_LEN(names); i++) {
        setenv("TUTTI_NET_DEVICES", names[i], 1);
        struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

        T_CONTAINS(tt_net_details(w.net), "devices host0, address 10.77.0.");
        exchange(t, &w);
        t_net_end(&w);
    }
    setenv("TUTTI_NET_DEVICES", "host0:1", 1);
    T_IS(TUTTI_E_ARG, t_net_try(t, NULL, TIMEOUT, &net));
    T_CONTAINS(tutti_last_error(), "there is no device \"host0:1\" here");
}

/* UCX could take it, whatever it is called. */
static void public_with_label(struct t_rank *t)
{
    struct tt_net *net;

    enter(t, four, none, 0);
    t_netns_add("host0", t->rank ? "8.8.8.2/24" : "8.8.8.1/24", "host0:1");
    t_meet(t);
    T_IS(TUTTI_E_ARG, t_net_try(t, NULL, TIMEOUT, &net));
    T_CONTAINS(tutti_last_error(), "public address 8.8.8.");
    T_CONTAINS(tutti_last_error(), "(host0)");
    T_CHECK(t_netns_count_listeners() == 0, "it listens all the same");
}

/* No address in common and no way: both are told. */
static void no_way(struct t_rank *t)
{
    struct tt_net *net;

    enter(t, none, none, 0);
    T_IS(TUTTI_E_UNSUPPORTED, t_net_try(t, NULL, TIMEOUT, &net));
    T_CONTAINS(tutti_last_error(), "TUTTI_NET_DEVICES");
}

static void test_interfaces(void **state)
{
    (void)state;
    run(one_cable);
    run(only_ip6);
    run(named_device);
    run(public_address);
    run(labelled);
    run(public_with_label);
    run(no_way);
}

/* ---- the cable is pulled ---- */

static void pull(struct t_rank *t, int is_sending)
{
    enter(t, four, none, 0);
    setenv("TUTTI_NET_LOST", "3s", 1);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    tutti_result result = TUTTI_OK;
    uint64_t start;
    double seconds;

    exchange(t, &w);
    t_meet(t);
    start = tt_now_ns();
    if (t->rank == 0)
        t_netns_link("host0", 0);
    while (result == TUTTI_OK && tt_now_ns() - start < UINT64_C(15000000000)) {
        if (is_sending && t->rank == 0 && tt_net_posted(w.net, 1) - tt_net_sent(w.net, 1) < 100)
            result = tt_net_put(w.net, 1, w.mine, MIB, w.region, 0);
        if (result == TUTTI_OK && is_sending)
            result = tt_net_progress(w.net);
        else if (result == TUTTI_OK) {
            tt_net_sleep(w.net, tt_now_ns() + UINT64_C(1000000000));
            result = tt_net_progress(w.net);
        }
    }
    seconds = (double)(tt_now_ns() - start) / 1e9;
    T_CHECK(result == TUTTI_E_PEER, "rank %d after %.1f s: %s", t->rank, seconds,
            tutti_result_name(result));
    T_CONTAINS(tutti_last_error(), t->rank ? "lost rank 0 on " : "lost rank 1 on ");
    T_CHECK(seconds < 5.0 * t_scale(), "rank %d knew after %.1f s only", t->rank, seconds);
    printf("rank %d knew after %.2f s: %s\n", t->rank, seconds, tutti_last_error());
    t_meet(t);
    start = tt_now_ns();
    t_net_end(&w);
    T_CHECK(tt_now_ns() - start < UINT64_C(1000000000) * t_scale(), "the end took %.1f s",
            (double)(tt_now_ns() - start) / 1e9);
}

static void pull_idle(struct t_rank *t)
{
    pull(t, 0);
}

static void pull_mid_put(struct t_rank *t)
{
    pull(t, 1);
}

/* A cable that is back before the time is up has only been slow. */
static void blink(struct t_rank *t)
{
    enter(t, four, none, 0);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);
    uint64_t start;

    exchange(t, &w);
    t_meet(t);
    start = tt_now_ns();
    while (tt_now_ns() - start < UINT64_C(3000000000)) {
        static int step;
        const uint64_t at = (tt_now_ns() - start) / 500000000;

        if (t->rank == 0 && step < 1 && at == 1) {
            t_netns_link("host0", 0);
            step = 1;
        } else if (t->rank == 0 && step == 1 && at == 3) {
            t_netns_link("host0", 1);
            step = 2;
        }
        T_OK(tt_net_progress(w.net));
    }
    T_OK(tt_net_signal(w.net, 1 - t->rank, w.region, FLAG_AT + 16, 1));
    t_net_wait(w.net, w.mine + FLAG_AT + 16, 1, WAIT_S);
    t_net_end(&w);
}

/* The first word to a rank waits for a cable that is put back, too. */
static void out_at_first(struct t_rank *t)
{
    enter(t, four, none, 0);
    struct t_net_world w = t_net_begin(t, BYTES, TIMEOUT);

    if (t->rank == 0) {
        t_netns_link("host0", 0);
        const pid_t pid = fork();

        T_SYS(pid);
        if (pid == 0) {
            usleep(700000);
            t_netns_link("host0", 1);
            _exit(0);
        }
        T_OK(tt_net_signal(w.net, 1, w.region, FLAG_AT, 1));
    }
    t_net_wait(w.net, w.mine + FLAG_AT, 1, WAIT_S);
    if (t->rank == 1)
        T_OK(tt_net_signal(w.net, 0, w.region, FLAG_AT, 1));
    t_net_end(&w);
}

static void test_cables(void **state)
{
    (void)state;
    run(pull_idle);
    run(pull_mid_put);
    run(blink);
    run(out_at_first);
}

/* ---- a link that loses everything for a while ---- */

/* Only the watch has connections: nothing but its notice holds up who leaves. */
static struct tt_net *meet_watched(struct t_rank *t)
{
    struct tt_net *net = t_net_new(t, NULL, TIMEOUT);
    const uint64_t end = tt_now_ns() + WAIT_S * t_scale() * UINT64_C(1000000000);

    tt_net_watch(net, 1 - t->rank);
    while (!tt_watch_is_ready(net->watch, 1 - t->rank) && tt_now_ns() < end)
        T_OK(tt_net_progress(net));
    T_CHECK(tt_watch_is_ready(net->watch, 1 - t->rank), "no connection to watch");
    t_meet(t);
    return net;
}

/* Rank 1 leaves while nothing gets through and rank 0 tells it something: its notice comes when the link is
 * back, before a word of rank 0's can reset the connection that it is on. */
static void leave_while_told(struct t_rank *t)
{
    enum { ROUNDS = 8 };
    const uint64_t cut_ns = 250000000, limit_ns = UINT64_C(10000000000);

    enter(t, four, none, 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct tt_net *net = meet_watched(t);
        tutti_result result = TUTTI_OK;
        uint64_t start;

        if (t->rank == 0)
            t_netns_cut(t, 1);
        t_meet(t);
        start = tt_now_ns();
        while (t->rank == 0 && result == TUTTI_OK && tt_now_ns() - start < limit_ns * t_scale()) {
            tt_net_tell_waits(net);
            usleep(5000);
            if (tt_now_ns() - start > cut_ns)
                t_netns_cut(t, 0);
            result = tt_net_progress(net);
            if (result == TUTTI_OK)
                result = tt_net_check_peer(net, 1);
        }
        T_CHECK(t->rank == 1 || result == TUTTI_E_PEER, "%s", tutti_result_name(result));
        if (t->rank == 0)
            T_CONTAINS(tutti_last_error(), "has left");
        tt_net_destroy(net);
    }
}

static void test_cut_link(void **state)
{
    (void)state;
    t_netns_link_is(50, 0, 0);
    run(leave_while_told);
    t_netns_link_is(0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interfaces),
        cmocka_unit_test(test_cables),
        cmocka_unit_test(test_cut_link),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
