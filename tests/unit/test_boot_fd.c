/* Descriptors between ranks: right ones to the right ranks, no leaks, strangers, deaths, limits. */
/* ctest: quick processors=2 tsan */
#include "boot_ranks.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/un.h>

static int n_ranks;
static int n_rounds = 20;
static int die_in_round = -1;
static int late_in_round = -1;
static int other_key_rank = -1;
static int mesh_timeout_ms = 20000;

static tutti_result gather(void *boot, const void *send, void *recv, size_t bytes)
{
    return tt_boot_all_gather(boot, send, recv, bytes);
}

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static int make_memfd(int rank, int round)
{
    int word = rank * 1000 + round;
    int fd = memfd_create("test", MFD_CLOEXEC);

    if (fd < 0 || pwrite(fd, &word, sizeof(word), 0) != sizeof(word))
        return -1;
    return fd;
}

/* Rank r offers nothing in rounds that r divides, so that all mixtures occur. */
static int offers(int rank, int round)
{
    return round % (rank + 1) != 0 || round == 0;
}

static tutti_result check_round(struct tt_fd_mesh *mesh, int rank, int round, uint64_t deadline_ns)
{
    int fds[MAX_PROCESSES];
    int mine = offers(rank, round) ? make_memfd(rank, round) : -1;
    tutti_result result = tt_fd_mesh_exchange(mesh, 1000 + (uint64_t)round, mine, fds, deadline_ns);

    for (int r = 0; result == TUTTI_OK && r < n_ranks; r++) {
        int word = -1;
        int is_expected = r != rank && offers(r, round);

        if ((fds[r] >= 0) != is_expected)
            return TT_FAIL(TUTTI_E_INTERNAL, "round %d: fd %d of rank %d", round, fds[r], r);
        if (!is_expected)
            continue;
        if (pread(fds[r], &word, sizeof(word), 0) != sizeof(word) || word != r * 1000 + round)
            return TT_FAIL(TUTTI_E_INTERNAL, "round %d: %d is not of rank %d", round, word, r);
        if (!(fcntl(fds[r], F_GETFD) & FD_CLOEXEC))
            return TT_FAIL(TUTTI_E_INTERNAL, "not close-on-exec");
        close(fds[r]);
    }
    if (mine >= 0)
        close(mine);
    return result;
}

static tutti_result use_mesh(struct job *job, struct tt_boot *boot, int rank)
{
    struct tt_exchange exchange = {.rank = rank, .n_ranks = n_ranks, .all_gather = gather};
    struct tt_fd_mesh *mesh = NULL;
    unsigned char key[32];
    tutti_result result;

    exchange.context = boot;
    exchange.deadline_ns = tt_now_ns() + (uint64_t)mesh_timeout_ms * MS;
    memset(key, rank == other_key_rank ? 8 : 7, sizeof(key));
    result = tt_fd_mesh_open(&exchange, key, &mesh);
    for (int r = 0; result == TUTTI_OK && r < n_ranks; r++) {
        if (tt_fd_mesh_peer(mesh, r)->uid != (int)getuid() || tt_fd_mesh_peer(mesh, r)->pid <= 0)
            result = TT_FAIL(TUTTI_E_INTERNAL, "credentials of rank %d", r);
    }
    for (int round = 0; result == TUTTI_OK && round < n_rounds; round++) {
        if (round == die_in_round && rank == n_ranks - 1) {
            atomic_store(&job->stage, 1);
            sleep_ms(100);
            raise(SIGKILL);
        }
        if (round == late_in_round && rank == n_ranks - 1)
            sleep_ms(1000);
        if (round > 0)
            sleep_ms(atomic_load(&job->abort)); /* time for strangers */
        result = check_round(mesh, rank, round, exchange.deadline_ns);
    }
    tt_fd_mesh_close(mesh);
    return result;
}

/* Rank 2 has offered to all when it goes, and rank 1, which comes after that, cannot offer to it; but it can to
 * rank 0, which lacks nothing else and must not wait until the deadline. */
static tutti_result lose_one(struct job *job, struct tt_boot *boot, int rank)
{
    struct tt_exchange exchange = {.rank = rank, .n_ranks = n_ranks, .all_gather = gather};
    struct tt_fd_mesh *mesh = NULL;
    unsigned char key[32] = {7};
    tutti_result result;
    int fds[MAX_PROCESSES];

    exchange.context = boot;
    exchange.deadline_ns = tt_now_ns() + (uint64_t)mesh_timeout_ms * MS;
    TT_TRY(tt_fd_mesh_open(&exchange, key, &mesh));
    while (rank == 1 && atomic_load(&job->stage) == 0)
        sleep_ms(1);
    result = tt_fd_mesh_exchange(mesh, 1000, -1, fds, tt_now_ns() + (rank == 2 ? 300 : 5000) * MS);
    if (rank == 2) {
        tt_fd_mesh_close(mesh);
        atomic_store(&job->stage, 1);
        return result == TUTTI_E_TIMEOUT ? TUTTI_OK : TT_FAIL(TUTTI_E_INTERNAL, "not late");
    }
    if (rank == 0)
        atomic_store(&job->stage, 2);
    while (atomic_load(&job->stage) != 2) /* with its name, as if in another step of creation */
        sleep_ms(1);
    tt_fd_mesh_close(mesh);
    if (rank == 0)
        return result;
    return result == TUTTI_E_PEER && strstr(tt_error_text(), "rank 2 ") != NULL
               ? TUTTI_OK
               : TT_FAIL(TUTTI_E_INTERNAL, "rank 1 is told %d: %s", result, tt_error_text());
}

static tutti_result (*use)(struct job *job, struct tt_boot *boot, int rank) = use_mesh;

static tutti_result share(struct job *job, int rank)
{
    struct tt_boot_args args = {.rank = rank, .n_ranks = n_ranks};
    struct tt_boot *boot = NULL;

    args.deadline_ns = tt_now_ns() + 20000 * MS;
    TT_TRY(job_id(job, rank, "s", &args.id));
    TT_TRY(tt_boot_open(&args, &boot));
    tutti_result result = use(job, boot, rank);

    tt_boot_close(boot);
    return result;
}

static tutti_result be_sharing(struct job *job, int rank)
{
    int before = count_fds();
    tutti_result result = share(job, rank);

    if (result == TUTTI_OK && count_fds() != before)
        return TT_FAIL(TUTTI_E_INTERNAL, "%d descriptors became %d", before, count_fds());
    return result;
}

static void test_eight_processes(void **state)
{
    (void)state;
    n_ranks = 8;
    job_expect(job_play("", n_ranks, be_sharing), n_ranks, TUTTI_OK, NULL, 0);
}

/* One datagram to `name`, with descriptors, from a socket of nobody's. */
static void inject(int fd, const char *name, int bytes, int n_fds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned char data[128];
    struct iovec iov = {.iov_base = data, .iov_len = (size_t)bytes};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
    struct msghdr message = {.msg_name = &address, .msg_iov = &iov, .msg_iovlen = 1};
    size_t n = strlen(name);

    memcpy(address.sun_path + 1, name, n);
    message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
    memset(data, 0x5a, sizeof(data));
    memcpy(data, "tutti-fd", 8); /* what a look at the source tells anybody */
    data[9] = 2;
    data[11] = (unsigned char)n_fds;
    memset(control, 0, sizeof(control));
    if (n_fds > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
        for (int i = 0; i < n_fds; i++)
            memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &fd, sizeof(int));
    }
    (void)!sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Find the ranks' sockets as any user can, and write to them until the job is over. */
static tutti_result be_stranger(struct job *job, int rank)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int n = 0;

    (void)rank;
    while (!atomic_load(&job->stage)) {
        FILE *file = fopen("/proc/net/unix", "re");
        char line[300];

        while (file && fgets(line, sizeof(line), file)) {
            char *at = strstr(line, "@tutti-");

            if (!at)
                continue;
            at[strcspn(at, "\n")] = 0;
            if (strlen(at) != 7 + 32)
                continue;
            inject(fd, at + 1, 64, n % 3);
            inject(fd, at + 1, n % 128, 16);
            atomic_fetch_add(&job->n_here, 2);
            n++;
        }
        if (file)
            fclose(file);
    }
    close(fd);
    return TUTTI_OK;
}

static void test_strangers_write(void **state)
{
    struct job *job = job_new("");

    (void)state;
    n_ranks = 8;
    atomic_store(&job->abort, 5); /* ms between rounds */
    for (int rank = 0; rank < n_ranks; rank++)
        job_add(job, rank, be_sharing);
    int stranger = job_add(job, 0, be_stranger);

    for (int i = 0; i < n_ranks; i++) {
        while (waitpid(job->pids[i], NULL, 0) < 0 && errno == EINTR)
            ;
    }
    atomic_store(&job->stage, 1);
    while (waitpid(job->pids[stranger], NULL, 0) < 0 && errno == EINTR)
        ;
    assert_true(atomic_load(&job->n_here) > 100);
    print_message("%d messages of strangers dropped\n", atomic_load(&job->n_here));
    job_expect(job, n_ranks, TUTTI_OK, NULL, 0);
}

static void test_killed_while_sharing(void **state)
{
    (void)state;
    n_ranks = 4;
    die_in_round = 7;
    job_expect(job_play("", n_ranks, be_sharing), 3, TUTTI_E_PEER, "rank 3", 3);
    die_in_round = -1;
}

/* 64 ranks of an ordinary user with the usual limit: too many descriptors under way for the kernel. */
static tutti_result be_ordinary(struct job *job, int rank)
{
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return TT_FAIL_SYS("setrlimit");
    if (geteuid() == 0 &&
        (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        return TT_FAIL_SYS("setresuid");
    return be_sharing(job, rank);
}

static void test_sixty_four_with_usual_limit(void **state)
{
    (void)state;
    n_ranks = 64;
    n_rounds = 5;
    job_expect(job_play("", n_ranks, be_ordinary), n_ranks, TUTTI_OK, NULL, 0);
    n_rounds = 20;
}

struct member {
    struct job *job;
    int rank;
    tutti_result result;
    char text[512];
};

static void *be_thread(void *context)
{
    struct member *m = context;

    m->result = share(m->job, m->rank);
    snprintf(m->text, sizeof(m->text), "%s", tt_error_text());
    return NULL;
}

static void test_threads(void **state)
{
    struct job *job = job_new("");
    struct member members[8];
    pthread_t threads[8];
    int before = count_fds();

    (void)state;
    n_ranks = 8;
    for (int i = 0; i < 8; i++) {
        members[i] = (struct member){.job = job, .rank = i};
        assert_int_equal(pthread_create(&threads[i], NULL, be_thread, &members[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        if (members[i].result != TUTTI_OK)
            fail_msg("rank %d: %s", i, members[i].text);
    }
    assert_int_equal(count_fds(), before);
    job_free(job);
}

/* A rank of another user is told apart, by name, on both sides. */
static tutti_result be_mixed(struct job *job, int rank)
{
    if (rank == 2 && setresuid(65534, 65534, 65534) != 0)
        return TT_FAIL_SYS("setresuid");
    return be_sharing(job, rank);
}

static void test_ranks_of_two_users(void **state)
{
    char address[96];

    (void)state;
    if (geteuid() != 0) {
        print_message("another user is not tested: only root can become one\n");
        return;
    }
    free_address(AF_INET, address, sizeof(address));
    n_ranks = 4;
    job_expect(job_play(address, n_ranks, be_mixed), n_ranks, TUTTI_E_AUTH, "rank 2", 3);
}

/* Another key is a stranger: nothing of it is believed, and at the deadline it is missing. This is
 * also the proof that the checks above could fail. */
static void test_other_key_is_not_believed(void **state)
{
    struct job *job;

    (void)state;
    n_ranks = 3;
    other_key_rank = 2;
    mesh_timeout_ms = 500;
    job = job_play("", n_ranks, be_sharing);
    expect(job, 2, TUTTI_E_TIMEOUT, "did not share its memory before the deadline");
    job_expect(job, 2, TUTTI_E_TIMEOUT, "rank 2 (process", 0);
    other_key_rank = -1;
}

static void test_late_rank_is_named(void **state)
{
    (void)state;
    n_ranks = 3;
    late_in_round = 4;
    mesh_timeout_ms = 500;
    job_expect(job_play("", n_ranks, be_sharing), 2, TUTTI_E_TIMEOUT, "rank 2 (process", 0);
    late_in_round = -1;
    mesh_timeout_ms = 20000;
}

static void test_who_finds_one_gone_serves_the_others(void **state)
{
    (void)state;
    n_ranks = 3;
    use = lose_one;
    job_expect(job_play("", n_ranks, be_sharing), n_ranks, TUTTI_OK, NULL, 0);
    use = use_mesh;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads), /* first: ThreadSanitizer does not follow forks well */
        cmocka_unit_test(test_eight_processes),
        cmocka_unit_test(test_strangers_write),
        cmocka_unit_test(test_killed_while_sharing),
        cmocka_unit_test(test_sixty_four_with_usual_limit),
        cmocka_unit_test(test_ranks_of_two_users),
        cmocka_unit_test(test_other_key_is_not_believed),
        cmocka_unit_test(test_late_rank_is_named),
        cmocka_unit_test(test_who_finds_one_gone_serves_the_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
