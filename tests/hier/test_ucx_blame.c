/* ctest: timeout=120 */
/* ctest: long timeout=600 serial as=many args=full */
/* Who is blamed: the rank that died, and not one that went because of it. Survivors that exit at the first error close
 * their connections just as a dead rank does. */
#include <unistd.h>

#include "support/hosts.h"
#include "support/job.h"

struct cast {
    const char *hosts, *parts; /* of each rank: d dies, f follows it at the first error, l stays */
    unsigned late_us;          /* at most: how long who looks is away from the network at a time */
    const int *waits_for; /* of each rank: no collectives, but a message of that rank's; -1: none */
};

/* Calls that everybody makes, until one fails. */
static tutti_result until_it_fails(struct t_rank *t, tutti_comm *comm, unsigned late_us)
{
    struct t_rng rng = {t_hash(t_now_ns(), (uint64_t)t->rank)};
    static float x[20000];
    tutti_result res = TUTTI_OK;

    for (int i = 0; res == TUTTI_OK; i++) {
        res = tutti_all_reduce(comm, x, x, i % 3 ? 2 : 20000, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL);
        if (late_us > 0 && res == TUTTI_OK)
            t_sleep_us((unsigned)t_random_below(&rng, late_us));
    }
    return res;
}

/* Ranks know no others but those that they wait for, or that wait for them. */
static tutti_result wait_in_chain(struct t_rank *t, const struct cast *cast)
{
    struct t_rng rng = {t_hash(t_now_ns(), (uint64_t)t->rank)};
    const int from = cast->waits_for[t->rank];
    char byte = 1, got[T_MAX_RANKS];

    for (int round = 0; round < 2; round++) {
        T_OK(tutti_group_begin(t->comm));
        for (int r = 0; r < t->n_ranks; r++)
            if (cast->waits_for[r] == t->rank)
                T_OK(tutti_send(t->comm, &byte, 1, TUTTI_DTYPE_U8, r, NULL));
        if (from >= 0)
            T_OK(tutti_recv(t->comm, &got[0], 1, TUTTI_DTYPE_U8, from, NULL));
        T_OK(tutti_group_end(t->comm));
    }
    t_meet(t);
    if (from < 0)
        _exit(0);
    if (cast->parts[t->rank] == 'l' && cast->late_us)
        t_sleep_us((unsigned)t_random_below(&rng, cast->late_us));
    return tutti_recv(t->comm, &got[0], 1, TUTTI_DTYPE_U8, from, NULL);
}

static void play(struct t_rank *t)
{
    const struct cast *cast = t->arg;
    const char part = cast->parts[t->rank];
    const int dead = (int)(strchr(cast->parts, 'd') - cast->parts);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    float x = 1;

    for (int i = 0; i < 20 && !cast->waits_for; i++)
        T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL));
    if (cast->waits_for) {
        T_IS(TUTTI_E_PEER, wait_in_chain(t, cast));
    } else {
        t_meet(t);
        if (part == 'd')
            _exit(0); /* without a word */
        T_IS(TUTTI_E_PEER, until_it_fails(t, t->comm, part == 'l' ? cast->late_us : 0));
    }
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.peer == dead, "rank %d is blamed: %s", state.peer, state.text);
    if (part == 'f')
        _exit(0); /* at the first error */
}

static void repeat(const struct cast *cast, unsigned quick, unsigned full)
{
    const struct t_job job = {.n_ranks = (int)strlen(cast->parts),
                              .body = play,
                              .arg = (void *)(uintptr_t)cast,
                              .dies = (1u << strlen(cast->parts)) - 1};

    t_hosts(cast->hosts);
    for (unsigned i = 0; i < t_times(quick, full); i++)
        t_run(&job);
    t_hosts(NULL);
}

/* Everybody talks to the dead rank. */
static void among_hosts(void **state)
{
    const struct cast cast = {"012", "fdl", 2000, NULL}, idle = {"012", "lfd", 30000, NULL};

    (void)state;
    repeat(&cast, 12, 150);
    repeat(&idle, 12, 150);
}

/* Ranks of the dead one's host know it first, without the network. */
static void beside_its_host(void **state)
{
    const struct cast cast = {"0110", "lfdl", 2000, NULL}, idle = {"0110", "lfdl", 30000, NULL};

    (void)state;
    repeat(&cast, 12, 150);
    repeat(&idle, 12, 150);
}

/* Rank 0 has never heard of rank 3, nor rank 4 of anybody but rank 0: what they know is what those before them say. */
static void far_from_it(void **state)
{
    static const int waits_for[] = {2, 0, 3, -1, 0};
    const struct cast chain = {"01234", "fffdl", 0, waits_for};
    const struct cast late = {"01234", "lffdl", 20000, waits_for};
    static const int beside[] = {2, 0, 3, -1, 2};
    const struct cast shared = {"01223", "fffdl", 0, beside}; /* rank 2 knows it from its host */

    (void)state;
    repeat(&chain, 12, 150);
    repeat(&late, 12, 150);
    repeat(&shared, 12, 150);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(among_hosts),
        cmocka_unit_test(beside_its_host),
        cmocka_unit_test(far_from_it),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
