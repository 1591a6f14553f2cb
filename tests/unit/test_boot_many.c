/* 4,096 ranks: wired up, and 64 bytes of each at each, in under 10 s. Ranks are threads. */
/* ctest: quick serial no-tsan no-asan timeout=90 */
#include "boot_ranks.h"

#include <pthread.h>
#include <sys/resource.h>

#define N_RANKS     4096
#define RECORD      64
#define ROOM        ((size_t)N_RANKS * RECORD + 1)
#define STACK_BYTES (128 << 10)

static tutti_unique_id id;
static unsigned char *rooms; /* where each rank gathers */
static atomic_int n_wrong;
static double open_seconds;
static uint64_t start_ns;

static void *be_rank_of_many(void *context)
{
    int rank = (int)(intptr_t)context;
    struct tt_boot_args args = {.rank = rank, .n_ranks = N_RANKS, .id = id};
    struct tt_boot *boot = NULL;
    tutti_result result;

    args.deadline_ns = tt_now_ns() + 60000 * MS;
    result = tt_boot_open(&args, &boot);
    if (rank == 0)
        open_seconds = (double)(tt_now_ns() - start_ns) / 1e9;
    if (result == TUTTI_OK)
        result = gather_into(rooms + (size_t)rank * ROOM, boot, rank, N_RANKS, 0, RECORD);
    if (result != TUTTI_OK && atomic_fetch_add(&n_wrong, 1) < 3)
        print_message("rank %d: %s\n", rank, tt_error_text());
    tt_boot_close(boot);
    return NULL;
}

static void test_wire_up(void **state)
{
    static pthread_t threads[N_RANKS];
    pthread_attr_t attributes;
    double seconds;

    (void)state;
    /* Processes would not wait for each other's page faults; threads that fault at once do, for longer than
     * all the rest takes. */
    rooms = mmap(NULL, N_RANKS * ROOM, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    assert_true(rooms != MAP_FAILED);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, STACK_BYTES), 0);
    assert_int_equal(tt_boot_id_create(&id), TUTTI_OK);
    start_ns = tt_now_ns();
    for (int rank = 0; rank < N_RANKS; rank++) {
        if (pthread_create(&threads[rank], &attributes, be_rank_of_many, (void *)(intptr_t)rank) !=
            0) {
            print_message("skipped: this system does not allow %d threads\n", N_RANKS);
            fflush(NULL);
            _exit(77);
        }
    }
    for (int rank = 0; rank < N_RANKS; rank++)
        pthread_join(threads[rank], NULL);
    seconds = (double)(tt_now_ns() - start_ns) / 1e9;
    munmap(rooms, N_RANKS * ROOM);
    pthread_attr_destroy(&attributes);
    print_message("%d ranks: wired up after %.2f s, all-gather of %d bytes done after %.2f s\n",
                  N_RANKS, open_seconds, RECORD, seconds);
    assert_int_equal(atomic_load(&n_wrong), 0);
    assert_true(seconds < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wire_up)};
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max < 2 * N_RANKS + 64) {
        printf("skipped: needs %d file descriptors; raise the limit (ulimit -Hn)\n",
               2 * N_RANKS + 64);
        return 77;
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
