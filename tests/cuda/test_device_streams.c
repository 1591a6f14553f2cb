/* ctest: no-tsan timeout=120 */
/* Two communicators of the same ranks on two streams at the same time, which some ranks begin in one order and
 * some in the other, beside work of the caller on a third stream: small launches find room beside each other,
 * so nobody waits for a stream that waits for him. */
#include <pthread.h>

#include "support/cases.h"

enum { SCRATCH = 1 << 20, ROOM = 1 << 17, MAX_COUNT = 500, STREAMS = 2 };

struct side {
    struct t_rank *t;
    tutti_comm *comm;
    struct t_device device;
    struct t_stage stage;
    int which;
    pthread_t thread;
};

static void *calls(void *context)
{
    struct side *side = context;
    struct t_rng rng = {(uint64_t)side->which * 100 + 1}, own = {(uint64_t)side->t->rank + 7};
    const unsigned n = t_times(40, 2000);

    t_adopt(side->t);
    t_device_enter(&side->device);
    for (unsigned i = 0; i < n; i++) {
        struct t_case c = t_case_random_on(&side->stage, &rng, MAX_COUNT);

        /* Every other time the other stream comes first on every other rank. */
        if ((unsigned)(side->t->rank + side->which) % 2 == i % 2)
            t_sleep_us((unsigned)t_random_below(&own, 300));
        t_case_run(&side->stage, &c);
    }
    return NULL;
}

static void two_streams(struct t_rank *t)
{
    const size_t bytes = t_is_simulated() ? 1 << 16 : (size_t)1 << 30;
    static _Thread_local struct side sides[STREAMS];
    struct t_device other;
    unsigned char *p;

    t_device_open(&other, t);
    p = t_device_alloc(2 * bytes);
    for (int i = 0; i < STREAMS; i++) {
        tutti_comm_config config = t_cuda_config(t);

        config.scratch_bytes = SCRATCH;
        sides[i].t = t;
        sides[i].which = i;
        t_device_open(&sides[i].device, t);
        T_OK(t_comm_create(t, 50 + (uint64_t)i, &config, &sides[i].comm));
        t_stage_open_on(&sides[i].stage, t, sides[i].comm, ROOM, 1, &sides[i].device);
    }
    t_meet(t);
    for (int i = 0; i < STREAMS; i++)
        T_CHECK(pthread_create(&sides[i].thread, NULL, calls, &sides[i]) == 0, "no thread");
    for (int i = 0; i < 20; i++) /* some milliseconds of it */
        t_device_copy(&other, p, p + bytes, bytes);
    for (int i = 0; i < STREAMS; i++)
        pthread_join(sides[i].thread, NULL);
    t_device_sync(&other);
    t_meet(t);
    for (int i = 0; i < STREAMS; i++) {
        t_device_enter(&sides[i].device); /* closing one leaves none current */
        t_stage_close(&sides[i].stage);
        tutti_comm_destroy(sides[i].comm);
        t_device_close(&sides[i].device);
    }
    t_device_enter(&other);
    t_device_free(p);
    t_device_close(&other);
}

static void two_communicators_at_once(void **state)
{
    static const int ranks[] = {2, 4, 0};

    (void)state;
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, two_streams);

        if (job.threads && !t_is_simulated())
            t_skip("launches of ranks that share a GPU fill it");
        t_run(&job);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_communicators_at_once),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
