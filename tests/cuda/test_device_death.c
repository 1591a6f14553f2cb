/* ctest: no-tsan timeout=120 */
/* A rank that dies, stops, or destroys its communicator, while others need it: they are told who, in which call,
 * and that it has died or left, at the latest at the deadline; at once where somebody asks for the
 * status. Nothing stays behind and the survivors can go on. Ranks are processes. */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/proc.h"

enum { COUNT = 1000, LONG = 30000, BYTES = 1 << 20, SCRATCH = 1 << 20 };

/* What survivors and the dead share: t_meet() would wait for all. */
struct shared {
    atomic_uint arrived;
    _Atomic uint64_t died_ns;
    atomic_int stopped[8]; /* processes, by rank */
};

/* The last one dies. */
static int n_survivors(const struct t_rank *t)
{
    return t->n_ranks - 1;
}

static int is_dead(const struct t_rank *t)
{
    return t->rank == n_survivors(t);
}

static struct shared *shared_of(struct t_rank *t)
{
    return (struct shared *)(void *)t->shared;
}

static void so_many_meet(struct t_rank *t, unsigned n)
{
    const unsigned ticket = atomic_fetch_add(&shared_of(t)->arrived, 1);

    while (atomic_load(&shared_of(t)->arrived) < (ticket / n + 1) * n)
        t_sleep_us(100);
}

static void survivors_meet(struct t_rank *t)
{
    so_many_meet(t, (unsigned)n_survivors(t));
}

static void die(struct t_rank *t)
{
    atomic_store(&shared_of(t)->died_ns, t_now_ns());
    kill(getpid(), SIGKILL);
}

static uint64_t ms_since_death(struct t_rank *t)
{
    const uint64_t died_ns = atomic_load(&shared_of(t)->died_ns);

    return died_ns == 0 ? 0 : (t_now_ns() - died_ns) / 1000000;
}

static int count_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    T_CHECK(dir != NULL, "no /proc");
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static tutti_result sum(tutti_comm *comm, const struct t_device *device, void *p, size_t count)
{
    return tutti_all_reduce(comm, p, p, count, TUTTI_DTYPE_F32, TUTTI_OP_SUM, device->stream);
}

static void check_blamed(const struct t_rank *t)
{
    char who[32];

    snprintf(who, sizeof(who), "rank %d ", n_survivors(t));
    T_CONTAINS(tutti_last_error(), who);
}

static void check_named(struct t_rank *t, tutti_comm *comm, const struct t_device *device, void *p,
                        const char *what)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    for (int i = 0; i < 2; i++) { /* and it stays so */
        T_OK(tutti_comm_status(comm, &state));
        T_CHECK(state.result == TUTTI_E_PEER && state.peer == n_survivors(t), "%s, rank %d: %s",
                tutti_result_name(state.result), state.peer, state.text);
        T_CONTAINS(state.text, what);
        T_IS(TUTTI_E_PEER, sum(comm, device, p, COUNT));
        check_blamed(t);
        T_CONTAINS(tutti_last_error(), what);
    }
}

/* What failed, as it is told: the second call. */
static void check_call(tutti_comm *comm, const char *call, uint64_t sequence)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_comm_status(comm, &state));
    T_CONTAINS(state.text, call);
    T_CHECK(state.sequence == sequence, "call %llu is blamed, not %llu: %s",
            (unsigned long long)state.sequence, (unsigned long long)sequence, state.text);
}

/* A communicator works: all of its ranks call this. */
static void check_good(struct t_rank *t, tutti_comm *comm, const struct t_device *device)
{
    float *p = t_device_alloc(sizeof(*p)), x = 1;

    t_device_push(device, p, &x, sizeof(x));
    T_OK(sum(comm, device, p, 1));
    t_device_pull(device, &x, p, sizeof(x));
    t_device_sync(device);
    T_CHECK(x == (float)n_survivors(t), "the sum is %g", (double)x);
    t_device_free(p);
}

static void check_new_one(struct t_rank *t, const struct t_device *device)
{
    tutti_comm_config config = t_cuda_config(t);
    tutti_unique_id id;
    tutti_comm *comm;

    config.rank = t->rank;
    config.n_ranks = n_survivors(t);
    config.scratch_bytes = SCRATCH;
    t_share_id(t, 0, 77, &id);
    config.id = &id;
    T_OK(tutti_comm_create(&config, &comm));
    check_good(t, comm, device);
    survivors_meet(t);
    tutti_comm_destroy(comm);
}

/* --- noticed by asking --- */

struct launch {
    struct t_rank *t;
    tutti_comm *comm;
    const struct t_device *device;
    void *p;
    atomic_int is_over;
};

static void *launch(void *context)
{
    struct launch *l = context;
    struct t_device device;

    t_adopt(l->t);
    t_device_open(&device, l->t);
    (void)sum(l->comm, &device, l->p,
              COUNT); /* in the simulation it returns when the kernel ends */
    t_device_sync(&device);
    atomic_store(&l->is_over, 1);
    t_device_close(&device);
    return NULL;
}

static void ask_until_told(struct t_rank *t, tutti_comm *comm)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    while (state.result == TUTTI_OK) {
        t_sleep_us(10000);
        T_OK(tutti_comm_status(comm, &state));
        T_CHECK(ms_since_death(t) < 1000 * t_scale() || state.result != TUTTI_OK,
                "nothing noticed in %llu ms", (unsigned long long)ms_since_death(t));
    }
}

static void survive_polled(struct t_rank *t, struct t_device *device, tutti_comm *comm, void *p)
{
    struct launch l = {.t = t, .comm = comm, .device = device, .p = p};
    pthread_t thread;

    T_CHECK(pthread_create(&thread, NULL, launch, &l) == 0, "no thread");
    if (t->rank == 0)
        ask_until_told(t, comm);
    pthread_join(thread, NULL); /* rank 1 does not ask: rank 0 ends its kernel */
    T_CHECK(ms_since_death(t) < 1000 * t_scale(), "the kernel ended after %llu ms",
            (unsigned long long)ms_since_death(t));
    check_named(t, comm, device, p, "died");
}

static void polled(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm *comm, *pair = NULL;
    int n_files, n_objects;
    struct t_device device;
    void *p;

    config.scratch_bytes = SCRATCH;
    config.timeout_ms = 20000;
    t_device_open(&device, t);
    n_files = count_files();
    n_objects = t_device_n_objects();
    T_OK(t_comm_create(t, 2, &config, &comm));
    T_OK(tutti_comm_split(comm, !is_dead(t) ? 0 : -1, 0, &pair));
    p = t_device_alloc(BYTES);
    T_OK(sum(comm, &device, p, COUNT));
    t_device_sync(&device);
    t_meet(t);
    if (is_dead(t))
        die(t);
    survive_polled(t, &device, comm, p);
    check_good(t, pair, &device);
    survivors_meet(t);
    tutti_comm_destroy(comm);
    check_good(t, pair, &device);
    check_new_one(t, &device);
    survivors_meet(t);
    tutti_comm_destroy(pair);
    t_device_free(p);
    T_CHECK(count_files() == n_files, "%d descriptors were lost", count_files() - n_files);
    T_CHECK(t_device_n_objects() == n_objects, "%d objects were lost",
            t_device_n_objects() - n_objects);
    t_device_close(&device);
}

/* --- noticed at the deadline --- */

/* How the others wait for the missing one: for itself, or for one that waits for it. */
static const struct way {
    const char *algorithm;
    size_t count;
    int in_window;
} ways[] = {
    {"one_shot", COUNT, 0},
    {"two_shot", LONG, 0},
    {"direct", LONG, 1},
};

#define TIMEOUT_MS (600u * t_scale())

static void end_by_deadline(struct t_rank *t, tutti_comm *comm, const struct t_device *device,
                            void *p, size_t count, const char *what)
{
    const uint64_t begin = t_now_ns();
    uint64_t took_ms;

    T_OK(sum(comm, device, p, count));
    t_device_sync(device);
    took_ms = (t_now_ns() - begin) / 1000000;
    T_CHECK(took_ms < (TIMEOUT_MS + 1500) * t_scale(), "gave up after %llu ms",
            (unsigned long long)took_ms);
    check_named(t, comm, device, p, what);
    check_call(comm, "all_reduce", 2);
    survivors_meet(t);
}

/* A communicator for each way, since a rank dies only once, after its first call. */
struct all_ways {
    struct t_device device;
    tutti_comm *comm[T_LEN(ways)];
    void *p;
};

static void open_ways(struct all_ways *a, struct t_rank *t, unsigned timeout_ms)
{
    tutti_window *window;

    t_device_open(&a->device, t);
    T_OK(tutti_mem_alloc(t->comm, BYTES, &a->p));
    for (size_t i = 0; i < T_LEN(ways); i++) {
        tutti_comm_config config = t_cuda_config(t);

        config.algorithm = ways[i].algorithm;
        config.timeout_ms = timeout_ms;
        config.scratch_bytes = SCRATCH;
        T_OK(t_comm_create(t, 10 + i, &config, &a->comm[i]));
        if (ways[i].in_window)
            T_OK(tutti_window_register(a->comm[i], a->p, BYTES, &window));
        T_OK(sum(a->comm[i], &a->device, a->p, ways[i].count));
        t_device_sync(&a->device);
    }
}

static void close_ways(struct all_ways *a, struct t_rank *t)
{
    for (size_t i = 0; i < T_LEN(ways); i++)
        tutti_comm_destroy(a->comm[i]);
    T_OK(tutti_mem_free(t->comm, a->p));
    t_device_close(&a->device);
}

static void at_deadline(struct t_rank *t)
{
    struct all_ways a;

    open_ways(&a, t, TIMEOUT_MS);
    t_meet(t);
    if (is_dead(t))
        die(t);
    for (size_t i = 0; i < T_LEN(ways); i++)
        end_by_deadline(t, a.comm[i], &a.device, a.p, ways[i].count, "died");
    close_ways(&a, t);
}

/* A communicator that gives up soon, and what calls on it need. */
struct scene {
    struct t_device device;
    tutti_comm *comm;
    void *p;
};

static void open_scene(struct scene *s, struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);

    config.timeout_ms = TIMEOUT_MS;
    config.scratch_bytes = SCRATCH;
    t_device_open(&s->device, t);
    T_OK(t_comm_create(t, 2, &config, &s->comm));
    s->p = t_device_alloc(BYTES);
}

/* The communicator is gone. */
static void close_scene(struct scene *s)
{
    t_device_free(s->p);
    t_device_close(&s->device);
}

/* A call, to its end. */
static void work(struct scene *s)
{
    T_OK(sum(s->comm, &s->device, s->p, COUNT));
    t_device_sync(&s->device);
}

/* A rank that has left is no failure until a call needs it. */
static void leaver(struct t_rank *t)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct scene s;

    open_scene(&s, t);
    work(&s);
    t_meet(t);
    if (is_dead(t))
        tutti_comm_destroy(s.comm);
    t_meet(t);
    if (!is_dead(t)) {
        T_OK(tutti_comm_status(s.comm, &state));
        T_CHECK(state.result == TUTTI_OK, "failed because rank %d has left: %s", n_survivors(t),
                state.text);
        end_by_deadline(t, s.comm, &s.device, s.p, COUNT, "has destroyed its communicator");
        tutti_comm_destroy(s.comm);
    }
    t_meet(t);
    close_scene(&s);
}

/* Who is late and leaves afterwards was late. */
static void late(struct t_rank *t)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct scene s;

    open_scene(&s, t);
    t_meet(t);
    if (!is_dead(t)) {
        work(&s);
        T_IS(TUTTI_E_TIMEOUT, sum(s.comm, &s.device, s.p, COUNT));
    }
    t_meet(t);
    if (is_dead(t))
        tutti_comm_destroy(s.comm);
    t_meet(t);
    if (!is_dead(t)) {
        T_OK(tutti_comm_status(s.comm, &state));
        T_CHECK(state.result == TUTTI_E_TIMEOUT && state.peer == n_survivors(t), "%s, rank %d: %s",
                tutti_result_name(state.result), state.peer, state.text);
        tutti_comm_destroy(s.comm);
    }
    t_meet(t);
    close_scene(&s);
}

/* --- stopped --- */

static int is_stopped(int pid)
{
    const char state = t_process_state(pid);

    T_CHECK(state != 'X', "there is no process %d", pid);
    return state == 'T';
}

static void stop_here(struct t_rank *t)
{
    atomic_store(&shared_of(t)->stopped[t->rank], (int)getpid());
    kill(getpid(), SIGSTOP);
}

static void await_stop(struct t_rank *t, int rank)
{
    while (atomic_load(&shared_of(t)->stopped[rank]) == 0 ||
           !is_stopped(atomic_load(&shared_of(t)->stopped[rank])))
        t_sleep_us(1000);
}

static void wake(struct t_rank *t, int rank)
{
    kill(atomic_load(&shared_of(t)->stopped[rank]), SIGCONT);
}

/* A process that is stopped lives, so it is late; the others end at their deadline, it goes on. */
static void stopped(struct t_rank *t)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct scene s;

    open_scene(&s, t);
    work(&s);
    t_meet(t);
    if (is_dead(t)) {
        stop_here(t);
        T_OK(tutti_comm_status(s.comm, &state)); /* it has done nothing wrong */
    } else {
        await_stop(t, n_survivors(t));
        work(&s);
        T_OK(tutti_comm_status(s.comm, &state));
        T_CHECK(state.result == TUTTI_E_TIMEOUT && state.peer == n_survivors(t), "%s, rank %d: %s",
                tutti_result_name(state.result), state.peer, state.text);
        check_call(s.comm, "all_reduce", 2);
        survivors_meet(t);
        wake(t, n_survivors(t));
    }
    t_meet(t);
    tutti_comm_destroy(s.comm);
    close_scene(&s);
}

/* --- two at once --- */

/* Whom a kernel waits for may only be waiting for the two that are stopped. */
static void check_both_late(struct t_rank *t, const struct all_ways *a, size_t way)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(sum(a->comm[way], &a->device, a->p, ways[way].count));
    t_device_sync(&a->device);
    T_OK(tutti_comm_status(a->comm[way], &state));
    T_CHECK(state.result == TUTTI_E_TIMEOUT && state.peer == 1, "%s, rank %d: %s, rank %d: %s",
            ways[way].algorithm, t->rank, tutti_result_name(state.result), state.peer, state.text);
    T_CONTAINS(state.text, "ranks 1 and 3 did not come");
    check_call(a->comm[way], "all_reduce", 2);
    T_IS(TUTTI_E_TIMEOUT, sum(a->comm[way], &a->device, a->p, COUNT));
    T_CONTAINS(tutti_last_error(), "ranks 1 and 3 did not come");
}

static void two_stop(struct t_rank *t)
{
    struct all_ways a;

    open_ways(&a, t, 2 * TIMEOUT_MS); /* a survivor that is later is named as well */
    t_meet(t);
    if (t->rank == 1 || t->rank == 3) {
        stop_here(t);
    } else {
        await_stop(t, 1);
        await_stop(t, 3);
        for (size_t i = 0; i < 2; i++) { /* one hop and two */
            so_many_meet(t, (unsigned)t->n_ranks - 2);
            check_both_late(t, &a, i);
        }
        so_many_meet(t, (unsigned)t->n_ranks - 2);
        wake(t, 1);
        wake(t, 3);
    }
    t_meet(t);
    close_ways(&a, t);
}

static void two_die(struct t_rank *t)
{
    const int first = t->n_ranks - 2, last = t->n_ranks - 1;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct scene s;
    char all[32], turned[32];

    open_scene(&s, t);
    t_meet(t);
    if (t->rank >= first)
        die(t);
    (void)sum(s.comm, &s.device, s.p, COUNT); /* may be refused */
    t_device_sync(&s.device);
    snprintf(all, sizeof(all), "ranks %d, %d died", first, last);
    snprintf(turned, sizeof(turned), "ranks %d, %d died", last, first);
    do { /* until both are dead */
        T_OK(tutti_comm_status(s.comm, &state));
        T_CHECK(ms_since_death(t) < 10000 * t_scale(), "%s", state.text);
    } while (!strstr(state.text, all) && !strstr(state.text, turned));
    T_CHECK(state.result == TUTTI_E_PEER && state.peer >= first, "%s", state.text);
    tutti_comm_destroy(s.comm);
    close_scene(&s);
}

/* --- noticed over host memory --- */

static void registering(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    struct t_device device;
    tutti_window *window;
    tutti_comm *comm;
    void *p;

    config.timeout_ms = 20000;
    config.scratch_bytes = SCRATCH;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 2, &config, &comm));
    T_OK(tutti_mem_alloc(comm, BYTES, &p));
    t_meet(t);
    if (is_dead(t))
        die(t);
    T_IS(TUTTI_E_PEER, tutti_window_register(comm, p, BYTES, &window));
    check_blamed(t);
    T_IS(TUTTI_E_PEER, sum(comm, &device, p, COUNT)); /* needs no status */
    check_named(t, comm, &device, p, "died");
    T_CHECK(ms_since_death(t) < 1000 * t_scale(), "it took %llu ms",
            (unsigned long long)ms_since_death(t));
    tutti_comm_destroy(comm);
    T_OK(tutti_mem_free(t->comm, p));
    t_device_close(&device);
}

/* The last `dies` ranks may die. */
static void run(void (*body)(struct t_rank *), int dies)
{
    static const int three[] = {3, 0}, five[] = {5, 0};

    for (const int *n = t_wanted_ranks(body == two_stop ? five : three); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, body);

        if (job.threads && (dies || body == stopped || body == two_stop))
            t_skip("ranks are threads here");
        if (body == two_stop && (*n < 4 || *n > 8))
            t_skip("ranks 1 and 3 of up to 8 stop");
        if (*n <= dies)
            t_skip("of %d ranks nobody would be left", *n);
        job.config.scratch_bytes = SCRATCH;
        job.dies = ((UINT64_C(1) << dies) - 1) << (*n - dies);
        t_run(&job);
    }
}

static void who_asks_is_told(void **state)
{
    (void)state;
    run(polled, 1);
}

static void the_deadline_tells_too(void **state)
{
    (void)state;
    run(at_deadline, 1);
}

static void who_has_left_is_named(void **state)
{
    (void)state;
    run(leaver, 0);
}

static void who_was_late_stays_late(void **state)
{
    (void)state;
    run(late, 0);
}

static void who_is_stopped_is_named(void **state)
{
    (void)state;
    run(stopped, 0);
}

static void all_who_are_stopped_are_named(void **state)
{
    (void)state;
    run(two_stop, 0);
}

static void all_who_die_are_named(void **state)
{
    (void)state;
    run(two_die, 2);
}

static void registration_tells(void **state)
{
    (void)state;
    run(registering, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_asks_is_told),
        cmocka_unit_test(the_deadline_tells_too),
        cmocka_unit_test(who_has_left_is_named),
        cmocka_unit_test(who_was_late_stays_late),
        cmocka_unit_test(who_is_stopped_is_named),
        cmocka_unit_test(all_who_die_are_named),
        cmocka_unit_test(all_who_are_stopped_are_named),
        cmocka_unit_test(registration_tells),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
