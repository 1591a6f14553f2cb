/* Who gives up while ranks wire up says why, and that reason, not its leaving, is what all report. */
/* ctest: quick processors=2 */
#include "boot/boot_parts.h"
#include "boot_ranks.h"

enum { N_RANKS = 4, LEAVER = 2, GONE = 3 };

static int patience_ms;
static int leaver = LEAVER;

/* Open, and wait until all have; the rendezvous, or NULL after a failure. */
static struct tt_boot *open_together(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;

    if (open_boot(job, rank, N_RANKS, 20000, "s", &boot) != TUTTI_OK)
        return NULL;
    atomic_fetch_add(&job->n_here, 1);
    while (atomic_load(&job->n_here) < N_RANKS)
        sleep_ms(1);
    return boot;
}

static tutti_result leave(struct tt_boot *boot, tutti_result why)
{
    tutti_result result = tt_boot_give_up(boot, why);

    tt_boot_close(boot);
    return result;
}

static tutti_result out_of_memory(void)
{
    return TT_FAIL(TUTTI_E_MEMORY, "no room for 7 lanes");
}

static tutti_result blame(int rank)
{
    return TT_FAIL(TUTTI_E_PEER, "rank %d (process 4711) died or left while sharing memory", rank);
}

static tutti_result gather_and_leave(struct tt_boot *boot, int rank)
{
    tutti_result result = gather_checked(boot, rank, N_RANKS, 0, 64);

    if (result == TUTTI_OK) /* the failure may come between two exchanges */
        result = gather_checked(boot, rank, N_RANKS, 1, 64);
    tt_boot_close(boot);
    return result;
}

/* ---- a reason of its own ---- */

static tutti_result leave_at_once(struct job *job, int rank)
{
    struct tt_boot *boot = open_together(job, rank);

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank == leaver)
        return leave(boot, out_of_memory());
    sleep_ms(rank == 0 ? patience_ms : 0); /* the leaver's connection is closed by then, or not */
    return gather_and_leave(boot, rank);
}

static tutti_result leave_after_exchange(struct job *job, int rank)
{
    struct tt_boot *boot = open_together(job, rank);

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank != leaver)
        return gather_and_leave(boot, rank);
    tutti_result result = gather_checked(boot, rank, N_RANKS, 0, 64);

    return leave(boot, result == TUTTI_OK ? out_of_memory() : result);
}

/* Its record is sent, and it goes before it has the answer: rank 0 meets a broken connection. */
static tutti_result leave_with_record_sent(struct job *job, int rank)
{
    struct tt_boot *boot = open_together(job, rank);
    unsigned char out[TT_WIRE_HEADER_BYTES + 64] = {0};
    struct tt_wire_header header = {.type = TT_WIRE_DATA, .sequence = 1, .bytes = 64};

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank != leaver) {
        sleep_ms(rank == 0 ? 100 : 0);
        return gather_and_leave(boot, rank);
    }
    tt_wire_pack_header(&header, out);
    fill_record(out + TT_WIRE_HEADER_BYTES, rank, 0, 64);
    if (send(boot->fd, out, sizeof(out), 0) != sizeof(out))
        return TT_FAIL_SYS("send");
    return leave(boot, out_of_memory());
}

static void expect_leaver(const char *address, rank_fn fn)
{
    struct job *job = job_play(address, N_RANKS, fn);
    char name[32];

    snprintf(name, sizeof(name), "rank %d (process", leaver);
    for (int rank = 0; rank < N_RANKS; rank++) {
        if (rank != leaver)
            expect(job, rank, TUTTI_E_MEMORY, name);
    }
    job_expect(job, N_RANKS, TUTTI_E_MEMORY, "no room for 7 lanes", 2);
}

static void test_reason_reaches_all(void **state)
{
    char address[96];

    (void)state;
    for (int local = 0; local < 2; local++) {
        for (patience_ms = 0; patience_ms <= 100; patience_ms += 100) {
            local_address(address, sizeof(address));
            expect_leaver(local ? address : "", leave_at_once);
        }
        local_address(address, sizeof(address));
        expect_leaver(local ? address : "", leave_after_exchange);
        local_address(address, sizeof(address));
        expect_leaver(local ? address : "", leave_with_record_sent);
    }
    leaver = 0;
    expect_leaver("", leave_at_once);
    expect_leaver("", leave_after_exchange);
    leaver = LEAVER;
}

/* ---- another rank's death ---- */

/* Rank 3 hangs; rank 2 takes it for dead and says so. Nobody may take rank 2 for the victim. */
static tutti_result blame_other(struct job *job, int rank)
{
    struct tt_boot *boot = open_together(job, rank);

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank == LEAVER)
        return leave(boot, blame(GONE));
    sleep_ms(rank == GONE ? 300 : 0);
    return gather_and_leave(boot, rank);
}

static void test_blame_names_the_dead(void **state)
{
    struct job *job = job_play("", N_RANKS, blame_other);

    (void)state;
    for (int rank = 0; rank < N_RANKS; rank++)
        assert_null(strstr(job->outcomes[rank].text, "died or left while ranks were"));
    expect(job, 0, TUTTI_E_PEER, "gave up: rank 3");
    job_expect(job, N_RANKS, TUTTI_E_PEER, "rank 3 (process 4711) died or left", 2);
}

/* Rank 3 dies, and the others see it in their own ways. */
static tutti_result see_death(struct job *job, int rank)
{
    struct tt_boot *boot = open_together(job, rank);

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank == GONE)
        raise(SIGKILL);
    sleep_ms(50);
    return rank == atomic_load(&job->stage) ? leave(boot, blame(GONE))
                                            : gather_and_leave(boot, rank);
}

static void test_death_is_named(void **state)
{
    (void)state;
    for (int who = 0; who < GONE; who++) {
        struct job *job = job_new("");

        atomic_store(&job->stage, who);
        for (int rank = 0; rank < N_RANKS; rank++)
            job_add(job, rank, see_death);
        job_wait(job);
        job_expect(job, GONE, TUTTI_E_PEER, "rank 3 (process", 2);
    }
}

/* Rank 3 leaves for a reason of its own, but others see it gone before it has said so. */
static tutti_result blame_early(struct job *job, int rank)
{
    struct tt_boot *boot = open_together(job, rank);

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank == GONE) {
        sleep_ms(30);
        return leave(boot, out_of_memory());
    }
    return rank == 1 || atomic_load(&job->stage) ? leave(boot, blame(GONE))
                                                 : gather_and_leave(boot, rank);
}

/* The same where rank 0 is among those that see it gone. */
static tutti_result all_blame_early(struct job *job, int rank)
{
    atomic_store(&job->stage, 1);
    return blame_early(job, rank);
}

static void test_reason_behind_blame(void **state)
{
    static const rank_fn plays[] = {blame_early, all_blame_early};

    (void)state;
    for (size_t i = 0; i < TT_LEN(plays); i++) {
        struct job *job = job_play("", N_RANKS, plays[i]);

        for (int rank = 0; rank < GONE; rank++)
            expect(job, rank, TUTTI_E_MEMORY, "rank 3 (process");
        job_expect(job, N_RANKS, TUTTI_E_MEMORY, "no room for 7 lanes", 2);
    }
}

/* ---- what rank 0 reads there is bytes from outside all the same ---- */

static const struct hostile {
    uint32_t claimed;
    size_t sent;
    uint32_t value;
    tutti_result result;
    const char *text;
} hostiles[] = {
    {400, 400, (uint32_t)TUTTI_E_SYSTEM, TUTTI_E_SYSTEM, "gave up: ab??%s%n??"},
    {400, 10, (uint32_t)TUTTI_E_SYSTEM, TUTTI_E_SYSTEM, "gave up: ab??%s%n??"},
    {401, 401, (uint32_t)TUTTI_E_SYSTEM, TUTTI_E_INTERNAL, "sent what is no message"},
    {UINT32_MAX, 400, (uint32_t)TUTTI_E_SYSTEM, TUTTI_E_INTERNAL, "sent what is no message"},
    {10, 10, 0, TUTTI_E_INTERNAL, "gave up: ab??%s%n??"},
    {10, 10, 12345, TUTTI_E_INTERNAL, "gave up: ab??%s%n??"},
    {0, 0, (uint32_t)TUTTI_E_TIMEOUT, TUTTI_E_TIMEOUT, "2-3 of 4"},
};

static tutti_result be_hostile(struct job *job, int rank)
{
    const struct hostile *h = &hostiles[atomic_load(&job->stage)];
    struct tt_boot *boot = open_together(job, rank);
    unsigned char out[TT_WIRE_HEADER_BYTES + 401];
    struct tt_wire_header header = {.type = TT_WIRE_GIVE_UP, .sequence = 1};

    if (!boot)
        return TUTTI_E_INTERNAL;
    if (rank == 0 || rank == 1)
        return gather_and_leave(boot, rank);
    if (rank == LEAVER) {
        sleep_ms(50);
        memset(out, 'x', sizeof(out));
        header.bytes = h->claimed;
        header.value = h->value;
        tt_wire_pack_header(&header, out);
        memcpy(out + TT_WIRE_HEADER_BYTES, "ab\n\x1b%s%n\x80\xff", 10);
        (void)!send(boot->fd, out, TT_WIRE_HEADER_BYTES + h->sent, MSG_NOSIGNAL);
    }
    sleep_ms(400);
    tt_boot_close(boot);
    return TUTTI_OK;
}

static void test_hostile_reasons(void **state)
{
    (void)state;
    for (size_t i = 0; i < TT_LEN(hostiles); i++) {
        struct job *job = job_new("");

        atomic_store(&job->stage, (int)i);
        for (int rank = 0; rank < N_RANKS; rank++)
            job_add(job, rank, be_hostile);
        job_wait(job);
        job_expect(job, 2, hostiles[i].result, hostiles[i].text, 0);
    }
}

/* ---- rank 0 is gone before the others come ---- */

static tutti_result make_id_and_go(struct job *job, int rank)
{
    tutti_unique_id id;

    return job_id(job, rank, "s", &id); /* and this process ends */
}

/* Rank 0 comes, alone, and its time is up. */
static tutti_result fail_alone(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, N_RANKS, 50, "s", &boot);

    atomic_store(&job->stage, 1);
    tt_boot_close(boot);
    return result;
}

static tutti_result come_too_late(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, N_RANKS, patience_ms, "s", &boot);

    tt_boot_close(boot);
    return result;
}

static void come_after(rank_fn rank_0, const char *address, tutti_result result, const char *text)
{
    struct job *job = job_new(address);

    job_add(job, 0, rank_0);
    while (!*(volatile int *)&job->outcomes[0].is_done)
        sleep_ms(1);
    job->start_ns = tt_now_ns();
    for (int rank = 1; rank < 3; rank++)
        job_add(job, rank, come_too_late);
    job_wait(job);
    for (int rank = 1; rank < 3; rank++) {
        const double seconds = job->outcomes[rank].seconds;

        expect(job, rank, result, text);
        if (result == TUTTI_E_PEER)
            assert_true(seconds < 1.5);
        else
            assert_true(seconds > 0.9 * patience_ms / 1000);
    }
    job_free(job);
}

static void test_rank_0_is_gone(void **state)
{
    char address[96];

    (void)state;
    patience_ms = 20000;
    come_after(make_id_and_go, "", TUTTI_E_PEER, "rank 0 no longer listens at");
    come_after(fail_alone, "", TUTTI_E_PEER, "it died, left or failed before rank");
    /* An address is no promise that rank 0 has started: it may still come. */
    patience_ms = 1800;
    free_address(AF_INET, address, sizeof(address));
    come_after(fail_alone, address, TUTTI_E_TIMEOUT, "does rank 0 run");
    local_address(address, sizeof(address));
    come_after(fail_alone, address, TUTTI_E_TIMEOUT, "does rank 0 run");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reason_reaches_all), cmocka_unit_test(test_blame_names_the_dead),
        cmocka_unit_test(test_death_is_named),     cmocka_unit_test(test_reason_behind_blame),
        cmocka_unit_test(test_hostile_reasons),    cmocka_unit_test(test_rank_0_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
