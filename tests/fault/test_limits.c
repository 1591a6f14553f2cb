/* ctest: timeout=180 */
/* Creation and registration where the system gives too little: descriptors, address space, /proc.
 * On whichever rank it happens: an error or success on each, never a crash, nothing kept. */
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/job.h"
#include "support/proc.h"

enum { MORE_FDS = 10, AS_STEPS = 24, AS_STEP = 256 << 10, BYTES = 1000000 };
enum { PATIENCE_MS = 20000 }; /* where a late rank would be a failure */

static void limit(int what, rlim_t value)
{
    struct rlimit r;

    T_SYS(getrlimit(what, &r));
    r.rlim_cur = value < r.rlim_max ? value : r.rlim_max;
    T_SYS(setrlimit(what, &r));
}

static tutti_result create_patient(struct t_rank *t, uint64_t key, uint64_t timeout_ms,
                                   tutti_comm **comm_out)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;

    config.timeout_ms = timeout_ms * t_scale();
    *comm_out = NULL;
    return t_comm_create(t, key, &config, comm_out);
}

static tutti_result create(struct t_rank *t, uint64_t key, tutti_comm **comm_out)
{
    return create_patient(t, key, 3000, comm_out);
}

static void check_error(struct t_rank *t, tutti_result result, int limited)
{
    T_CHECK(result == TUTTI_OK || *tutti_last_error(), "%s without a text",
            tutti_result_name(result));
    if (limited)
        T_CHECK(result == TUTTI_OK || result == TUTTI_E_SYSTEM || result == TUTTI_E_MEMORY ||
                    result == TUTTI_E_PEER || result == TUTTI_E_UNSUPPORTED,
                "rank %d: %s: %s", t->rank, tutti_result_name(result), tutti_last_error());
    if (getenv("T_VERBOSE") && result != TUTTI_OK)
        fprintf(stderr, "rank %d%s: %s: %s\n", t->rank, limited ? " (limited)" : "",
                tutti_result_name(result), tutti_last_error());
}

static void use_and_destroy(struct t_rank *t, tutti_comm *comm)
{
    int x = 1;

    T_OK(tutti_all_reduce(comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    T_CHECK(x == t->n_ranks, "sum %d", x);
    T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

/* The ranks in `who` (bits) get a limit, all try to create, and hold afterwards what they held. */
static void create_within(struct t_rank *t, int what, rlim_t value, unsigned who, uint64_t key)
{
    const int limited = (int)(who >> t->rank & 1);
    const struct t_holdings before = t_holdings_now();
    struct rlimit old;
    tutti_result result;
    tutti_comm *comm;

    T_SYS(getrlimit(what, &old));
    if (limited)
        limit(what, value);
    result = create(t, key, &comm);
    T_SYS(setrlimit(what, &old));
    check_error(t, result, limited);
    if (result == TUTTI_OK) /* a peer may have failed after this rank was done */
        tutti_comm_destroy(comm);
    t_meet(t);
    t_check_holdings(&before, 3, "after a creation under a limit");
    t_meet(t);
}

/* RLIMIT_NOFILE is a bound of the numbers: at the lowest free one nothing more can be opened. */
static rlim_t lowest_free_fd(void)
{
    const int fd = dup(0);

    T_SYS(fd);
    close(fd);
    return (rlim_t)fd;
}

static void few_descriptors(struct t_rank *t)
{
    tutti_comm *comm;
    uint64_t key = 1;

    T_OK(create(t, key++, &comm)); /* what the first one keeps for good */
    use_and_destroy(t, comm);
    for (unsigned who = 1; who < 4; who++)
        for (unsigned more = 0; more <= MORE_FDS; more++)
            create_within(t, RLIMIT_NOFILE, lowest_free_fd() + more, who, key++);
    T_OK(create(t, key, &comm));
    use_and_destroy(t, comm);
}

static void little_address_space(struct t_rank *t)
{
    const rlim_t now = (rlim_t)t_memory_kib("/proc/self/status", "VmSize:") << 10;
    tutti_comm *comm;
    uint64_t key = 1;

    T_OK(create(t, key++, &comm));
    use_and_destroy(t, comm);
    for (unsigned who = 1; who < 4; who++)
        for (rlim_t i = 0; i < AS_STEPS; i++)
            create_within(t, RLIMIT_AS, now + (i << 20) - (1 << 20), who, key++);
    T_OK(create(t, key, &comm));
    use_and_destroy(t, comm);
}

/* How often memory and windows were had under a limit, and how often not. */
struct tally {
    unsigned n_good[2], n_failed[2];
};

static void count(struct tally *tally, int what, tutti_result result)
{
    tally->n_good[what] += result == TUTTI_OK;
    tally->n_failed[what] += result != TUTTI_OK;
}

/* Registration is collective: all ranks succeed or none does. */
static void check_alike(struct t_rank *t, tutti_result result)
{
    int *good = (int *)(void *)t->shared;

    good[t->rank] = result == TUTTI_OK;
    t_meet(t);
    for (int r = 0; r < t->n_ranks; r++)
        T_CHECK(good[r] == good[t->rank], "register: rank %d %s, but rank %d: %s", r,
                good[r] ? "succeeded" : "failed", t->rank, tutti_result_name(result));
    t_meet(t);
}

/* Windows and memory of a communicator that exists, which is still good afterwards. */
static void windows_within(struct t_rank *t, tutti_comm *comm, int what, rlim_t value, unsigned who,
                           struct tally *tally)
{
    const int limited = (int)(who >> t->rank & 1);
    const struct t_holdings before = t_holdings_now();
    unsigned char *mine = calloc(1, BYTES);
    tutti_result of_memory, of_window;
    tutti_window *w = NULL;
    struct rlimit old;
    void *p = NULL;

    T_CHECK(mine, "no memory");
    T_SYS(getrlimit(what, &old));
    t_meet(t);
    if (limited)
        limit(what, value);
    of_memory = tutti_mem_alloc(comm, BYTES, &p);
    check_error(t, of_memory, limited);
    of_window = tutti_window_register(comm, mine, BYTES, &w);
    check_error(t, of_window, limited);
    T_SYS(setrlimit(what, &old));
    T_CHECK((of_window == TUTTI_OK) == (w != NULL), "%s with window %p",
            tutti_result_name(of_window), (void *)w);
    T_CHECK(limited || of_memory == TUTTI_OK, "%s without a limit", tutti_result_name(of_memory));
    check_alike(t, of_window);
    count(tally, 0, of_memory);
    count(tally, 1, of_window);
    if (of_window == TUTTI_OK)
        T_OK(tutti_window_deregister(comm, w));
    if (of_memory == TUTTI_OK)
        T_OK(tutti_mem_free(comm, p));
    T_OK(tutti_barrier(comm, NULL));
    free(mine);
    t_meet(t);
    t_check_holdings(&before, 8, "after a registration under a limit");
    t_meet(t);
}

static void check_both_seen(const struct tally *tally)
{
    static const char *const names[] = {"tutti_mem_alloc", "tutti_window_register"};

    for (int i = 0; i < 2; i++)
        T_CHECK(tally->n_good[i] > 0 && tally->n_failed[i] > 0,
                "%s succeeded %u times and failed %u times: the limits prove nothing", names[i],
                tally->n_good[i], tally->n_failed[i]);
}

static void few_descriptors_for_windows(struct t_rank *t)
{
    struct tally tally = {{0}, {0}};
    tutti_comm *comm;

    T_OK(create(t, 1, &comm));
    windows_within(t, comm, RLIMIT_NOFILE, 1000, 0, &tally);
    for (unsigned who = 1; who < 4; who++)
        for (unsigned more = 0; more <= MORE_FDS; more++)
            windows_within(t, comm, RLIMIT_NOFILE, lowest_free_fd() + more, who, &tally);
    check_both_seen(&tally);
    use_and_destroy(t, comm);
}

/* A buffer that begins on the last page of a registered one has two parts, and goes round twice: a rank that
 * can take no descriptor in the first round is waited for in the second. */
static void few_descriptors_for_parts(struct t_rank *t)
{
    const size_t first = 10 * 4096 + 100;
    unsigned n_good = 0, n_failed = 0;
    unsigned char *p =
        mmap(NULL, 32 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tutti_window *whole, *w;
    tutti_result result;
    struct rlimit old;
    tutti_comm *comm;

    T_CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
    T_OK(create_patient(t, 1, PATIENCE_MS, &comm));
    T_OK(tutti_window_register(comm, p, first, &whole));
    T_SYS(getrlimit(RLIMIT_NOFILE, &old));
    for (unsigned more = 0; more <= MORE_FDS; more++) {
        if (t->rank == 1)
            limit(RLIMIT_NOFILE, lowest_free_fd() + more);
        result = tutti_window_register(comm, p + first + 100, first, &w);
        check_error(t, result, 1);
        T_SYS(setrlimit(RLIMIT_NOFILE, &old));
        check_alike(t, result);
        if (result == TUTTI_OK)
            T_OK(tutti_window_deregister(comm, w));
        else
            T_CONTAINS(tutti_last_error(), t->rank == 1 ? "" : "rank 1");
        T_OK(tutti_barrier(comm, NULL));
        n_good += result == TUTTI_OK;
        n_failed += result != TUTTI_OK;
    }
    T_CHECK(n_good > 0 && n_failed > 0, "%u succeeded, %u failed", n_good, n_failed);
    T_OK(tutti_window_deregister(comm, whole));
    use_and_destroy(t, comm);
}

static void little_address_space_for_windows(struct t_rank *t)
{
    struct tally tally = {{0}, {0}};
    tutti_comm *comm;

    T_OK(create(t, 1, &comm));
    windows_within(t, comm, RLIMIT_AS, RLIM_INFINITY, 0, &tally);
    for (unsigned who = 1; who < 4; who++)
        for (rlim_t i = 0; i < AS_STEPS; i++) {
            const rlim_t now = (rlim_t)t_memory_kib("/proc/self/status", "VmSize:") << 10;

            windows_within(t, comm, RLIMIT_AS, now + i * AS_STEP, who, &tally);
        }
    check_both_seen(&tally);
    use_and_destroy(t, comm);
}

/* All ranks have the part or none has, and those that are not to blame say who is. The whole is as good as
 * before: it is divided again at once. */
static void split_within(struct t_rank *t, tutti_comm *whole, int what, rlim_t value, unsigned who,
                         struct tally *tally)
{
    const struct t_holdings before = t_holdings_now();
    tutti_comm *part = NULL;
    tutti_result result;
    struct rlimit old;

    T_SYS(getrlimit(what, &old));
    t_meet(t);
    if (who >> t->rank & 1)
        limit(what, value);
    result = tutti_comm_split(whole, 0, 0, &part);
    T_SYS(setrlimit(what, &old));
    check_error(t, result, 1);
    T_CHECK((result == TUTTI_OK) == (part != NULL), "%s with part %p", tutti_result_name(result),
            (void *)part);
    check_alike(t, result);
    count(tally, 0, result);
    if (result == TUTTI_OK) {
        use_and_destroy(t, part);
    } else {
        T_CHECK(result != TUTTI_E_PEER, "rank %d: %s", t->rank, tutti_last_error());
        if (!(who >> t->rank & 1))
            T_CHECK(strstr(tutti_last_error(), "rank 0") || strstr(tutti_last_error(), "rank 1"),
                    "rank %d: nobody is named: %s", t->rank, tutti_last_error());
        T_OK(tutti_barrier(whole, NULL));
    }
    t_meet(t);
    t_check_holdings(&before, 8, "after a split under a limit");
    t_meet(t);
}

static void end_of_splits(struct t_rank *t, tutti_comm *whole, const struct tally *tally)
{
    tutti_comm *part;

    T_CHECK(tally->n_good[0] > 0 && tally->n_failed[0] > 0, "%u succeeded, %u failed",
            tally->n_good[0], tally->n_failed[0]);
    T_OK(tutti_comm_split(whole, 0, 0, &part));
    use_and_destroy(t, part);
    use_and_destroy(t, whole);
}

static void few_descriptors_for_splits(struct t_rank *t)
{
    struct tally tally = {{0}, {0}};
    tutti_comm *whole;

    T_OK(create_patient(t, 1, PATIENCE_MS, &whole));
    split_within(t, whole, RLIMIT_NOFILE, 1000, 0, &tally);
    for (unsigned who = 1; who < 4; who++)
        for (unsigned more = 0; more <= MORE_FDS; more++)
            split_within(t, whole, RLIMIT_NOFILE, lowest_free_fd() + more, who, &tally);
    end_of_splits(t, whole, &tally);
}

static void little_address_space_for_splits(struct t_rank *t)
{
    struct tally tally = {{0}, {0}};
    tutti_comm *whole;

    T_OK(create_patient(t, 1, PATIENCE_MS, &whole));
    split_within(t, whole, RLIMIT_AS, RLIM_INFINITY, 0, &tally);
    for (unsigned who = 1; who < 4; who++)
        for (rlim_t i = 0; i < AS_STEPS; i++) {
            const rlim_t now = (rlim_t)t_memory_kib("/proc/self/status", "VmSize:") << 10;

            split_within(t, whole, RLIMIT_AS, now + (i << 20), who, &tally);
        }
    end_of_splits(t, whole, &tally);
}

/* All that the allocator has left where the address space cannot grow, but for less than `least` bytes, in a list. */
static struct taken {
    struct taken *next;
} * all_taken;

static void take_memory(size_t least)
{
    for (size_t bytes = (size_t)1 << 30; bytes >= least; bytes /= 2) {
        struct taken *taken;

        while ((taken = malloc(bytes)) != NULL) {
            taken->next = all_taken;
            all_taken = taken;
        }
    }
}

static void give_memory(void)
{
    while (all_taken != NULL) {
        struct taken *taken = all_taken;

        all_taken = taken->next;
        free(taken);
    }
}

/* One of three has no memory at all, not even for what a split begins with. It says so, and all hear of it in time. */
static void no_memory_for_splits(struct t_rank *t)
{
    tutti_comm *whole, *part;
    tutti_result result;
    struct rlimit old;

    T_SYS(getrlimit(RLIMIT_AS, &old));
    T_OK(create_patient(t, 1, PATIENCE_MS, &whole));
    T_OK(tutti_comm_split(whole, 0, 0, &part)); /* the stack will not have to grow any more */
    use_and_destroy(t, part);
    for (int who = 0; who < t->n_ranks; who++) {
        char want[64];

        snprintf(want, sizeof(want), who == t->rank ? "no memory for 3 members" : "rank %d of ",
                 who);
        t_meet(t);
        if (t->rank == who) {
            limit(RLIMIT_AS, 0);
            take_memory(sizeof(struct taken));
        }
        result = tutti_comm_split(whole, 0, 0, &part);
        give_memory();
        T_SYS(setrlimit(RLIMIT_AS, &old));
        T_CHECK(result == TUTTI_E_MEMORY, "rank %d: %s: %s", t->rank, tutti_result_name(result),
                tutti_last_error());
        T_CONTAINS(tutti_last_error(), want);
        T_OK(tutti_comm_split(whole, t->rank == who, 0, &part));
        T_OK(tutti_barrier(part, NULL));
        tutti_comm_destroy(part);
    }
    use_and_destroy(t, whole);
}

/* An id is for one communicator: if that cannot even begin, nothing listens for it any more. */
static void no_memory_for_an_id(struct t_rank *t)
{
    static const size_t least[] = {sizeof(struct taken), 16 << 10}; /* too little for 1024 ranks */

    for (size_t i = 0; i < T_LEN(least); i++) {
        const struct t_holdings before = t_holdings_now();
        tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
        struct rlimit old;
        tutti_unique_id id;
        tutti_comm *comm;
        tutti_result result;

        T_SYS(getrlimit(RLIMIT_AS, &old));
        T_OK(tutti_unique_id_create(&id));
        config.rank = t->rank;
        config.n_ranks = 1024;
        config.id = &id;
        config.timeout_ms = 1000;
        limit(RLIMIT_AS, 0);
        take_memory(least[i]);
        result = tutti_comm_create(&config, &comm);
        give_memory();
        T_SYS(setrlimit(RLIMIT_AS, &old));
        T_CHECK(result == TUTTI_E_MEMORY, "%s: %s", tutti_result_name(result), tutti_last_error());
        T_CONTAINS(tutti_last_error(), i == 0 ? "no memory" : "the rendezvous of 1024 ranks");
        t_check_holdings(&before, 8, "after a creation without memory");
    }
}

/* Without /proc nothing can be reopened: the error says so, on the rank itself. */
static void no_proc(struct t_rank *t)
{
    tutti_result result;
    tutti_comm *comm;

    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/proc", "tmpfs", 0, "size=4k") != 0)
        t_skip("cannot hide /proc: %s", strerror(errno));
    result = create(t, 1, &comm);
    T_CHECK(result == TUTTI_E_SYSTEM, "%s: %s", tutti_result_name(result), tutti_last_error());
    T_CONTAINS(tutti_last_error(), "/proc");
    T_SYS(umount("/proc"));
    T_OK(create(t, 2, &comm));
    use_and_destroy(t, comm);
}

static void play(int n_ranks, void (*body)(struct t_rank *t))
{
    const struct t_job job = {
        .n_ranks = n_ranks, .no_comm = 1, .body = body, .boot = T_BOOT_EXCHANGE, .limit_s = 120};
    static char text[8192];

    if (t_run_quietly(&job, text, sizeof(text)))
        T_FAIL("%s", text);
    if (strncmp(text, "skipped: ", 9) == 0)
        t_skip("%s", text + 9);
}

static void creation_with_few_descriptors(void **state)
{
    (void)state;
    play(2, few_descriptors);
}

static void creation_with_little_address_space(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    t_skip("sanitizers need the address space");
#endif
    play(2, little_address_space);
}

static void windows_with_few_descriptors(void **state)
{
    (void)state;
    play(2, few_descriptors_for_windows);
}

static void windows_of_parts_with_few_descriptors(void **state)
{
    (void)state;
    play(2, few_descriptors_for_parts);
}

static void windows_with_little_address_space(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    t_skip("sanitizers need the address space");
#endif
    play(2, little_address_space_for_windows);
}

static void splits_with_few_descriptors(void **state)
{
    (void)state;
    play(3, few_descriptors_for_splits);
}

static void splits_with_little_address_space(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    t_skip("sanitizers need the address space");
#endif
    play(3, little_address_space_for_splits);
}

static void splits_without_memory(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    t_skip("sanitizers need the address space");
#endif
    play(3, no_memory_for_splits);
}

static void an_id_without_memory(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    t_skip("sanitizers need the address space");
#endif
    play(1, no_memory_for_an_id);
}

static void creation_without_proc(void **state)
{
    (void)state;
    play(2, no_proc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creation_with_few_descriptors),
        cmocka_unit_test(creation_with_little_address_space),
        cmocka_unit_test(windows_with_few_descriptors),
        cmocka_unit_test(windows_of_parts_with_few_descriptors),
        cmocka_unit_test(windows_with_little_address_space),
        cmocka_unit_test(splits_with_few_descriptors),
        cmocka_unit_test(splits_with_little_address_space),
        cmocka_unit_test(splits_without_memory),
        cmocka_unit_test(an_id_without_memory),
        cmocka_unit_test(creation_without_proc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
