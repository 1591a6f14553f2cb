/* ctest: timeout=120 */
/* ctest: long as=200 args=full timeout=900 */
/* kill -9 of a random rank at a random moment: the survivors learn who it was within a second, lose
 * nothing, and go on with a communicator of their own. */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/proc.h"

enum { ROOM = 1 << 18, WINDOW = 1 << 16 };

/* What the ranks do when one is killed: make communicators and a few calls with each, or mostly one thing. */
enum phase { ANYTHING, CREATION, CALLS, ACROSS, TEAMS, WINDOWS, SPLITS, N_PHASES };
static const char *const phases[N_PHASES] = {
    "anything",       "creation", "calls", "calls across memories",
    "calls of teams", "windows",  "splits"};

/* In the area that all share. */
struct scene {
    _Atomic uint64_t killed_ns; /* 0 until the signal is sent */
    _Atomic int n_created;      /* ranks that have made their first communicator */
    _Atomic uint64_t entered;   /* the last communicator that the victim has begun to make */
    int victim;
    enum phase phase;
    unsigned delay_us;
    uint64_t seed;
};

/* How long after the kill survivors returned, of all plays: from calls, and from creation when rank 0 knew
 * the dead rank (TUTTI_E_PEER) and when it did not (TUTTI_E_TIMEOUT, at the deadline). */
enum { IN_CALL, KNOWN, UNKNOWN, N_KINDS, MOST_DELAYS = 8192 };

static struct delays {
    _Atomic unsigned n;
    uint64_t ns[MOST_DELAYS];
} * delays; /* [N_KINDS], in memory that all processes share */

static void note_delay(int kind, uint64_t ns)
{
    const unsigned i = delays[kind].n++;

    if (i < MOST_DELAYS)
        delays[kind].ns[i] = ns;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void print_delays(void)
{
    static const char *const names[N_KINDS] = {"in a call", "in creation, E_PEER",
                                               "in creation, E_TIMEOUT"};

    for (int kind = 0; kind < N_KINDS; kind++) {
        struct delays *d = &delays[kind];
        const unsigned n = d->n < MOST_DELAYS ? d->n : MOST_DELAYS;

        qsort(d->ns, n, sizeof(d->ns[0]), by_size);
        if (n > 0)
            fprintf(stderr, "from kill to error %s: median %.1f ms, worst %.1f ms (%u survivors)\n",
                    names[kind], (double)d->ns[n / 2] / 1e6, (double)d->ns[n - 1] / 1e6, n);
    }
}

static struct scene *scene_of(struct t_rank *t)
{
    return (struct scene *)(void *)t->shared;
}

/* As t_share_id(), but gives up when the maker of the id is dead. A live one may be late: it waits
 * for the victim to join its last communicator until that one's deadline. */
static int get_id(struct t_rank *t, int owner, uint64_t key, tutti_unique_id *id)
{
    unsigned char *flag = t->shared + 4096 + key % 65536;
    char *text = (char *)t->shared + 131072 + key % 1024 * TUTTI_UNIQUE_ID_TEXT_BYTES;
    const uint64_t start = t_now_ns();
    const uint64_t patience_ns =
        owner == scene_of(t)->victim ? 300000000u : 5000000000u * t_scale();

    if (t->rank == owner) {
        T_OK(tutti_unique_id_create(id));
        T_OK(tutti_unique_id_to_text(id, text, TUTTI_UNIQUE_ID_TEXT_BYTES));
        __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
        return 1;
    }
    while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
        if (scene_of(t)->killed_ns != 0 && t_now_ns() > start + patience_ns)
            return 0;
        t_sleep_us(50);
    }
    T_OK(tutti_unique_id_from_text(text, id));
    return 1;
}

static tutti_result create(struct t_rank *t, int owner, int rank, int n_ranks, uint64_t key,
                           uint64_t timeout_ms, tutti_comm **comm_out)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_unique_id id;
    tutti_result result;

    if (n_ranks > 1 && !get_id(t, owner, key, &id))
        return TUTTI_E_TIMEOUT;
    config.id = n_ranks > 1 ? &id : NULL;
    config.rank = rank;
    config.n_ranks = n_ranks;
    config.timeout_ms = timeout_ms * t_scale();
    config.algorithm = scene_of(t)->phase == ACROSS && n_ranks > 1 ? "xmem" : NULL;
    if (t->rank == scene_of(t)->victim)
        scene_of(t)->entered = key;
    t_at(__FILE__, __LINE__, "tutti_comm_create");
    result = tutti_comm_create(&config, comm_out);
    t_at(__FILE__, __LINE__, NULL);
    return result;
}

static tutti_result make_call(struct t_stage *s, struct t_rng *rng)
{
    struct t_case c = t_case_random_on(s, rng, 20000);

    c.team = 0;
    if (scene_of(s->t)->phase == TEAMS) {
        c.coll = T_all_reduce;
        c.in_place = 0;
        c.team = 3;
    }
    return t_case_try(s, &c);
}

/* A window, and calls that go through it. It outlives a failure, until the communicator goes. */
static tutti_result use_window(struct t_stage *s, void *memory)
{
    tutti_window *window = NULL;
    tutti_result result = tutti_window_register(s->comm, memory, WINDOW, &window);

    for (int i = 0; i < 3 && result == TUTTI_OK; i++)
        result = tutti_all_reduce(s->comm, memory, memory, WINDOW / 4, TUTTI_DTYPE_I32,
                                  TUTTI_OP_SUM, NULL);
    return result == TUTTI_OK ? tutti_window_deregister(s->comm, window) : result;
}

/* A split that keeps the order, so that texts of the child name the victim by the same number. */
static tutti_result use_split(struct t_stage *s)
{
    tutti_comm *child = NULL;
    char name[32];
    int sum = 1;
    tutti_result result = tutti_comm_split(s->comm, 0, s->rank, &child);

    if (result == TUTTI_OK)
        result = tutti_all_reduce(child, &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL);
    snprintf(name, sizeof(name), "rank %d ", scene_of(s->t)->victim);
    if (result != TUTTI_OK)
        T_CHECK(result == TUTTI_E_PEER && strstr(tutti_last_error(), name), "a split gave %s: %s",
                tutti_result_name(result), tutti_last_error());
    tutti_comm_destroy(child);
    return result;
}

static tutti_result work(struct t_stage *s, struct t_rng *rng, void *memory)
{
    const enum phase phase = scene_of(s->t)->phase;
    const uint64_t n = phase == ANYTHING   ? t_random_below(rng, 60)
                       : phase == CREATION ? 0
                                           : UINT64_MAX;
    tutti_result result = TUTTI_OK;

    for (uint64_t i = 0; i < n && result == TUTTI_OK; i++)
        result = phase == WINDOWS  ? use_window(s, memory)
                 : phase == SPLITS ? use_split(s)
                                   : make_call(s, rng);
    if (result == TUTTI_OK || phase == SPLITS) { /* what a child finds need not be known here yet */
        t_at(__FILE__, __LINE__, "barrier before destroy");
        result = tutti_barrier(s->comm, NULL);
    }
    return result;
}

/* A second; more ranks than this on few cores also wait for one another. */
static uint64_t most_ns(const struct t_rank *t)
{
    return (t->n_ranks <= 4 ? UINT64_C(1000000000) : UINT64_C(2000000000)) * t_scale();
}

/* Rank 0 knows a rank once it has proved itself: a death before that is only noticed at the deadline, and only
 * while ranks make communicators. A rank that joins when rank 0 has failed already hears that it has. */
static void check_creation(struct t_rank *t, tutti_result result)
{
    const struct scene *scene = scene_of(t);
    const uint64_t delay_ns = t_now_ns() - scene->killed_ns;
    const char *text = tutti_last_error();
    char name[32];

    T_CHECK(scene->killed_ns != 0, "nobody was killed: %s", text);
    snprintf(name, sizeof(name), "rank %d ", scene->victim);
    if (result == TUTTI_E_TIMEOUT) {
        T_CHECK(scene->phase <= CREATION && delay_ns < UINT64_C(3000000000) * t_scale(),
                "creation failed after %llu ms: %s", (unsigned long long)delay_ns / 1000000, text);
    } else {
        T_CHECK(result == TUTTI_E_PEER, "creation gave %s: %s", tutti_result_name(result), text);
        T_CHECK(strstr(text, name) || strstr(text, "rank 0 no longer listens"),
                "the victim was %d: %s", scene->victim, text);
        T_CHECK(delay_ns < most_ns(t), "noticed only after %llu ms: %s",
                (unsigned long long)delay_ns / 1000000, text);
    }
    note_delay(result == TUTTI_E_PEER ? KNOWN : UNKNOWN, delay_ns);
}

static void check_call(struct t_rank *t, tutti_comm *comm, tutti_result result, uint64_t now_ns)
{
    const struct scene *scene = scene_of(t);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    char name[32];

    T_CHECK(result == TUTTI_E_PEER, "a call gave %s: %s", tutti_result_name(result),
            tutti_last_error());
    T_CHECK(scene->killed_ns != 0, "nobody was killed: %s", tutti_last_error());
    T_CHECK(now_ns - scene->killed_ns < most_ns(t), "noticed only after %llu ms",
            (unsigned long long)(now_ns - scene->killed_ns) / 1000000);
    note_delay(IN_CALL, now_ns - scene->killed_ns);
    T_OK(tutti_comm_status(comm, &state));
    T_CHECK(state.result == TUTTI_E_PEER && state.peer == scene->victim,
            "status %s of peer %d, the victim was %d: %s", tutti_result_name(state.result),
            state.peer, scene->victim, state.text);
    snprintf(name, sizeof(name), "rank %d", scene->victim);
    T_CONTAINS(state.text, name);
}

/* Some may still be waiting, in vain, for the victim to join: these are waited for. */
static void survive(struct t_rank *t)
{
    const int victim = scene_of(t)->victim, me = t->rank;
    const int owner = victim == 0 ? 1 : 0;
    int sum = 1;
    tutti_comm *comm;

    T_OK(create(t, owner, me > victim ? me - 1 : me, t->n_ranks - 1, 60000, 10000, &comm));
    T_OK(tutti_all_reduce(comm, &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    T_CHECK(sum == t->n_ranks - 1, "the survivors' sum is %d", sum);
    T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

static void live_until_somebody_dies(struct t_rank *t)
{
    /* The C library keeps the stacks of threads, and their arenas. */
    const size_t slack = scene_of(t)->phase == TEAMS ? 20 : 4;
    struct t_rng rng = {scene_of(t)->seed};
    struct t_holdings before = {0};
    struct t_stage s;
    tutti_comm *alone, *comm;
    void *memory;
    tutti_result result = TUTTI_OK;

    T_OK(
        create(t, 0, 0, 1, 0, 1500, &alone)); /* what the first one takes for good is not counted */
    T_OK(tutti_mem_alloc(alone, WINDOW, &memory));
    t_stage_open(&s, t, NULL, ROOM, 0);
    before = t_holdings_now();
    for (uint64_t key = 1; result == TUTTI_OK; key++) {
        result = create(t, 0, t->rank, t->n_ranks, key, 1500, &comm);
        if (result == TUTTI_E_UNSUPPORTED)
            t_skip("%s", tutti_last_error());
        if (result != TUTTI_OK) {
            check_creation(t, result);
            break;
        }
        s.comm = comm;
        scene_of(t)->n_created++;
        result = work(&s, &rng, memory);
        if (result != TUTTI_OK)
            check_call(t, comm, result, t_now_ns());
        tutti_comm_destroy(comm);
    }
    t_check_holdings(&before, slack, "after a rank died");
    survive(t);
    t_check_holdings(&before, slack, "after the survivors' communicator");
    s.comm = NULL;
    t_stage_close(&s);
    T_OK(tutti_mem_free(alone, memory)); /* no window is left in it */
    tutti_comm_destroy(alone);
}

static void set_scene(const struct t_job *job, struct t_board *board)
{
    memcpy(t_board_shared(board), job->arg, sizeof(struct scene));
}

static void kill_one(const struct t_job *job, struct t_board *board, const pid_t pids[])
{
    struct scene *scene = (struct scene *)(void *)t_board_shared(board);

    for (int ms = 0; scene->phase > CREATION && scene->n_created < job->n_ranks && ms < 5000; ms++)
        t_sleep_us(1000);
    for (uint64_t key = 1 + scene->seed % 8; scene->phase == CREATION && scene->entered < key;)
        t_sleep_us(50);
    t_sleep_us(scene->delay_us);
    scene->killed_ns = t_now_ns();
    kill(pids[scene->victim], SIGKILL);
}

static void play(enum phase phase, uint64_t seed)
{
    struct t_rng rng = {seed};
    struct t_job job = {.n_ranks = 2 + (int)t_random_below(&rng, 7),
                        .body = live_until_somebody_dies,
                        .no_comm = 1,
                        .prepare = set_scene,
                        .parent = kill_one};
    struct scene scene = {.seed = t_random(&rng), .phase = phase};
    char text[8192];

    scene.victim = (int)t_random_below(&rng, (uint64_t)job.n_ranks);
    scene.delay_us = (unsigned)t_random_below(&rng, phase == CREATION ? 4000 : 50000);
    job.dies = (uint64_t)1 << scene.victim;
    job.arg = &scene;
    if (t_run_quietly(&job, text, sizeof(text)))
        T_FAIL("%s: rank %d of %d killed after %u us (seed %#llx): %s", phases[phase], scene.victim,
               job.n_ranks, scene.delay_us, (unsigned long long)seed, text);
}

static void survivors_of_a_killed_rank_go_on(void **state)
{
    const unsigned n = t_times(2 * N_PHASES, 200);
    const int alone = t_private_dev_shm("1m") == 0;
    const size_t children = t_count_children();
    struct t_rng rng = {t_now_ns()};

    (void)state;
    for (unsigned i = 0; i < n; i++)
        play((enum phase)(i % N_PHASES), t_random(&rng));
    if (alone)
        assert_int_equal(t_count_dev_shm(), 0);
    assert_int_equal(t_count_children(), children);
    print_delays();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survivors_of_a_killed_rank_go_on),
    };

    t_arguments(argc, argv);
    delays = mmap(NULL, N_KINDS * sizeof(*delays), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (delays == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
