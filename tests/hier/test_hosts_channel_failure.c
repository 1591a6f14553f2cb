/* ctest: timeout=120 */
/* Channels that cannot go on: arguments, peers that are late, die, leave or abort, sets that are left behind;
 * and what proxies cost when there is nothing to do. */
#include <tutti/device.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "support/cgroup.h"
#include "support/hosts.h"
#include "support/job.h"
#include "support/proc.h"

enum { BYTES = 1 << 16 };

struct ends {
    tutti_channel_set *set;
    unsigned char *memory;
    tutti_channel ch;
};

static void set_up(struct ends *e, struct t_rank *t, int peer)
{
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, BYTES, &memory));
    e->memory = memory;
    T_OK(tutti_channel_set_create(t->comm, memory, BYTES, NULL, &e->set));
    if (peer != t->rank)
        T_OK(tutti_channel_get(e->set, peer, 0, TUTTI_CHANNEL_HOST, &e->ch));
}

static void run_job(const char *hosts, struct t_job job)
{
    t_hosts(hosts);
    t_run(&job);
    t_hosts(NULL);
}

static void run(const char *hosts, int n, void (*body)(struct t_rank *t))
{
    run_job(hosts, (struct t_job){.n_ranks = n, .body = body});
}

/* ---- arguments ---- */

static void arguments_body(struct t_rank *t)
{
    tutti_channel_info info = {.size = 1};
    tutti_channel_place place = TUTTI_CHANNEL_HOST;
    uint32_t words[4] = {0};
    struct ends e;
    tutti_channel c;

    set_up(&e, t, 1 - t->rank);
    T_IS(TUTTI_E_ARG, tutti_channel_put(&e.ch, BYTES - 8, 0, 9, 0, 1));
    T_CONTAINS(tutti_last_error(), "put of 9 bytes at offset 65528");
    T_IS(TUTTI_E_ARG, tutti_channel_put(&e.ch, 0, BYTES - 8, 9, 0, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_put(&e.ch, UINT64_MAX, 0, 2, 0, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_put_with_signal(&e.ch, 0, 0, UINT64_MAX, 0, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_atomic_add(&e.ch, 4, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_atomic_add(&e.ch, BYTES, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_put_packets(&e.ch, 0, words, 16, 0, 0, 1));
    T_CONTAINS(tutti_last_error(), "the flag is not 0");
    T_IS(TUTTI_E_ARG, tutti_channel_put_packets(&e.ch, 2, words, 4, 1, 0, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_put_packets(&e.ch, 4096, words, 4, 1, 0, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_get_packets(&e.ch, 0, words, 7, 1, 0, 1));
    T_IS(TUTTI_E_ARG, tutti_channel_get(e.set, t->rank, 0, place, &c));
    T_IS(TUTTI_E_ARG, tutti_channel_get(e.set, 2, 0, place, &c));
    T_IS(TUTTI_E_ARG, tutti_channel_get(e.set, 1 - t->rank, 1, place, &c));
    T_IS(TUTTI_E_ARG, tutti_channel_get(NULL, 0, 0, place, &c));
    T_IS(TUTTI_E_UNSUPPORTED, tutti_channel_get(e.set, 1 - t->rank, 0, TUTTI_CHANNEL_KERNEL, &c));
    T_IS(TUTTI_E_ARG, tutti_channel_set_query(e.set, &info));
    T_IS(TUTTI_E_ARG, tutti_channel_set_status(NULL));
    T_OK(tutti_channel_set_status(e.set)); /* none of these is the set's failure */
    T_OK(tutti_channel_put_with_signal(&e.ch, 0, 0, 0, 0, 1));
    T_OK(tutti_channel_wait(&e.ch, 1));
    T_CHECK(tutti_channel_n_signals(&e.ch) == 1, "more than one signal");
    T_OK(tutti_channel_set_destroy(e.set));
    T_OK(tutti_mem_free(t->comm, e.memory));
}

static void try_config(struct t_rank *t, tutti_result want, const tutti_channel_config *config,
                       size_t bytes, const char *text)
{
    static _Alignas(64) unsigned char memory[BYTES];
    tutti_channel_set *set = NULL;

    (void)t;
    T_IS(want,
         tutti_channel_set_create(t->comm, bytes == 1 ? memory + 1 : memory, bytes, config, &set));
    T_CHECK(set == NULL, "a set in spite of the failure");
    T_CONTAINS(tutti_last_error(), text);
}

static void configs_body(struct t_rank *t)
{
    const uint32_t size = sizeof(tutti_channel_config);
    const int me = t->rank == 0;

    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){.size = 4}, BYTES, "size");
    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){size, 2, 0, 0, 0, 0}, BYTES, "flags");
    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){size, 0, 257, 0, 0, 0}, BYTES, "n_channels");
    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){size, 0, 0, 17, 0, 0}, BYTES, "n_proxies");
    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){size, 0, 0, 0, 3, 0}, BYTES, "n_slots");
    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){size, 0, 0, 0, 0, 9}, BYTES, "packet_bytes");
    try_config(t, TUTTI_E_ARG, NULL, 1, "aligned");
    try_config(t, TUTTI_E_ARG, NULL, 0, "some bytes");
    /* One rank alone is wrong, or has other wishes: all say so. */
    try_config(t, TUTTI_E_ARG, &(tutti_channel_config){size, me ? 2u : 0, 0, 0, 0, 0}, BYTES,
               me ? "flags" : "rank 0");
    try_config(t, TUTTI_E_MISMATCH, NULL, me ? BYTES : BYTES / 2, "on rank 1");
    try_config(t, TUTTI_E_MISMATCH, &(tutti_channel_config){size, 0, me ? 1 : 2, 0, 0, 0}, BYTES,
               "on rank 1");
}

/* What a kernel that has gone wrong may leave in a queue. */
static void broken_trigger_body(struct t_rank *t)
{
    static const uint32_t ids[] = {2, UINT32_C(1) << 31, UINT32_MAX};
    struct ends e;
    uint64_t n;

    for (size_t i = 0; i < T_LEN(ids); i++) {
        set_up(&e, t, 1 - t->rank);
        t_meet(t);
        if (t->rank == 0) {
            e.ch.id = ids[i];
            T_OK(tutti_dev_push(&e.ch, TUTTI_CHANNEL_SIGNAL, 0, 0, 0, &n));
            while (tutti_channel_set_status(e.set) == TUTTI_OK)
                t_sleep_us(1000);
            T_IS(TUTTI_E_ARG, tutti_channel_set_status(e.set));
            T_CONTAINS(tutti_last_error(), "a trigger that means nothing: operation 2 (signal)");
        }
        t_meet(t);
        (void)tutti_channel_set_destroy(e.set);
        T_OK(tutti_mem_free(t->comm, e.memory));
    }
    T_OK(tutti_barrier(t->comm, NULL));
}

static void broken_report_body(struct t_rank *t)
{
    struct ends e;

    set_up(&e, t, 1 - t->rank);
    t_meet(t);
    if (t->rank == 0) {
        e.ch.report->peer = -1;
        e.ch.report->op = UINT32_MAX;
        e.ch.report->result = UINT32_MAX - 1;
        T_IS(TUTTI_E_INTERNAL, tutti_channel_set_status(e.set));
        T_CONTAINS(tutti_last_error(), "a kernel's unknown with rank -1");
        T_IS(TUTTI_E_INTERNAL, tutti_channel_set_status(e.set));
    }
    t_meet(t);
    (void)tutti_channel_set_destroy(e.set);
}

static void a_report_of_no_known_failure_ends_the_set(void **state)
{
    (void)state;
    run("01", 2, broken_report_body);
}

static void a_trigger_for_no_rank_ends_the_set(void **state)
{
    (void)state;
    run("01", 2, broken_trigger_body);
}

static void bad_arguments_change_nothing(void **state)
{
    (void)state;
    run("01", 2, arguments_body);
    run(NULL, 2, arguments_body);
    run("01", 2, configs_body);
    run(NULL, 2, configs_body);
}

static char cgroup[256];

/* Their words take 2 GiB, where 256 MiB are allowed. The kernel would kill, not refuse. */
static void too_much_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .n_channels = 256, .n_proxies = 1, .packet_bytes = 1 << 20};
    struct ends e;

    if (t_cgroup_enter(cgroup) != 0)
        t_skip("cannot enter a memory cgroup: %s", strerror(errno));
    t_meet(t);
    try_config(t, TUTTI_E_MEMORY, &config, BYTES, "MiB of memory are wanted");
    set_up(&e, t, 1 - t->rank);
    T_OK(tutti_channel_set_destroy(e.set));
}

static void more_than_a_cgroup_allows_is_e_memory(void **state)
{
    const struct t_job job = {.n_ranks = 2, .body = too_much_body};
    char text[4096];
    int has_failed;

    (void)state;
    if (t_cgroup_create((size_t)256 << 20, cgroup) != 0)
        t_skip("memory cgroups are not permitted here");
    t_hosts("01");
    has_failed = t_run_quietly(&job, text, sizeof(text));
    t_hosts(NULL);
    t_cgroup_remove(cgroup);
    if (has_failed)
        T_FAIL("%s", text);
    if (strncmp(text, "skipped: ", 9) == 0)
        t_skip("%s", text + 9);
}

/* ---- late ---- */

static void late_body(struct t_rank *t)
{
    struct ends e;
    uint64_t from, ms;

    set_up(&e, t, 1 - t->rank);
    t_meet(t);
    if (t->rank == 0) {
        from = t_now_ns();
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_wait(&e.ch, 1));
        ms = (t_now_ns() - from) / 1000000;
        T_CONTAINS(tutti_last_error(), "wait: rank 1 did not do its part");
        T_CHECK(ms >= 1000 && ms < 4000 * t_scale(), "after %d ms", (int)ms);
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_wait(&e.ch, 1)); /* for good */
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(e.set));
    }
    t_meet(t);
    (void)tutti_channel_set_destroy(e.set);
    T_OK(tutti_barrier(t->comm, NULL)); /* the communicator is as good as ever */
}

static void who_does_not_signal_is_named_at_the_deadline(void **state)
{
    struct t_job job = {.n_ranks = 2, .body = late_body};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = 1000;
    run_job("01", job);
    run_job(NULL, job);
}

/* ---- death, leaving, abort ---- */

static tutti_result wait_for_last(struct t_rank *t, struct ends *e, uint64_t *ms)
{
    const uint64_t from = t_now_ns();
    tutti_result result = TUTTI_OK;

    for (uint64_t k = 1; result == TUTTI_OK; k++) {
        result = tutti_channel_put_with_signal(&e->ch, 0, 0, 1000, 0, 1);
        if (result == TUTTI_OK)
            result = tutti_channel_wait(&e->ch, k);
    }
    *ms = (t_now_ns() - from) / 1000000;
    (void)t;
    return result;
}

/* Rank 0 and the last one play; idle: nothing was ever sent. */
static void death_body(struct t_rank *t)
{
    const int is_idle = *(const int *)t->arg, last = t->n_ranks - 1;
    _Atomic uint64_t *died_ns = (_Atomic uint64_t *)(void *)t->shared;
    struct ends e;
    uint64_t ms;

    set_up(&e, t, t->rank == last ? 0 : last);
    t_meet(t);
    if (t->rank == last) {
        for (uint64_t k = 1; !is_idle && k < 200; k++) {
            T_OK(tutti_channel_put_with_signal(&e.ch, 0, 0, 1000, 0, 1));
            T_OK(tutti_channel_wait(&e.ch, k));
        }
        atomic_store(died_ns, t_now_ns());
        kill(getpid(), SIGKILL);
    }
    if (t->rank == 0) {
        if (is_idle)
            t_sleep_us(300000);
        T_IS(TUTTI_E_PEER, wait_for_last(t, &e, &ms));
        ms = (t_now_ns() - atomic_load(died_ns)) / 1000000;
        T_CHECK(ms < 2000 * t_scale(), "after %d ms", (int)ms);
        T_CONTAINS(tutti_last_error(), last == 1 ? "rank 1" : "rank 3");
    }
    (void)tutti_channel_set_destroy(e.set);
}

static void who_dies_is_named_at_once(void **state)
{
    int is_idle = 0;
    struct t_job job = {.n_ranks = 2, .body = death_body, .arg = &is_idle, .dies = 2};

    (void)state;
    for (; is_idle < 2; is_idle++) {
        job.n_ranks = 2;
        job.dies = 2;
        run_job("01", job);
        run_job(NULL, job);
        job.n_ranks = 4;
        job.dies = 8;
        run_job("0011", job);
    }
}

/* The communicator, with the set and memory in it, is destroyed by one while the other waits. */
static void leave_body(struct t_rank *t)
{
    struct ends e;

    set_up(&e, t, 1 - t->rank);
    t_meet(t);
    if (t->rank == 1) {
        T_OK(tutti_channel_put_with_signal(&e.ch, 0, 0, 1000, 0, 1));
        T_OK(tutti_channel_flush(&e.ch));
        tutti_comm_destroy(t->comm);
        return;
    }
    T_OK(tutti_channel_wait(&e.ch, 1)); /* what came before it left, counts */
    T_IS(TUTTI_E_PEER, tutti_channel_wait(&e.ch, 2));
    T_CONTAINS(tutti_last_error(), "rank 1 has");
    tutti_comm_destroy(t->comm);
}

static void who_leaves_is_named(void **state)
{
    const struct t_job job = {.n_ranks = 2, .body = leave_body, .keep_comm = 1};

    (void)state;
    run_job("01", job);
    run_job(NULL, job);
}

/* And while the other destroys the set: not only at the deadline. Most of the time it has left by then. */
static void leave_early_body(struct t_rank *t)
{
    const int is_flushed = *(const int *)t->arg;
    struct ends e;

    set_up(&e, t, 1 - t->rank);
    T_OK(tutti_channel_put_with_signal(&e.ch, 0, 0, 1000, 0, 1));
    T_OK(tutti_channel_wait(&e.ch, 1));
    if (is_flushed)
        T_OK(tutti_channel_flush(&e.ch));
    t_meet(t);
    if (t->rank == 0) {
        t_sleep_us(500000);
        T_IS(TUTTI_E_PEER, tutti_channel_set_destroy(e.set));
        T_CONTAINS(tutti_last_error(), "rank 1");
        T_CHECK(!is_flushed || strstr(tutti_last_error(), "delivered") == NULL, "%s",
                tutti_last_error());
    }
    tutti_comm_destroy(t->comm);
}

static void who_leaves_before_a_set_is_destroyed_is_named(void **state)
{
    int is_flushed = 0;
    const struct t_job job = {
        .n_ranks = 2, .body = leave_early_body, .arg = &is_flushed, .keep_comm = 1};

    (void)state;
    for (; is_flushed < 2; is_flushed++)
        run_job("01", job);
}

static void *abort_later(void *context)
{
    t_sleep_us(100000);
    tutti_comm_abort(context);
    return NULL;
}

static void abort_body(struct t_rank *t)
{
    const int peer = t->n_ranks - 1 - t->rank;
    pthread_t thread;
    struct ends e;
    uint64_t from;

    set_up(&e, t, peer);
    t_meet(t);
    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_later, t->comm) == 0, "no thread");
    from = t_now_ns();
    T_IS(TUTTI_E_ABORTED, tutti_channel_wait(&e.ch, 1));
    T_CHECK((t_now_ns() - from) / 1000000 < 1000 * t_scale(), "late");
    if (t->rank == 0)
        pthread_join(thread, NULL);
    T_IS(TUTTI_E_ABORTED, tutti_channel_set_destroy(e.set));
}

static void an_abort_ends_waits_on_all_ranks(void **state)
{
    (void)state;
    run("01", 2, abort_body);
    run("0011", 4, abort_body);
    run(NULL, 2, abort_body);
}

/* ---- nothing is left, nothing is burnt ---- */

static void idle_body(struct t_rank *t)
{
    const tutti_channel_config config = {.size = sizeof(config), .n_proxies = 1};
    tutti_channel_set *set;
    double percent;
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, BYTES, &memory));
    T_OK(tutti_channel_set_create(t->comm, memory, BYTES, &config, &set));
    t_meet(t);
    percent = t_idle_percent();
    T_CHECK(percent < 2.0 * t_scale(), "an idle proxy takes %.2f %% of a core", percent);
    T_OK(tutti_channel_set_destroy(set));
    T_OK(tutti_mem_free(t->comm, memory));
}

static void idle_proxies_take_under_2_percent(void **state)
{
    (void)state;
    run("01", 2, idle_body);
}

static void cycles_body(struct t_rank *t)
{
    struct t_holdings before = {0, 0, 0};
    struct ends e;

    for (int i = 0; i < 12; i++) {
        if (i == 4)
            before = t_holdings_now();
        set_up(&e, t, 1 - t->rank);
        T_OK(tutti_channel_put_with_signal(&e.ch, 0, 0, 64, 0, 1));
        T_OK(tutti_channel_wait(&e.ch, 1));
        T_OK(tutti_channel_set_destroy(e.set));
        T_OK(tutti_mem_free(t->comm, e.memory));
    }
    t_check_holdings(&before, 12, "after eight sets of channels");
}

static void sets_leave_nothing(void **state)
{
    (void)state;
    run("01", 2, cycles_body);
    run(NULL, 2, cycles_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments_change_nothing),
        cmocka_unit_test(more_than_a_cgroup_allows_is_e_memory),
        cmocka_unit_test(a_trigger_for_no_rank_ends_the_set),
        cmocka_unit_test(a_report_of_no_known_failure_ends_the_set),
        cmocka_unit_test(who_does_not_signal_is_named_at_the_deadline),
        cmocka_unit_test(who_dies_is_named_at_once),
        cmocka_unit_test(who_leaves_is_named),
        cmocka_unit_test(who_leaves_before_a_set_is_destroyed_is_named),
        cmocka_unit_test(an_abort_ends_waits_on_all_ranks),
        cmocka_unit_test(idle_proxies_take_under_2_percent),
        cmocka_unit_test(sets_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
