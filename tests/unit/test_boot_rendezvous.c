/* The rendezvous when all goes well: numbers of ranks, families of addresses, late and repeated. */
/* ctest: quick processors=2 */
#include "boot_ranks.h"

static int n_ranks;

static tutti_result be_good(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result = open_boot(job, rank, n_ranks, 20000, "s", &boot);
    static const size_t sizes[] = {64, 0, 1, 4096, 65, 4096, 1};

    for (int i = 0; result == TUTTI_OK && i < (int)TT_LEN(sizes); i++)
        result = gather_checked(boot, rank, n_ranks, i, sizes[i]);
    tt_boot_close(boot);
    return result;
}

static void run_good(int n, const char *address)
{
    n_ranks = n;
    job_expect(job_play(address, n, be_good), n, TUTTI_OK, NULL, 0);
}

static void test_one_to_sixteen(void **state)
{
    (void)state;
    for (int n = 1; n <= 16; n++)
        run_good(n, "");
}

static void test_families(void **state)
{
    char address[96];

    (void)state;
    free_address(AF_INET, address, sizeof(address));
    run_good(4, address);
    local_address(address, sizeof(address));
    run_good(4, address);
    free_address(AF_INET, address, sizeof(address));
    char by_name[96];

    snprintf(by_name, sizeof(by_name), "localhost%s", strrchr(address, ':'));
    run_good(4, by_name);
    free_address(AF_INET6, address, sizeof(address));
    if (!*address)
        print_message("IPv6 not tested: this host has no ::1\n");
    else
        run_good(4, address);
}

static tutti_result come_late(struct job *job, int rank)
{
    sleep_ms(rank == 0 ? 300 : 0);
    return be_good(job, rank);
}

static void test_late_rank_0(void **state)
{
    char address[96];

    (void)state;
    for (int local = 0; local < 2; local++) {
        test_address(local, address, sizeof(address));
        n_ranks = 4;
        job_expect(job_play(address, 4, come_late), 4, TUTTI_OK, NULL, 3);
    }
}

/* Communicator after communicator on one address; fast ranks are at the next while slow ones are
 * still leaving the last. */
static tutti_result be_repeated(struct job *job, int rank)
{
    for (int i = 0; i < 40; i++) {
        struct tt_boot *boot = NULL;
        tutti_result result = open_boot(job, rank, n_ranks, 10000, "same", &boot);

        if (result == TUTTI_OK)
            result = gather_checked(boot, rank, n_ranks, i, 64);
        if ((rank + i) % 5 == 0)
            sleep_ms(3);
        tt_boot_close(boot);
        if (result != TUTTI_OK)
            return result;
    }
    return TUTTI_OK;
}

static void test_one_address_again_and_again(void **state)
{
    char address[96];

    (void)state;
    for (int local = 0; local < 2; local++) {
        test_address(local, address, sizeof(address));
        n_ranks = 5;
        job_expect(job_play(address, 5, be_repeated), 5, TUTTI_OK, NULL, 0);
    }
}

/* Something else has the address at first: ranks try on until it is rank 0. */
static tutti_result be_squatter(struct job *job, int rank)
{
    struct tt_boot_address address;
    struct tt_boot_endpoint endpoint;
    uint16_t port;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)rank;
    tt_boot_address_parse(job->address, &address, &port);
    tt_boot_address_resolve(&address, port, &endpoint, 1);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&endpoint.address, endpoint.bytes) != 0 || listen(fd, 16) != 0)
        return TT_FAIL_SYS("squatter");
    atomic_store(&job->stage, 1);
    for (uint64_t end = tt_now_ns() + 400 * MS; tt_now_ns() < end;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};

        if (poll(&wait, 1, 10) != 1)
            continue;
        int c = accept(fd, NULL, NULL);

        if (atomic_fetch_add(&job->n_here, 1) % 2 == 0)
            (void)!send(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n\r\n", 50,
                        MSG_NOSIGNAL);
        close(c);
    }
    close(fd);
    return TUTTI_OK;
}

static tutti_result come_after_squatter(struct job *job, int rank)
{
    while (atomic_load(&job->stage) < 1)
        sleep_ms(1);
    return be_good(job, rank);
}

static void test_not_tutti_at_first(void **state)
{
    char address[96];

    (void)state;
    free_address(AF_INET, address, sizeof(address));
    struct job *job = job_new(address);

    n_ranks = 3;
    job_add(job, 0, be_squatter);
    for (int rank = 0; rank < 3; rank++)
        job_add(job, rank, come_after_squatter);
    job_wait(job);
    assert_true(atomic_load(&job->n_here) > 2); /* somebody did meet it */
    job_expect(job, 4, TUTTI_OK, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_to_sixteen),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_late_rank_0),
        cmocka_unit_test(test_one_address_again_and_again),
        cmocka_unit_test(test_not_tutti_at_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
