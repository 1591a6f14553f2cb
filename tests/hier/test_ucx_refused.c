/* What strangers send to a communicator's ports is counted where its owner can see it: tutti_comm_stats(), and
 * `tutti info --live` from outside. */
/* ctest: timeout=120 */
#include <sys/socket.h>
#include <unistd.h>

#include "coll/comm.h"
#include "coll/hier_parts.h"
#include "coll/wire_parts.h"
#include "net/net_parts.h"
#include "support/hosts.h"
#include "support/job.h"

#define SOME 3 /* strangers at each port */

/* Says something else than a rank would, and waits until it is hung up on. */
static void knock(const struct tt_boot_endpoint *where)
{
    static const char words[] = "GET / HTTP/1.1\r\n\r\n";
    int fd = socket(where->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char rest[256];

    T_SYS(fd);
    T_SYS(connect(fd, (const struct sockaddr *)&where->address, where->bytes));
    T_CHECK(send(fd, words, sizeof(words) - 1, MSG_NOSIGNAL) == sizeof(words) - 1, "send");
    while (recv(fd, rest, sizeof(rest), 0) > 0) /* the job has a deadline */
        ;
    close(fd);
}

static void knock_at_rendezvous(const tutti_unique_id *packed)
{
    struct tt_boot_endpoint where;
    struct tt_boot_id id;

    T_CHECK(tt_boot_id_parse(packed, &id) == 0, "no id");
    T_CHECK(tt_boot_address_resolve(&id.addresses[0], id.port, &where, 1) == 1, "no address");
    for (int i = 0; i < SOME; i++)
        knock(&where);
}

static uint64_t refused(const tutti_comm *comm, int rank)
{
    tutti_stats stats = TUTTI_STATS_INIT;

    T_OK(tutti_comm_stats(comm, rank, &stats));
    return stats.n_refused;
}

/* From outside: rank 0's own process has the one that counts, among its others. */
static int visit(void *context, const tutti_live_comm *comm, const tutti_stats stats[])
{
    uint64_t *most = context;

    for (int r = 0; r < comm->n_ranks; r++)
        *most = stats[r].n_refused > *most ? stats[r].n_refused : *most;
    return 0;
}

static void count(struct t_rank *t)
{
    _Atomic int *is_over = (_Atomic int *)(void *)t->shared;
    struct tt_boot_endpoint *where = (struct tt_boot_endpoint *)(void *)(t->shared + 64);
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm = NULL;
    tutti_unique_id id;
    uint64_t seen = 0;

    t_host_enter(t->rank);
    t_share_id(t, 0, 1, &id);
    config.rank = t->rank;
    config.n_ranks = t->n_ranks;
    config.id = &id;
    if (t->rank == 1)
        knock_at_rendezvous(&id);
    T_OK(tutti_comm_create(&config, &comm));
    T_CHECK(refused(comm, t->rank) == (t->rank == 0 ? SOME : 0), "%llu refused by the rendezvous",
            (unsigned long long)refused(comm, t->rank));
    T_CHECK(refused(comm, 1 - t->rank) == 0, "what is refused on another host is not known");
    if (t->rank == 0)
        tt_watch_where(comm->control->wire->net->watch, where);
    t_meet(t);
    if (t->rank == 1) {
        for (int i = 0; i < SOME; i++)
            knock(where);
        atomic_store(is_over, 1);
    }
    while (t->rank == 0 && !atomic_load(is_over))
        T_CHECK(tt_wire_poll(comm->control->wire) >= 0, "%s", tutti_last_error());
    T_CHECK(refused(comm, t->rank) == (t->rank == 0 ? 2 * SOME : 0), "%llu refused by the watch",
            (unsigned long long)refused(comm, t->rank));
    T_OK(tutti_live_visit((int)getpid(), visit, &seen));
    T_CHECK(seen == refused(comm, t->rank), "%llu refused, as seen from outside",
            (unsigned long long)seen);
    T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

static void test_count(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = count};

    (void)state;
    t_run(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_count)};

    t_hosts("01");
    if (*tt_net_missing()) {
        printf("skipped: %s\n", tt_net_missing());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
