/* Ranks poll if each has a core. A control group whose quota is shorter than that keeps them from it, in
 * whichever of the groups around the ranks it is. */
#include <sys/stat.h>

#include "support/cgroup.h"
#include "support/job.h"

enum { N = 2 };

static char outer[256], inner[300];

static void details(struct t_rank *t, uint64_t key, char *text, size_t bytes)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    T_OK(t_comm_create(t, key, NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    snprintf(text, bytes, "%s", info.details);
    T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

static void enter(struct t_rank *t)
{
    const int is_short = *(const int *)t->arg;
    char text[256];

    details(t, 1, text, sizeof(text));
    if (!strstr(text, "waits by polling"))
        t_skip("%d ranks do not have a core each here", N);
    if (t_cgroup_enter(inner) != 0)
        t_skip("cannot enter a cgroup: %s", strerror(errno));
    t_meet(t);
    details(t, 2, text, sizeof(text));
    T_CONTAINS(text, is_short ? "waits by yielding" : "waits by polling");
}

static void with_quota(int n_cores, int is_short)
{
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = enter, .arg = &is_short};
    char text[4096];
    int failed;

    if (t_cgroup_create_cpu((size_t)n_cores, outer) != 0)
        t_skip("cgroups with a quota are not permitted here");
    snprintf(inner, sizeof(inner), "%s/inner", outer);
    T_SYS(mkdir(inner, 0755));
    failed = t_run_quietly(&job, text, sizeof(text));
    t_cgroup_remove(inner);
    t_cgroup_remove(outer);
    if (failed)
        T_FAIL("%s", text);
    if (strncmp(text, "skipped: ", 9) == 0)
        t_skip("%s", text + 9);
}

static void a_short_quota_keeps_ranks_from_polling(void **state)
{
    (void)state;
    with_quota(N - 1, 1);
}

static void a_quota_that_suffices_does_not(void **state)
{
    (void)state;
    with_quota(N, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_quota_keeps_ranks_from_polling),
        cmocka_unit_test(a_quota_that_suffices_does_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
