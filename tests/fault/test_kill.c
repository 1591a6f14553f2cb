/* ctest: timeout=120 */
/* ctest: long as=200 args=full timeout=900 */
/* kill -9 of a random rank at a random moment: the survivors learn who it was within a second, lose
 * nothing, and go on with a communicator of their own. */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/proc.h"

enum { ROOM = 1 << 18 };

/* In the area that all share. */
struct scene {
    _Atomic uint64_t killed_ns; /* 0 until the signal is sent */
    _Atomic int n_created;      /* ranks that have made their first communicator */
    int victim;
    int in_calls; /* kill in the calls of that one, else wherever they are */
    unsigned delay_us;
    uint64_t seed;
};

/* How long after the kill survivors returned, of all plays: from calls, from creation when the dead
 * rank had joined (TUTTI_E_PEER) and when it had not (TUTTI_E_TIMEOUT, at the deadline). */
enum { IN_CALL, JOINED, NOT_JOINED, N_PHASES, MOST_DELAYS = 4096 };

static struct delays {
    _Atomic unsigned n, misnamed; /* ... and how many texts named another rank than the victim */
    uint64_t ns[MOST_DELAYS];
} * delays; /* [N_PHASES], in memory that all processes share */

static void note_delay(int phase, uint64_t ns)
{
    const unsigned i = delays[phase].n++;

    if (i < MOST_DELAYS)
        delays[phase].ns[i] = ns;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void print_delays(void)
{
    static const char *const names[N_PHASES] = {"in a call", "in creation, E_PEER",
                                                "in creation, E_TIMEOUT"};

    for (int phase = 0; phase < N_PHASES; phase++) {
        struct delays *d = &delays[phase];
        const unsigned n = d->n < MOST_DELAYS ? d->n : MOST_DELAYS;

        qsort(d->ns, n, sizeof(d->ns[0]), by_size);
        if (n > 0)
            fprintf(stderr,
                    "from kill to error %s: median %.1f ms, worst %.1f ms (%u survivors, %u named "
                    "another)\n",
                    names[phase], (double)d->ns[n / 2] / 1e6, (double)d->ns[n - 1] / 1e6, n,
                    d->misnamed);
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
    t_at(__FILE__, __LINE__, "tutti_comm_create");
    result = tutti_comm_create(&config, comm_out);
    t_at(__FILE__, __LINE__, NULL);
    return result;
}

static tutti_result make_calls(struct t_stage *s, struct t_rng *rng, int for_ever)
{
    tutti_result result = TUTTI_OK;
    const uint64_t n = for_ever ? UINT64_MAX : t_random_below(rng, 60);

    for (uint64_t i = 0; i < n && result == TUTTI_OK; i++) {
        struct t_case c = t_case_random_on(s, rng, 20000);

        c.team = 0;
        result = t_case_try(s, &c);
    }
    if (result == TUTTI_OK) {
        t_at(__FILE__, __LINE__, "barrier before destroy");
        result = tutti_barrier(s->comm, NULL);
    }
    return result;
}

static void check_creation(struct t_rank *t, tutti_result result, uint64_t took_ns)
{
    char name[32];

    T_CHECK(result == TUTTI_E_PEER || result == TUTTI_E_TIMEOUT, "creation gave %s: %s",
            tutti_result_name(result), tutti_last_error());
    T_CHECK(took_ns < (uint64_t)3000000000u * t_scale(), "creation failed after %llu ms",
            (unsigned long long)took_ns / 1000000);
    T_CHECK(scene_of(t)->killed_ns != 0, "nobody was killed: %s", tutti_last_error());
    note_delay(result == TUTTI_E_PEER ? JOINED : NOT_JOINED, t_now_ns() - scene_of(t)->killed_ns);
    snprintf(name, sizeof(name), "rank %d ", scene_of(t)->victim);
    if (result == TUTTI_E_PEER && !strstr(tutti_last_error(), name)) {
        delays[JOINED].misnamed++;
        fprintf(stderr, "rank %d, victim %d: %s\n", t->rank, scene_of(t)->victim,
                tutti_last_error());
    }
}

static void check_call(struct t_rank *t, tutti_comm *comm, tutti_result result, uint64_t now_ns)
{
    const struct scene *scene = scene_of(t);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    char name[32];

    T_CHECK(result == TUTTI_E_PEER, "a call gave %s: %s", tutti_result_name(result),
            tutti_last_error());
    T_CHECK(scene->killed_ns != 0, "nobody was killed: %s", tutti_last_error());
    T_CHECK(now_ns - scene->killed_ns < (uint64_t)1000000000u * t_scale(),
            "noticed only after %llu ms",
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
    struct t_rng rng = {scene_of(t)->seed};
    struct t_holdings before = {0};
    struct t_stage s;
    tutti_comm *comm;
    tutti_result result = TUTTI_OK;

    T_OK(create(t, 0, 0, 1, 0, 1500,
                &comm)); /* what the first one allocates for good is not counted */
    tutti_comm_destroy(comm);
    t_stage_open(&s, t, NULL, ROOM, 0);
    before = t_holdings_now();
    for (uint64_t key = 1; result == TUTTI_OK; key++) {
        const uint64_t start = t_now_ns();

        result = create(t, 0, t->rank, t->n_ranks, key, 1500, &comm);
        if (result != TUTTI_OK) {
            check_creation(t, result, t_now_ns() - start);
            break;
        }
        s.comm = comm;
        scene_of(t)->n_created++;
        result = make_calls(&s, &rng, scene_of(t)->in_calls);
        if (result != TUTTI_OK)
            check_call(t, comm, result, t_now_ns());
        tutti_comm_destroy(comm);
    }
    t_check_holdings(&before, 4, "after a rank died");
    survive(t);
    t_check_holdings(&before, 4, "after the survivors' communicator");
    s.comm = NULL;
    t_stage_close(&s);
}

static void set_scene(const struct t_job *job, struct t_board *board)
{
    memcpy(t_board_shared(board), job->arg, sizeof(struct scene));
}

static void kill_one(const struct t_job *job, struct t_board *board, const pid_t pids[])
{
    struct scene *scene = (struct scene *)(void *)t_board_shared(board);

    for (int ms = 0; scene->in_calls && scene->n_created < job->n_ranks && ms < 5000; ms++)
        t_sleep_us(1000);
    t_sleep_us(scene->delay_us);
    scene->killed_ns = t_now_ns();
    kill(pids[scene->victim], SIGKILL);
}

static void play(uint64_t seed)
{
    struct t_rng rng = {seed};
    struct t_job job = {.n_ranks = 2 + (int)t_random_below(&rng, 3),
                        .body = live_until_somebody_dies,
                        .no_comm = 1,
                        .prepare = set_scene,
                        .parent = kill_one};
    struct scene scene = {.seed = t_random(&rng)};
    char text[8192];

    scene.victim = (int)t_random_below(&rng, (uint64_t)job.n_ranks);
    scene.in_calls = (int)t_random_below(&rng, 2);
    scene.delay_us = (unsigned)t_random_below(&rng, 50000);
    job.dies = (uint64_t)1 << scene.victim;
    job.arg = &scene;
    if (t_run_quietly(&job, text, sizeof(text)))
        T_FAIL("rank %d of %d killed after %u us (seed %#llx): %s", scene.victim, job.n_ranks,
               scene.delay_us, (unsigned long long)seed, text);
}

static void survivors_of_a_killed_rank_go_on(void **state)
{
    const unsigned n = t_times(20, 200);
    const int alone = t_private_dev_shm("1m") == 0;
    const size_t children = t_count_children();
    struct t_rng rng = {t_now_ns()};

    (void)state;
    for (unsigned i = 0; i < n; i++)
        play(t_random(&rng));
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
    delays = mmap(NULL, N_PHASES * sizeof(*delays), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (delays == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
