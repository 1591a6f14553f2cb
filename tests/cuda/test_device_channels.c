/* ctest: no-tsan timeout=120 */
/* Kernels that use channels: the same kernel over mapped memory and through proxies and a network that
 * delivers in disorder. Kernels run on the simulated GPU, whose stores are seen late. */
#include "channel_scene.h"

static void one_kernel_for_memory_and_for_ports(void **state)
{
    const struct plan memory = {.seeds = 8, .rounds = 12}, port = {1, 0, 6, 8};

    (void)state;
    t_channels_run(2, t_talk_body, &memory);
    t_channels_run(2, t_talk_body, &port);
    t_channels_run(4, t_talk_body, &memory);
    t_channels_run(4, t_talk_body, &(const struct plan){1, 0, 2, 4});
}

/* Two sets, each over a part of one window of the program's own. */
static void parts_body(struct t_rank *t)
{
    static struct scene s[2];
    tutti_window *window;
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, 5 * LARGE, &memory));
    T_OK(tutti_window_register(t->comm, memory, 5 * LARGE, &window));
    for (int i = 0; i < 2; i++)
        t_scene_open_over(&s[i], t, 0, 0, (unsigned char *)memory + (i + 1) * 64 + i * 2 * LARGE);
    T_OK(tutti_window_deregister(t->comm, window)); /* the sets hold it */
    for (int i = 0; i < 2; i++) {
        s[i].args.rounds = 8;
        s[i].args.seed = 5 + (uint64_t)i;
        t_scene_launch(&s[i], t_talk);
        t_scene_expect_good(&s[i], "messages in a part of a window");
    }
    for (int i = 0; i < 2; i++) {
        t_device_enter(&s[i].device);
        t_scene_close_over(&s[i], TUTTI_OK);
    }
    T_OK(tutti_mem_free(t->comm, memory));
}

static void a_set_over_a_part_of_a_window(void **state)
{
    (void)state;
    t_channels_run(2, parts_body, NULL);
    t_channels_run(3, parts_body, NULL);
}

static void add_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    uint64_t want = 0, got[BLOCKS] = {0};
    static struct scene s;

    t_scene_open(&s, t, plan->by_port, plan->n_slots);
    tt_sim_set_weather(7);
    s.args.rounds = plan->rounds;
    s.args.value = 1000 + (uint64_t)((t->rank + t->n_ranks - 1) % t->n_ranks);
    for (uint64_t i = 0; i < THREADS; i++)
        want += (s.args.value + i) * plan->rounds;
    s.args.value = 1000 + (uint64_t)t->rank;
    memset(s.memory, 0, 64);
    t_meet(t);
    t_scene_launch(&s, t_add);
    t_scene_expect_good(&s, "sums");
    t_meet(t); /* all are flushed */
    t_device_pull(&s.device, got, s.memory, sizeof(got));
    t_device_sync(&s.device);
    for (int b = 0; b < BLOCKS; b++)
        T_CHECK(got[b] == want, "sum %d is %llu, not %llu", b, (unsigned long long)got[b],
                (unsigned long long)want);
    t_scene_close(&s, TUTTI_OK);
}

/* Each block has its channel of another set, and all sets are over the same memory. */
static void shared_body(struct t_rank *t)
{
    const int peer = 1 - t->rank;
    static struct scene s[BLOCKS];
    uint64_t sum;

    t_scene_open(&s[0], t, 1, 0);
    memset(s[0].memory, 0, 128);
    for (int i = 1; i < BLOCKS; i++) {
        t_scene_open_over(&s[i], t, 1, 0, s[0].memory);
        s[0].args.ch[peer][i] = s[i].args.ch[peer][i];
    }
    s[0].args.rounds = 60;
    t_meet(t);
    t_scene_launch(&s[0], t_add_to_one);
    t_scene_expect_good(&s[0], "sums");
    t_meet(t);
    memcpy(&sum, s[0].memory + 64, sizeof(sum));
    T_CHECK(sum == s[0].args.rounds * THREADS * BLOCKS, "the sum is %llu", (unsigned long long)sum);
    for (int i = BLOCKS - 1; i >= 0; i--) {
        t_device_enter(&s[i].device);
        if (i > 0)
            t_scene_close_over(&s[i], TUTTI_OK);
        else
            t_scene_close(&s[i], TUTTI_OK);
    }
}

static void sets_that_share_memory_add_to_one_word(void **state)
{
    (void)state;
    t_channels_run(2, shared_body, NULL);
}

static void all_threads_add_through_a_queue_that_is_full(void **state)
{
    (void)state;
    t_channels_run(2, add_body, &(const struct plan){1, 4, 1, 8});
    t_channels_run(3, add_body, &(const struct plan){.rounds = 20});
}

/* More than the rings hold, in both directions at once. */
static void large_body(struct t_rank *t)
{
    const int peer = 1 - t->rank;
    static struct scene s;
    unsigned char *bytes = malloc(LARGE);

    t_scene_open(&s, t, 1, 16);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (unsigned char)t_hash((uint64_t)t->rank, i >> 6);
    for (s.args.value = 1; s.args.value < 4; s.args.value++) {
        const size_t shift = s.args.value;

        t_device_push(&s.device, s.memory, bytes, LARGE);
        t_device_sync(&s.device);
        t_meet(t);
        t_scene_launch(&s, t_large);
        t_scene_expect_good(&s, "a large put");
        for (size_t i = 0; i < LARGE - 100; i++)
            T_CHECK(s.memory[LARGE + 3 + i] ==
                        (unsigned char)t_hash((uint64_t)peer, (i + shift) >> 6),
                    "byte %zu is wrong", i);
        t_meet(t);
    }
    free(bytes);
    t_scene_close(&s, TUTTI_OK);
}

static void large_puts_go_through_the_ring_in_pieces(void **state)
{
    (void)state;
    t_channels_run(2, large_body, NULL);
}

/* By port nothing but the proxies' copies would notice, and lose the set. */
static void memory_body(struct t_rank *t)
{
    const tutti_channel_config port = {.size = sizeof(port), .flags = TUTTI_CHANNELS_BY_PORT};
    static _Alignas(4096) unsigned char of_host[4096];
    tutti_channel_set *set = NULL;
    struct t_device device;
    void *memory;

    t_device_open(&device, t);
    T_OK(tutti_mem_alloc(t->comm, 4096, &memory)); /* which makes it a whole granule */
    for (int by_port = 0; by_port < 2; by_port++) {
        const tutti_channel_config *config = by_port ? &port : NULL;

        T_IS(TUTTI_E_ARG, tutti_channel_set_create(t->comm, of_host, 4096, config, &set));
        T_CONTAINS(tutti_last_error(), "only the first 0 are memory");
        T_IS(TUTTI_E_ARG, tutti_channel_set_create(t->comm, memory, 64 << 20, config, &set));
        T_CONTAINS(tutti_last_error(), "of the 67108864 bytes");
        T_CHECK(set == NULL, "a set in spite of the failure");
    }
    T_OK(tutti_channel_set_create(t->comm, memory, 4096, &port, &set));
    T_OK(tutti_channel_set_destroy(set));
    T_OK(tutti_mem_free(t->comm, memory));
    t_device_close(&device);
}

static void memory_that_is_none_of_the_gpu_is_refused(void **state)
{
    (void)state;
    t_channels_run(2, memory_body, NULL);
}

/* ---- GPUDirect ---- */

static void expect_way(struct t_rank *t, const char *way)
{
    tutti_channel_info info = {.size = sizeof(info)};
    static struct scene s;

    t_scene_open(&s, t, 1, 0);
    T_OK(tutti_channel_set_query(s.set, &info));
    T_CONTAINS(info.details, way);
    t_scene_close(&s, TUTTI_OK);
}

static void direct_body(struct t_rank *t)
{
    expect_way(t, "GPUDirect");
}

static void staged_body(struct t_rank *t)
{
    expect_way(t, "staged");
}

static void refused_body(struct t_rank *t)
{
    tutti_channel_set *set;
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, 4096, &memory));
    T_IS(TUTTI_E_UNSUPPORTED, tutti_channel_set_create(t->comm, memory, 4096,
                                                       &(const tutti_channel_config){
                                                           .size = sizeof(tutti_channel_config),
                                                           .flags = TUTTI_CHANNELS_BY_PORT},
                                                       &set));
    T_CONTAINS(tutti_last_error(), "TUTTI_NET_GPUDIRECT=on, but no device");
    T_OK(tutti_mem_free(t->comm, memory));
}

static void the_network_reaches_gpu_memory(void **state)
{
    (void)state;
    setenv("T_NET_GPU", "peermem", 1);
    t_channels_run(2, direct_body, NULL);
    t_channels_run(2, t_talk_body, &(const struct plan){1, 0, 6, 8});
    t_channels_run(4, t_talk_body, &(const struct plan){1, 4, 2, 4});
    t_channels_run(2, add_body, &(const struct plan){1, 4, 1, 8});
    t_channels_run(2, large_body, NULL);
    setenv("T_NET_GPU", "dmabuf", 1);
    t_channels_run(3, direct_body, NULL);
    unsetenv("T_NET_GPU");
}

/* ... or does not, or is not to, or only some of it does. */
static void else_bytes_go_through_pinned_memory(void **state)
{
    (void)state;
    t_channels_run(2, staged_body, NULL);
    setenv("TUTTI_NET_GPUDIRECT", "on", 1);
    t_channels_run(2, refused_body, NULL);
    setenv("TUTTI_NET_GPUDIRECT", "off", 1);
    setenv("T_NET_GPU", "peermem", 1);
    t_channels_run(2, staged_body, NULL);
    unsetenv("TUTTI_NET_GPUDIRECT");
    setenv("T_NET_GPU", "lost", 1);
    t_channels_run(3, staged_body, NULL);
    t_channels_run(2, t_talk_body, &(const struct plan){1, 0, 2, 8});
    unsetenv("T_NET_GPU");
}

/* ---- negative controls ---- */

static void must_fail(const char *variable, const char *value, const struct plan *plan)
{
    struct t_job job = t_cuda_job(2, t_talk_body);
    static char text[8192];
    int is_noticed = 0;

    job.arg = (void *)(uintptr_t)plan;
    setenv(variable, value, 1);
    for (int i = 0; !is_noticed && i < 5; i++) /* what is late may be in time by chance */
        is_noticed = t_run_quietly(&job, text, sizeof(text)) &&
                     (strstr(text, "are wrong") || strstr(text, "means no place"));
    unsetenv(variable);
    assert_true(is_noticed);
}

static void order_that_is_lost_is_noticed(void **state)
{
    (void)state;
    must_fail("T_SIM_BREAK", "no_release", &(const struct plan){.seeds = 8, .rounds = 30});
    must_fail("T_SIM_BREAK", "no_release", &(const struct plan){1, 0, 8, 30});
    must_fail("T_NET", "signal_early", &(const struct plan){1, 0, 8, 100});
    setenv("T_NET_GPU", "peermem", 1);
    must_fail("T_SIM_BREAK", "no_flush", &(const struct plan){1, 0, 8, 30});
    unsetenv("T_NET_GPU");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_kernel_for_memory_and_for_ports),
        cmocka_unit_test(a_set_over_a_part_of_a_window),
        cmocka_unit_test(all_threads_add_through_a_queue_that_is_full),
        cmocka_unit_test(sets_that_share_memory_add_to_one_word),
        cmocka_unit_test(large_puts_go_through_the_ring_in_pieces),
        cmocka_unit_test(memory_that_is_none_of_the_gpu_is_refused),
        cmocka_unit_test(the_network_reaches_gpu_memory),
        cmocka_unit_test(else_bytes_go_through_pinned_memory),
        cmocka_unit_test(order_that_is_lost_is_noticed),
    };

    if (!t_channels_begin())
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
