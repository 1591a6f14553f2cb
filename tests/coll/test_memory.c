/* What a communicator costs in memory, that it needs nothing of /dev/shm, and that lack of memory is
 * an error. (Others die of SIGBUS under a container's 64 MiB of /dev/shm.) */
#include <sys/resource.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/cgroup.h"
#include "support/proc.h"

static void calls_of_all_sizes(struct t_rank *t, tutti_comm *comm)
{
    struct t_case c = {.dtype = TUTTI_DTYPE_F32};
    struct t_stage s;

    t_stage_open(&s, t, comm, 4 << 20, 0);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (size_t count = 1; count < 1 << 18; count *= 8) {
            c.coll = (enum t_coll)coll;
            c.count = t_case_fit(c.coll, t->n_ranks, 4 << 20, 4, count);
            c.seed++;
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

static void cost(struct t_rank *t)
{
    const size_t before = t_memory_kib("/proc/self/smaps_rollup", "Pss:");
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;
    size_t grown;

    T_OK(t_comm_create(t, 2, NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CHECK(info.memory_bytes > 0 && info.memory_bytes < 16u << 20, "memory_bytes %llu",
            (unsigned long long)info.memory_bytes);
    calls_of_all_sizes(t, comm);
    t_meet(t);
    grown = t_memory_kib("/proc/self/smaps_rollup", "Pss:") - before;
    T_CHECK(before > 0 && grown < 16 * 1024, "%zu KiB more than before", grown);
    t_meet(t);
    tutti_comm_destroy(comm);
}

static void a_rank_needs_less_than_16_mib(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n *= 2) {
        const struct t_job job = {.n_ranks = n, .no_comm = 1, .body = cost};

        t_run(&job);
    }
}

T_RANKS(call_everything, 3)
{
    calls_of_all_sizes(t, t->comm);
}

/* From here on this process has a /dev/shm of its own, of one page. */
static void neither_needs_nor_uses_dev_shm(void **state)
{
    if (t_private_dev_shm("4096") != 0)
        t_skip("no /dev/shm of our own: %s", strerror(errno));
    call_everything(state);
    assert_int_equal(t_count_dev_shm(), 0);
}

/* --- lack of memory --- */

static void limited_address_space(struct t_rank *t)
{
    const struct t_holdings before = t_holdings_now();
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    struct rlimit old, tight;
    tutti_comm *comm;

    getrlimit(RLIMIT_AS, &old);
    tight = old;
    tight.rlim_cur = (t_memory_kib("/proc/self/status", "VmSize:") + 20 * 1024) * 1024;
    config.scratch_bytes = 64 << 20;
    config.timeout_ms = 5000;
    if (t->rank == 1)
        setrlimit(RLIMIT_AS, &tight);
    const tutti_result r = t_comm_create(t, 2, &config, &comm);
    setrlimit(RLIMIT_AS, &old);
    T_CHECK(r == TUTTI_E_MEMORY, "rank %d: %s: %s", t->rank, tutti_result_name(r),
            tutti_last_error());
    t_check_holdings(&before, 3, "after a failed creation");
    T_OK(t_comm_create(t, 3, NULL, &comm)); /* a smaller one can be made */
    T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

static void no_address_space_is_e_memory_on_all_ranks(void **state)
{
    const struct t_job job = {.n_ranks = 3, .no_comm = 1, .body = limited_address_space};

    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    t_skip("sanitizers need the address space");
#endif
    t_run(&job);
}

/* Rank 0 makes the segment; a file that is too large would end it by a signal. */
static void small_files(struct t_rank *t)
{
    const struct t_holdings before = t_holdings_now();
    struct rlimit old, tight;
    tutti_comm *comm;
    void *p;

    getrlimit(RLIMIT_FSIZE, &old);
    tight = old;
    tight.rlim_cur = 1000 << 10;
    setrlimit(RLIMIT_FSIZE, &tight);
    T_IS(TUTTI_E_MEMORY, t_comm_create(t, 2, NULL, &comm));
    if (t->rank == 0)
        T_CHECK(strstr(tutti_last_error(), "1000 KiB at most: raise `ulimit -f`"), "%s",
                tutti_last_error());
    t_check_holdings(&before, 3, "after a failed creation");
    setrlimit(RLIMIT_FSIZE, &old);
    T_OK(t_comm_create(t, 3, NULL, &comm));
    setrlimit(RLIMIT_FSIZE, &tight);
    T_IS(TUTTI_E_MEMORY, tutti_mem_alloc(comm, 2 << 20, &p));
    T_CHECK(strstr(tutti_last_error(), "ulimit -f"), "%s", tutti_last_error());
    T_OK(tutti_mem_alloc(comm, 1000 << 10, &p)); /* all that is allowed */
    T_OK(tutti_mem_free(comm, p));
    tutti_comm_destroy(comm);
    setrlimit(RLIMIT_FSIZE, &old);
}

static void a_limit_of_files_is_e_memory(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = small_files};

    (void)state;
    t_run(&job);
}

static void few_descriptors(struct t_rank *t)
{
    const struct t_holdings before = t_holdings_now();
    struct rlimit old, tight;
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm;

    getrlimit(RLIMIT_NOFILE, &old);
    config.timeout_ms = 3000;
    for (unsigned more = 0; more < 6; more++) {
        tight = old;
        tight.rlim_cur = before.fds + more;
        if (t->rank == 1)
            setrlimit(RLIMIT_NOFILE, &tight);
        const tutti_result r = t_comm_create(t, 2 + more, &config, &comm);
        setrlimit(RLIMIT_NOFILE, &old);
        if (r == TUTTI_OK) {
            T_OK(tutti_barrier(comm, NULL));
            tutti_comm_destroy(comm);
        } else if (t->rank == 1) {
            T_CHECK(r == TUTTI_E_SYSTEM, "%s: %s", tutti_result_name(r), tutti_last_error());
        }
        t_meet(t);
        t_check_holdings(&before, 3, "after a creation short of descriptors");
    }
}

static void no_descriptors_is_an_error(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = few_descriptors};

    (void)state;
    t_run(&job);
}

static char cgroup[256];

/* The cgroup holds 256 MiB; the request is for 1 GiB. The kernel would kill, not refuse. */
static void more_than_the_cgroup(struct t_rank *t)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm;
    void *p;

    if (t_cgroup_enter(cgroup) != 0)
        t_skip("cannot enter a memory cgroup: %s", strerror(errno));
    t_meet(t);
    T_OK(t_comm_create(t, 2, NULL, &comm));
    T_IS(TUTTI_E_MEMORY, tutti_mem_alloc(comm, (size_t)1 << 30, &p));
    T_OK(tutti_mem_alloc(comm, 1 << 20, &p));
    T_OK(tutti_mem_free(comm, p));
    tutti_comm_destroy(comm);
    config.scratch_bytes = (uint64_t)1 << 30;
    T_IS(TUTTI_E_MEMORY, t_comm_create(t, 3, &config, &comm));
}

static void more_than_a_cgroup_allows_is_e_memory(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = more_than_the_cgroup};
    char text[4096];

    (void)state;
    if (t_cgroup_create((size_t)256 << 20, cgroup) != 0)
        t_skip("memory cgroups are not permitted here");
    const int failed = t_run_quietly(&job, text, sizeof(text));
    t_cgroup_remove(cgroup);
    if (failed)
        T_FAIL("%s", text);
    if (strncmp(text, "skipped: ", 9) == 0)
        t_skip("%s", text + 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_needs_less_than_16_mib),
        cmocka_unit_test(no_address_space_is_e_memory_on_all_ranks),
        cmocka_unit_test(a_limit_of_files_is_e_memory),
        cmocka_unit_test(no_descriptors_is_an_error),
        cmocka_unit_test(more_than_a_cgroup_allows_is_e_memory),
        cmocka_unit_test(neither_needs_nor_uses_dev_shm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
