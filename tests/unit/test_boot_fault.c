/* The rendezvous when it cannot come to be: everybody is told, soon, and in words that help. */
/* ctest: quick processors=2 */
#include "boot_ranks.h"
#include "boot/boot_socket.h"
#include "boot/boot_wire.h"

static int n_ranks;
static int timeout_ms;

static tutti_result be_rank_of(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, n_ranks, timeout_ms, "s", &boot);

    if (result == TUTTI_OK)
        result = gather_checked(boot, rank, n_ranks, 0, 64);
    tt_boot_close(boot);
    return result;
}

static struct job *job_at_port(void)
{
    char address[96];

    free_address(AF_INET, address, sizeof(address));
    return job_new(address);
}

static void test_missing_ranks_are_named(void **state)
{
    static const int there[] = {0, 1, 2, 4};
    struct job *job = job_at_port();
    char part[256];

    (void)state;
    n_ranks = 8;
    timeout_ms = 400;
    for (int i = 0; i < 4; i++)
        job_add(job, there[i], be_rank_of);
    job_wait(job);
    snprintf(part, sizeof(part), "ranks 3, 5-7 of 8 did not join %s within 0.", job->address);
    for (int i = 0; i < 4; i++) {
        expect(job, i, TUTTI_E_TIMEOUT, part);
        assert_true(job->outcomes[i].seconds > 0.3 && job->outcomes[i].seconds < 2);
    }
    job_free(job);
}

static tutti_result be_impatient(struct job *job, int rank)
{
    if (rank == 2)
        timeout_ms = 300;
    return be_rank_of(job, rank);
}

static void test_earliest_deadline_ends_it(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 4;
    timeout_ms = 20000;
    for (int rank = 0; rank < 3; rank++)
        job_add(job, rank, be_impatient);
    job_wait(job);
    for (int i = 0; i < 3; i++) {
        expect(job, i, TUTTI_E_TIMEOUT, "rank 3 of 4 did not join");
        assert_true(job->outcomes[i].seconds < 3);
    }
    job_free(job);
}

static void test_rank_0_missing(void **state)
{
    struct job *job = job_at_port();
    char part[256];

    (void)state;
    n_ranks = 3;
    timeout_ms = 300;
    job_add(job, 1, be_rank_of);
    job_add(job, 2, be_rank_of);
    job_wait(job);
    snprintf(part, sizeof(part),
             "rank 1 could not join rank 0 at %s within 0.3 s: Connection refused", job->address);
    expect(job, 0, TUTTI_E_TIMEOUT, part);
    expect(job, 1, TUTTI_E_TIMEOUT, "does rank 0 run");
    job_free(job);
}

/* The id is made, but rank 0 does not come. */
static tutti_result make_id_only(struct job *job, int rank)
{
    tutti_unique_id id;

    if (rank > 0)
        return be_rank_of(job, rank);
    tutti_result result = job_id(job, rank, "s", &id);

    sleep_ms(600);
    return result;
}

static void test_rank_0_listens_but_does_not_come(void **state)
{
    struct job *job = job_new("");

    (void)state;
    n_ranks = 2;
    timeout_ms = 300;
    job_add(job, 0, make_id_only);
    job_add(job, 1, make_id_only);
    job_wait(job);
    expect(job, 1, TUTTI_E_TIMEOUT, "has rank 0 called tutti_comm_create()?");
    job_free(job);
}

static tutti_result with_wrong_secret(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result =
        open_boot(job, rank, n_ranks, timeout_ms, rank == 1 ? "wrong" : "s", &boot);

    tt_boot_close(boot);
    return result;
}

static void test_wrong_secret(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 3;
    timeout_ms = 500;
    for (int rank = 0; rank < 3; rank++)
        job_add(job, rank, with_wrong_secret);
    job_wait(job);
    expect(job, 0, TUTTI_E_TIMEOUT, "rank 1 of 3 did not join");
    expect(job, 0, TUTTI_E_TIMEOUT, "connections with another secret");
    expect(job, 1, TUTTI_E_AUTH, "has another secret");
    expect(job, 2, TUTTI_E_TIMEOUT, "rank 1 of 3 did not join");
    job_free(job);
}

static void test_two_claim_one_rank(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 4;
    timeout_ms = 10000;
    job_add(job, 0, be_rank_of);
    job_add(job, 1, be_rank_of);
    sleep_ms(100);
    job_add(job, 2, be_rank_of);
    sleep_ms(100);
    job_add(job, 2, be_rank_of);
    job_wait(job);
    for (int i = 0; i < 4; i++) {
        expect(job, i, TUTTI_E_ARG, "both claim rank 2");
        assert_true(job->outcomes[i].seconds < 3);
    }
    job_free(job);
}

static tutti_result with_other_n_ranks(struct job *job, int rank)
{
    if (rank == 2)
        n_ranks = 5;
    return be_rank_of(job, rank);
}

static void test_n_ranks_differ(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 4;
    timeout_ms = 10000;
    for (int rank = 0; rank < 2; rank++)
        job_add(job, rank, with_other_n_ranks);
    sleep_ms(100);
    job_add(job, 2, with_other_n_ranks);
    job_wait(job);
    expect(job, 0, TUTTI_E_ARG, "was told n_ranks 5, rank 0 n_ranks 4");
    expect(job, 1, TUTTI_E_ARG, "was told n_ranks 5, rank 0 n_ranks 4");
    expect(job, 2, TUTTI_E_ARG, "was told n_ranks 5, rank 0 (process");
    job_free(job);
}

/* A joiner by hand, as far as the welcome. */
static tutti_result join_by_hand(struct job *job, int rank, uint32_t version,
                                 enum tt_wire_status status)
{
    struct tt_boot_address address;
    struct tt_boot_endpoint endpoint;
    uint16_t port;
    tutti_unique_id id;
    unsigned char key[32];
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES];
    unsigned char out[TT_WIRE_PROOF_BYTES];
    unsigned char in[TT_WIRE_WELCOME_BYTES];
    struct tt_wire_proof proof = {.version = version, .n_ranks = (uint32_t)n_ranks};
    struct tt_wire_welcome welcome;
    unsigned char tag[TT_WIRE_TAG_BYTES];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    sleep_ms(200);
    tt_boot_address_parse(job->address, &address, &port);
    tt_boot_address_resolve(&address, port, &endpoint, 1);
    tt_boot_id_from_address(job->address, "s", &id);
    if (connect(fd, (struct sockaddr *)&endpoint.address, endpoint.bytes) != 0 ||
        recv(fd, challenge, sizeof(challenge), MSG_WAITALL) != sizeof(challenge))
        return TT_FAIL_SYS("connect");
    proof.rank = (uint32_t)rank;
    tt_boot_derive_key(&id, "tutti join", key);
    tt_wire_pack_proof(&proof, out);
    tt_wire_tag_proof(key, challenge, out, proof.tag);
    tt_wire_pack_proof(&proof, out);
    if (send(fd, out, sizeof(out), 0) != sizeof(out) ||
        recv(fd, in, sizeof(in), MSG_WAITALL) != sizeof(in))
        return TT_FAIL_SYS("proof");
    tt_boot_derive_key(&id, "tutti root", key);
    tt_wire_tag_welcome(key, challenge, out, in, tag);
    if (tt_wire_parse_welcome(in, sizeof(in), &welcome) != 0 ||
        memcmp(tag, welcome.tag, sizeof(tag)) != 0 || welcome.status != status)
        return TT_FAIL(TUTTI_E_INTERNAL, "welcome status %u", welcome.status);
    return TUTTI_OK;
}

static tutti_result be_of_next_version(struct job *job, int rank)
{
    return join_by_hand(job, rank, TT_WIRE_VERSION + 1, TT_WIRE_BAD_VERSION);
}

static void test_versions_differ(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 2;
    timeout_ms = 5000;
    job_add(job, 0, be_rank_of);
    job_add(job, 1, be_of_next_version);
    job_wait(job);
    expect(job, 0, TUTTI_E_VERSION, "rank 1");
    expect(job, 1, TUTTI_OK, NULL);
    job_free(job);
}

/* Killed while others are still missing: told at once, not at the deadline. */
static void kill_one(int victim)
{
    struct job *job = job_at_port();
    struct job_times from;
    char part[64];

    n_ranks = 5;
    timeout_ms = 20000;
    for (int rank = 0; rank < 4; rank++)
        job_add(job, rank, be_rank_of);
    sleep_ms(300);
    from = job_times(job);
    kill(job->pids[victim], SIGKILL);
    job_wait(job);
    expect_soon(job, &from, victim, 1000);
    snprintf(part, sizeof(part), "rank %d", victim);
    for (int i = 0; i < 4; i++) {
        if (i != victim)
            expect(job, i, TUTTI_E_PEER, part);
    }
    job_free(job);
}

static void test_killed_while_joining(void **state)
{
    (void)state;
    kill_one(2);
    kill_one(0);
}

/* A rank that comes after that hears who it was, if it comes soon enough; which a busy machine may prevent. */
static tutti_result come_at_stage_1(struct job *job, int rank)
{
    while (atomic_load(&job->stage) == 0)
        sleep_ms(1);
    return be_rank_of(job, rank);
}

static void test_late_rank_is_told_of_a_death(void **state)
{
    int n_told = 0;

    (void)state;
    n_ranks = 4;
    timeout_ms = 3000;
    for (int attempt = 0; attempt < 10 && n_told == 0; attempt++) {
        struct job *job = job_at_port();

        job_add(job, 0, be_rank_of);
        job_add(job, 1, be_rank_of);
        job_add(job, 2, come_at_stage_1);
        sleep_ms(300);
        kill(job->pids[1], SIGKILL);
        sleep_ms(20);
        atomic_store(&job->stage, 1);
        job_wait(job);
        expect(job, 0, TUTTI_E_PEER, "rank 1 (process");
        n_told += strstr(job->outcomes[2].text, "rank 1 (process") != NULL;
        job_free(job);
    }
    assert_int_equal(n_told, 1);
}

/* Killed when rank 0 has let it in, and before it has said that it knows: it may come back, but not for long. */
static tutti_result die_when_let_in(struct job *job, int rank)
{
    TT_TRY(join_by_hand(job, rank, TT_WIRE_VERSION, TT_WIRE_JOINED));
    raise(SIGKILL);
    return TUTTI_OK;
}

static void test_killed_when_let_in(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 3;
    timeout_ms = 20000;
    job_add(job, 0, be_rank_of);
    job_add(job, 1, be_rank_of);
    job_add(job, 2, die_when_let_in);
    job_wait(job);
    for (int i = 0; i < 2; i++) {
        expect(job, i, TUTTI_E_PEER, "rank 2 (process");
        assert_true(job->outcomes[i].seconds < 10);
    }
    job_free(job);
}

/* Killed when all have joined, before the all-gather. */
static tutti_result die_before_gather(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, n_ranks, timeout_ms, "s", &boot);

    if (result != TUTTI_OK)
        return result;
    atomic_fetch_add(&job->n_here, 1);
    if (rank == atomic_load(&job->stage)) {
        while (atomic_load(&job->n_here) < n_ranks)
            sleep_ms(1);
        sleep_ms(100);
        raise(SIGKILL);
    }
    result = gather_checked(boot, rank, n_ranks, 0, 64);
    if (result != TUTTI_OK) { /* and all further calls say the same */
        char first[512];

        snprintf(first, sizeof(first), "%s", tt_error_text());
        TT_FAIL(TUTTI_E_ARG, "something else");
        if (tt_boot_all_gather(boot, NULL, NULL, 0) != result ||
            strncmp(first, tt_error_text(), 300) != 0)
            return TT_FAIL(TUTTI_E_INTERNAL, "the failure did not stay");
    }
    tt_boot_close(boot);
    return result;
}

static void test_killed_before_gather(void **state)
{
    (void)state;
    for (int victim = 0; victim < 4; victim += 3) {
        struct job *job = job_at_port();
        char part[64];

        n_ranks = 4;
        timeout_ms = 20000;
        atomic_store(&job->stage, victim);
        for (int rank = 0; rank < 4; rank++)
            job_add(job, rank, die_before_gather);
        job_wait(job);
        snprintf(part, sizeof(part), "rank %d", victim);
        for (int i = 0; i < 4; i++) {
            if (i != victim) {
                expect(job, i, TUTTI_E_PEER, part);
                assert_true(job->outcomes[i].seconds < 3);
            }
        }
        job_free(job);
    }
}

static tutti_result stay_away(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, n_ranks, timeout_ms, "s", &boot);

    if (result == TUTTI_OK && rank == 2) {
        sleep_ms(1500);
        result = TT_FAIL(TUTTI_E_ARG, "stayed away");
    } else if (result == TUTTI_OK) {
        result = gather_checked(boot, rank, n_ranks, 0, 64);
    }
    tt_boot_close(boot);
    return result;
}

static void test_late_for_gather(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 4;
    timeout_ms = 500;
    for (int rank = 0; rank < 4; rank++)
        job_add(job, rank, stay_away);
    job_wait(job);
    expect(job, 0, TUTTI_E_TIMEOUT, "rank 2 of 4 joined but did not take part in exchange 1");
    expect(job, 1, TUTTI_E_TIMEOUT, "rank 2");
    expect(job, 3, TUTTI_E_TIMEOUT, "rank 2");
    job_free(job);
}

static tutti_result gather_other_bytes(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, n_ranks, timeout_ms, "s", &boot);

    if (result == TUTTI_OK)
        result = gather_checked(boot, rank, n_ranks, 0, rank == 1 ? 63 : 64);
    tt_boot_close(boot);
    return result;
}

static void test_records_differ_in_length(void **state)
{
    struct job *job = job_at_port();

    (void)state;
    n_ranks = 3;
    timeout_ms = 5000;
    for (int rank = 0; rank < 3; rank++)
        job_add(job, rank, gather_other_bytes);
    job_wait(job);
    for (int i = 0; i < 3; i++)
        expect(job, i, TUTTI_E_MISMATCH, "rank 1 is at exchange 1 with 63 bytes");
    job_free(job);
}

/* Only the rank in `stage` looks at the flag. */
static tutti_result abort_one(struct job *job, int rank)
{
    struct tt_boot_args args = {.rank = rank, .n_ranks = n_ranks};
    struct tt_boot *boot = NULL;

    args.deadline_ns = tt_now_ns() + (uint64_t)timeout_ms * MS;
    args.abort = rank == atomic_load(&job->stage) ? &job->abort : NULL;
    TT_TRY(job_id(job, rank, "s", &args.id));
    tutti_result result = tt_boot_open(&args, &boot);

    tt_boot_close(boot);
    return result;
}

static void test_abort(void **state)
{
    (void)state;
    for (int who = 0; who < 2; who++) {
        struct job *job = job_at_port();
        char part[64];

        n_ranks = 4;
        timeout_ms = 20000;
        atomic_store(&job->stage, who);
        for (int rank = 0; rank < 3; rank++)
            job_add(job, rank, abort_one);
        sleep_ms(200);
        const struct job_times from = job_times(job);

        atomic_store(&job->abort, 1);
        job_wait(job);
        expect_soon(job, &from, -1, 500);
        snprintf(part, sizeof(part), "rank %d", who);
        for (int i = 0; i < 3; i++)
            expect(job, i, TUTTI_E_ABORTED, part);
        job_free(job);
    }
}

/* Another process has the address and keeps it. */
static void test_address_in_use(void **state)
{
    char address[96];

    (void)state;
    local_address(address, sizeof(address));
    struct tt_boot_address parsed;
    struct tt_boot_endpoint endpoint;
    uint16_t port;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct job *job = job_new(address);

    assert_int_equal(tt_boot_address_parse(address, &parsed, &port), 0);
    tt_boot_address_resolve(&parsed, port, &endpoint, 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&endpoint.address, endpoint.bytes), 0);
    n_ranks = 2;
    timeout_ms = 200;
    job_add(job, 0, be_rank_of);
    job_wait(job);
    expect(job, 0, TUTTI_E_TIMEOUT, "was in use until the deadline");
    close(fd);
    job_free(job);
}

/* An address that is not of this host may be right where addresses are translated; if nobody comes it is named. */
static void test_address_of_another_host(void **state)
{
    struct job *job;
    char address[64];
    uint16_t port;
    int fd;

    (void)state;
    assert_int_equal(tt_boot_listen_ephemeral(NULL, &fd, &port), TUTTI_OK);
    tt_boot_listener_close(fd);
    snprintf(address, sizeof(address), "203.0.113.77:%u", port); /* is for examples: nobody's */
    n_ranks = 2;
    timeout_ms = 200;
    job = job_new(address);
    job_add(job, 0, be_rank_of);
    job_wait(job);
    expect(job, 0, TUTTI_E_TIMEOUT, "can they reach this address? (it is no address of this host)");
    job_free(job);
}

/* The socket is another user's: nobody is shown a proof there. */
static tutti_result be_nobody_listening(struct job *job, int rank)
{
    (void)rank;
    if (setresuid(65534, 65534, 65534) != 0)
        return TT_FAIL_SYS("setresuid");
    timeout_ms = 900;
    return be_rank_of(job, 0);
}

static void test_other_user(void **state)
{
    char address[96];

    (void)state;
    if (geteuid() != 0) {
        print_message("another user is not tested: only root can become one\n");
        return;
    }
    local_address(address, sizeof(address));
    struct job *job = job_new(address);

    n_ranks = 2;
    timeout_ms = 500;
    job_add(job, 0, be_nobody_listening);
    sleep_ms(50);
    job_add(job, 1, be_rank_of);
    job_wait(job);
    expect(job, 0, TUTTI_E_TIMEOUT, "rank 1 of 2 did not join");
    expect(job, 1, TUTTI_E_TIMEOUT, "the socket belongs to user 65534, this rank runs as user 0");
    job_free(job);
}

static void test_arguments(void **state)
{
    struct tt_boot_args args = {.rank = 2, .n_ranks = 2};
    struct tt_boot *boot = NULL;

    (void)state;
    assert_int_equal(tt_boot_id_from_address("unix:x", "s", &args.id), TUTTI_OK);
    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_E_ARG);
    args.rank = -1;
    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_E_ARG);
    args.rank = 0;
    args.n_ranks = 0;
    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_E_ARG);
    args.n_ranks = TT_WIRE_MAX_RANKS + 1;
    assert_int_equal(tt_boot_open(&args, &boot), TUTTI_E_ARG);
    tt_boot_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_ranks_are_named),
        cmocka_unit_test(test_earliest_deadline_ends_it),
        cmocka_unit_test(test_rank_0_missing),
        cmocka_unit_test(test_rank_0_listens_but_does_not_come),
        cmocka_unit_test(test_wrong_secret),
        cmocka_unit_test(test_two_claim_one_rank),
        cmocka_unit_test(test_n_ranks_differ),
        cmocka_unit_test(test_versions_differ),
        cmocka_unit_test(test_killed_while_joining),
        cmocka_unit_test(test_late_rank_is_told_of_a_death),
        cmocka_unit_test(test_killed_when_let_in),
        cmocka_unit_test(test_killed_before_gather),
        cmocka_unit_test(test_late_for_gather),
        cmocka_unit_test(test_records_differ_in_length),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_address_of_another_host),
        cmocka_unit_test(test_other_user),
        cmocka_unit_test(test_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
