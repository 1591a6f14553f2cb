/* ctest: serial no-tsan timeout=120 */
/* ctest: serial as=4_proxies args=proxies=4 no-tsan timeout=120 */
/* What must end between GPUs of several hosts: a rank that never calls, one that is killed, an abort, calls
 * that do not match. The rank is named on all hosts, kernels that wait end, other communicators go on. */
#include <signal.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/hosts.h"

enum { SCRATCH = 1 << 20, COUNT = 1000, LONG = 40000, BYTES = LONG * 4 };
#define TIMEOUT_MS (600u * t_scale())

static tutti_result sum(tutti_comm *comm, const struct t_device *d, void *p, size_t count)
{
    return tutti_all_reduce(comm, p, p, count, TUTTI_DTYPE_F32, TUTTI_OP_SUM, d->stream);
}

static void check_good(struct t_rank *t, tutti_comm *comm, const struct t_device *d, int n)
{
    float *p = t_device_alloc(sizeof(*p)), x = 1;

    (void)t;
    t_device_push(d, p, &x, sizeof(x));
    T_OK(sum(comm, d, p, 1));
    t_device_pull(d, &x, p, sizeof(x));
    t_device_sync(d);
    T_CHECK(x == (float)n, "the sum is %g", (double)x);
    t_device_free(p);
}

/* A call that takes several launches may see its own failure. */
static void may_fail(tutti_result got, tutti_result want)
{
    T_CHECK(got == TUTTI_OK || got == want, "%s: %s", tutti_result_name(got), tutti_last_error());
}

/* The failure shows, here or from another host, stays, and names `peer` (-1: nobody in particular). */
static void check_failed(tutti_comm *comm, const struct t_device *d, void *p, tutti_result want,
                         int peer)
{
    const uint64_t end = t_now_ns() + UINT64_C(5000000000) * t_scale();
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    do
        T_OK(tutti_comm_status(comm, &state));
    while (state.result == TUTTI_OK && t_now_ns() < end);
    T_CHECK(state.result == want && (peer < 0 || state.peer == peer), "%s, rank %d: %s",
            tutti_result_name(state.result), state.peer, state.text);
    T_IS(want, sum(comm, d, p, COUNT));
    T_CHECK(strlen(tutti_last_error()) > 20, "\"%s\" says little", tutti_last_error());
}

static void run_timed(void (*body)(struct t_rank *t), const char *hosts, uint64_t dies,
                      unsigned held_up_ms)
{
    struct t_job job;

    t_hosts(hosts);
    job = t_cuda_job((int)strlen(hosts), body);
    job.config.scratch_bytes = SCRATCH;
    job.dies = dies;
    job.held_up_ms = held_up_ms;
    if (t_is_wanted(job.n_ranks))
        t_run(&job);
    t_hosts(NULL);
}

static void run(void (*body)(struct t_rank *t), const char *hosts, uint64_t dies)
{
    run_timed(body, hosts, dies, 0);
}

/* --- a rank that never calls --- */

static void missing(struct t_rank *t)
{
    static const size_t counts[] = {COUNT, LONG};
    const int last = t->n_ranks - 1;
    const unsigned timeout_ms = TIMEOUT_MS << t->job->attempt;
    struct t_device device;
    void *p;

    t_device_open(&device, t);
    p = t_device_alloc(BYTES);
    for (size_t i = 0; i < T_LEN(counts); i++) {
        tutti_comm_config config = t_cuda_config(t);
        const uint64_t begin = t_now_ns();
        tutti_comm *comm;

        config.timeout_ms = timeout_ms;
        config.scratch_bytes = SCRATCH;
        T_OK(t_comm_create(t, 300 + i, &config, &comm));
        t_meet(t);
        if (t->rank != last) {
            may_fail(sum(comm, &device, p, counts[i]), TUTTI_E_TIMEOUT);
            t_device_sync(&device);
            check_failed(comm, &device, p, TUTTI_E_TIMEOUT, last);
            T_CHECK(t_now_ns() - begin > UINT64_C(300000) * timeout_ms, "it gave up early");
        }
        t_meet(t);
        tutti_comm_destroy(comm);
        check_good(t, t->comm, &device, t->n_ranks);
    }
    t_device_free(p);
    t_meet(t);
    t_device_close(&device);
}

static void a_rank_that_never_calls_is_named(void **state)
{
    (void)state;
    run_timed(missing, "01", 0, TIMEOUT_MS / 6);
    run_timed(missing, "011", 0,
              TIMEOUT_MS / 6); /* who waits for it on its own host is not to blame */
    run_timed(missing, "0110", 0, TIMEOUT_MS / 6);
}

/* --- abort --- */

enum { ABORTS = 3, SOON_MS = 100, LATE_MS = 2000 };

/* The last rank aborts, without a call of its own; the others wait, and are free so many ms later. */
static uint64_t abort_one(struct t_rank *t, const struct t_device *device, void *p, uint64_t key,
                          size_t count)
{
    _Atomic uint64_t *at_ns = (_Atomic uint64_t *)(void *)t->shared;
    tutti_comm_config config = t_cuda_config(t);
    uint64_t ms = 0;
    tutti_comm *comm;

    config.scratch_bytes = SCRATCH;
    T_OK(t_comm_create(t, key, &config, &comm));
    t_meet(t);
    if (t->rank == t->n_ranks - 1) {
        t_sleep_us(100000);
        atomic_store(at_ns, t_now_ns());
        tutti_comm_abort(comm);
    } else {
        may_fail(sum(comm, device, p, count), TUTTI_E_ABORTED);
        t_device_sync(device);
        ms = (t_now_ns() - atomic_load(at_ns)) / 1000000;
        T_CHECK(ms < LATE_MS * t_scale(), "the abort took %llu ms", (unsigned long long)ms);
    }
    check_failed(comm, device, p, TUTTI_E_ABORTED, -1);
    t_meet(t);
    tutti_comm_destroy(comm);
    return ms;
}

/* None may take long; that it can be as quick as is promised is shown by the quickest, since a machine that is held
 * up makes any of them late. */
static void aborted(struct t_rank *t)
{
    struct t_device device;
    uint64_t least = LATE_MS * t_scale();
    void *p;

    t_device_open(&device, t);
    p = t_device_alloc(BYTES);
    for (int i = 0; i < ABORTS; i++) {
        const uint64_t ms = abort_one(t, &device, p, 400 + (uint64_t)i, i ? COUNT : LONG);

        least = ms < least ? ms : least;
    }
    T_CHECK(least < SOON_MS * t_scale(), "the quickest abort took %llu ms",
            (unsigned long long)least);
    check_good(t, t->comm, &device, t->n_ranks);
    t_device_free(p);
    t_meet(t);
    t_device_close(&device);
}

static void an_abort_ends_calls_on_all_hosts(void **state)
{
    (void)state;
    run_timed(aborted, "01", 0, SOON_MS / 4);
    run_timed(aborted, "011", 0, SOON_MS / 4);
    run_timed(aborted, "0110", 0, SOON_MS / 4);
}

/* --- death --- */

/* The last rank but one is killed; another communicator, of the others, works before and after. */
static void killed_in(struct t_rank *t, size_t count)
{
    const int dead = t->n_ranks - 2;
    tutti_comm_config config = t_cuda_config(t);
    struct t_device device;
    tutti_comm *comm, *rest;
    uint64_t begin;
    void *p;

    config.scratch_bytes = SCRATCH;
    config.timeout_ms = 20000;
    t_device_open(&device, t);
    p = t_device_alloc(BYTES);
    T_OK(t_comm_create(t, 2, &config, &comm));
    T_OK(tutti_comm_split(comm, t->rank == dead ? -1 : 0, 0, &rest));
    T_OK(sum(comm, &device, p, COUNT));
    t_device_sync(&device);
    if (t->rank != dead)
        check_good(t, rest, &device, t->n_ranks - 1);
    t_meet(t);
    begin = t_now_ns();
    if (t->rank == dead) {
        t_sleep_us(50000);
        kill(getpid(), SIGKILL);
    }
    may_fail(sum(comm, &device, p, count), TUTTI_E_PEER);
    t_device_sync(&device);
    check_failed(comm, &device, p, TUTTI_E_PEER, dead);
    T_CHECK(t_now_ns() - begin < LATE_MS * UINT64_C(1000000) * t_scale(), "noticed after %llu ms",
            (unsigned long long)(t_now_ns() - begin) / 1000000);
    check_good(t, rest, &device, t->n_ranks - 1);
    tutti_comm_destroy(comm);
    check_good(t, rest, &device, t->n_ranks - 1);
    tutti_comm_destroy(rest);
    t_device_free(p);
    t_device_close(&device);
}

static void killed(struct t_rank *t)
{
    killed_in(t, LONG);
}

static void killed_in_one_launch(struct t_rank *t)
{
    killed_in(t, COUNT);
}

static void a_rank_that_is_killed_is_named_on_all_hosts(void **state)
{
    (void)state;
    run_timed(killed, "010", 1 << 1, LATE_MS / 4);
    run_timed(killed, "0110", 1 << 2, LATE_MS / 4);
    run_timed(killed_in_one_launch, "0110", 1 << 2, LATE_MS / 4);
    run_timed(killed, "1011", 1 << 2, LATE_MS / 4); /* it has never talked to another host */
}

/* --- calls that do not match --- */

static void mismatched(struct t_rank *t)
{
    struct t_device device;
    unsigned char *p;

    t_device_open(&device, t);
    p = t_device_alloc(BYTES);
    for (int i = 0; i < 3; i++) {
        tutti_comm_config config = t_cuda_config(t);
        tutti_comm *comm;

        config.timeout_ms = 20000;
        config.scratch_bytes = SCRATCH;
        T_OK(t_comm_create(t, 500 + (uint64_t)i, &config, &comm));
        t_meet(t);
        if (i == 2 && t->rank == 0)
            T_OK(tutti_send(comm, p, 30000, TUTTI_DTYPE_U8, 1, device.stream));
        else if (i == 2)
            T_OK(tutti_recv(comm, p, 40000, TUTTI_DTYPE_U8, 0, device.stream));
        else if (t->rank == 0)
            T_OK(sum(comm, &device, p, COUNT));
        else if (i == 0)
            T_OK(tutti_broadcast(comm, p, COUNT, TUTTI_DTYPE_F32, 1, device.stream));
        else
            T_OK(sum(comm, &device, p, COUNT + 1));
        t_device_sync(&device);
        check_failed(comm, &device, p, TUTTI_E_MISMATCH, -1);
        t_meet(t);
        tutti_comm_destroy(comm);
    }
    t_device_free(p);
    t_device_close(&device);
}

static void calls_that_do_not_match_are_noticed(void **state)
{
    (void)state;
    run(mismatched, "01", 0);
}

/* --- several proxies --- */

/* Messages of ranks 0 and 1 that do not match are one proxy's; what rank 0 waits for from rank 2 is another's. */
static void one_of_several(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct t_device device;
    tutti_comm *comm;
    unsigned char *p;

    t_device_open(&device, t);
    p = t_device_alloc(BYTES);
    config.timeout_ms = 20000;
    config.scratch_bytes = SCRATCH;
    T_OK(t_comm_create(t, 600, &config, &comm));
    t_meet(t);
    T_OK(tutti_group_begin(comm));
    if (t->rank == 0) {
        T_OK(tutti_send(comm, p, 30000, TUTTI_DTYPE_U8, 1, device.stream));
        T_OK(tutti_recv(comm, p + 50000, 30000, TUTTI_DTYPE_U8, 2, device.stream));
    } else if (t->rank == 1) {
        T_OK(tutti_recv(comm, p, 40000, TUTTI_DTYPE_U8, 0, device.stream));
    }
    T_OK(tutti_group_end(comm));
    t_device_sync(&device);
    check_failed(comm, &device, p, TUTTI_E_MISMATCH, -1);
    T_OK(tutti_comm_status(comm, &state));
    T_CONTAINS(state.text, "30000");
    t_meet(t);
    tutti_comm_destroy(comm);
    t_device_free(p);
    t_device_close(&device);
}

static void what_one_proxy_sees_ends_all(void **state)
{
    (void)state;
    setenv("TUTTI_NET_PROXIES", "4", 1); /* from here on */
    run(one_of_several, "012", 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_that_never_calls_is_named),
        cmocka_unit_test(an_abort_ends_calls_on_all_hosts),
        cmocka_unit_test(a_rank_that_is_killed_is_named_on_all_hosts),
        cmocka_unit_test(calls_that_do_not_match_are_noticed),
        cmocka_unit_test(what_one_proxy_sees_ends_all),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
