/* ctest: no-tsan timeout=120 */
/* Channels of kernels that fail: who does not signal, copies that do not end, aborts, deaths, and numbers that lead out of
 * the memory. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "channel_scene.h"

static uint64_t run_waiting(struct scene *s, uint64_t value)
{
    const uint64_t from = t_now_ns();

    s->args.value = value;
    t_scene_launch(s, t_wait);
    return (t_now_ns() - from) / 1000000;
}

static void late_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;
    uint64_t ms;

    t_scene_open(&s, t, plan->by_port, 0);
    t_meet(t);
    if (t->rank == 0) {
        ms = run_waiting(&s, 5);
        T_CHECK(t_scene_result(&s) == TUTTI_E_TIMEOUT, "the wait gave %d", t_scene_result(&s));
        T_CHECK(ms > 900 && ms < 5000 * t_scale(), "after %d ms", (int)ms);
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(s.set));
        T_CONTAINS(tutti_last_error(), "wait with rank 1");
        T_CONTAINS(tutti_last_error(), "waited for 5");
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(s.set)); /* for good */
    }
    t_meet(t);
    if (t->rank == 0)
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_destroy(s.set));
    else
        (void)tutti_channel_set_destroy(s.set);
}

static void a_kernel_gives_up_at_the_deadline(void **state)
{
    struct plan plan = {0};
    struct t_job job = t_cuda_job(2, late_body);

    (void)state;
    job.arg = &plan;
    job.config.timeout_ms = 1000;
    t_run(&job);
    plan.by_port = 1;
    t_run(&job);
}

/* Copies of one rank that never end, out of its GPU or into it; nobody waits for what they carry. */
static void stuck_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    const int stuck = (int)plan->seeds;
    static struct scene s;

    t_scene_open(&s, t, 1, 0);
    if (t->rank == stuck)
        setenv("T_SIM_LATE_COPIES", "stuck", 1);
    t_meet(t);
    if (t->rank == 0) {
        s.args.value = 2;
        t_scene_launch(&s, t_spoil);
        t_scene_expect_good(&s, "a put");
    }
    for (int i = 0; i < 20000 && tutti_channel_set_status(s.set) == TUTTI_OK; i++)
        t_sleep_us(1000);
    T_CHECK(tutti_channel_set_status(s.set) != TUTTI_OK, "copies are stuck, and the set is good");
    if (t->rank == stuck) {
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(s.set));
        T_CONTAINS(tutti_last_error(), "the driver has not copied from or to GPU memory for 1000");
    }
    t_meet(t);
    (void)tutti_channel_set_destroy(s.set);
}

static void copies_that_do_not_end_are_named(void **state)
{
    struct plan plan = {0};
    struct t_job job = t_cuda_job(2, stuck_body);

    (void)state;
    job.arg = &plan;
    job.config.timeout_ms = 1000;
    for (plan.seeds = 0; plan.seeds < 2; plan.seeds++)
        t_run(&job);
}

static void *abort_later(void *context)
{
    t_sleep_us(100000);
    tutti_comm_abort(context);
    return NULL;
}

static void abort_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;
    pthread_t thread;
    uint64_t ms;

    t_scene_open(&s, t, plan->by_port, 0);
    t_meet(t);
    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_later, t->comm) == 0, "no thread");
    if (t->rank == 0 || plan->by_port) { /* ports tell the others */
        ms = run_waiting(&s, 5);
        T_CHECK(t_scene_result(&s) == TUTTI_E_ABORTED, "the wait gave %d", t_scene_result(&s));
        T_CHECK(ms < 2000 * t_scale(), "after %d ms", (int)ms);
        T_IS(TUTTI_E_ABORTED, tutti_channel_set_status(s.set));
    }
    if (t->rank == 0)
        pthread_join(thread, NULL);
    t_meet(t);
}

static void an_abort_ends_kernels(void **state)
{
    (void)state;
    t_channels_run(2, abort_body, &(const struct plan){0});
    t_channels_run(2, abort_body, &(const struct plan){.by_port = 1});
}

static void death_body(struct t_rank *t)
{
    static struct scene s;
    uint64_t ms;

    t_scene_open(&s, t, 1, 0);
    t_meet(t);
    if (t->rank == 1) {
        t_sleep_us(50000);
        kill(getpid(), SIGKILL);
    }
    ms = run_waiting(&s, 5);
    T_CHECK(t_scene_result(&s) < 0, "the wait gave %d", t_scene_result(&s));
    T_CHECK(ms < 3000 * t_scale(), "after %d ms", (int)ms);
    T_IS(TUTTI_E_PEER, tutti_channel_set_status(s.set));
    T_CONTAINS(tutti_last_error(), "rank 1");
    T_IS(TUTTI_E_PEER, tutti_channel_set_destroy(s.set));
}

static void a_peer_that_dies_ends_kernels(void **state)
{
    struct t_job job = t_cuda_job(2, death_body);

    (void)state;
    job.dies = 2;
    t_run(&job);
}

static void spoil_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;

    t_scene_open(&s, t, 1, 0);
    memset(s.memory, 7, 2 * LARGE);
    t_meet(t);
    s.args.value = plan->rounds;
    if (t->rank == 0) {
        t_scene_launch(&s, t_spoil);
        for (int i = 0; i < 5000 && tutti_channel_set_status(s.set) == TUTTI_OK; i++)
            t_sleep_us(1000);
        T_IS(TUTTI_E_ARG, tutti_channel_set_status(s.set));
        T_CONTAINS(tutti_last_error(), plan->rounds ? "means nothing" : "kernel's put");
    }
    t_meet(t);
    for (size_t i = 0; i < 2 * LARGE; i += 4096)
        T_CHECK(s.memory[i] == 7 && s.memory[2 * LARGE - 1] == 7, "something was written");
    (void)tutti_channel_set_destroy(s.set);
}

static void what_leads_out_of_the_memory_is_not_carried_out(void **state)
{
    (void)state;
    t_channels_run(2, spoil_body, &(const struct plan){.rounds = 0});
    t_channels_run(2, spoil_body, &(const struct plan){.rounds = 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_gives_up_at_the_deadline),
        cmocka_unit_test(copies_that_do_not_end_are_named),
        cmocka_unit_test(an_abort_ends_kernels),
        cmocka_unit_test(a_peer_that_dies_ends_kernels),
        cmocka_unit_test(what_leads_out_of_the_memory_is_not_carried_out),
    };

    if (!t_channels_begin())
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
