/* ctest: timeout=120 */
/* Windows over any private memory: contents kept, neighbours untouched, results right, and nothing
 * left when they are gone. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/cases.h"
#include "support/proc.h"

static void fill(unsigned char *p, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(i * 7 + seed + (i >> 9));
}

static void check_filled(const unsigned char *p, size_t bytes, unsigned seed, const char *when)
{
    for (size_t i = 0; i < bytes; i++)
        T_CHECK(p[i] == (unsigned char)(i * 7 + seed + (i >> 9)), "%s: byte %zu of %zu changed",
                when, i, bytes);
}

static void reduce_in(struct t_rank *t, int32_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = (int32_t)i + t->rank;
    T_OK(tutti_all_reduce(t->comm, x, x, count, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    for (size_t i = 0; i < count; i++)
        T_CHECK(x[i] == t->n_ranks * (int32_t)i + t->n_ranks * (t->n_ranks - 1) / 2,
                "element %zu is %d", i, x[i]);
}

T_RANKS(memory_of_the_library, 3)
{
    static const size_t sizes[] = {1, 4096, 4097, 100000, 3 << 20, 5 << 20};

    for (size_t i = 0; i < T_LEN(sizes); i++) {
        tutti_window *w;
        void *p;

        T_OK(tutti_mem_alloc(t->comm, sizes[i], &p));
        T_CHECK((uintptr_t)p % 4096 == 0, "%p is not page-aligned", p);
        T_CHECK(t_first_not(p, sizes[i], 0) == sizes[i], "not zeroed");
        fill(p, sizes[i], 1);
        T_OK(tutti_window_register(t->comm, p, sizes[i], &w));
        check_filled(p, sizes[i], 1, "after registering");
        reduce_in(t, p, sizes[i] / 4);
        T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, p)); /* still registered */
        T_OK(tutti_window_deregister(t->comm, w));
        T_OK(tutti_mem_free(t->comm, p));
    }
    T_OK(tutti_mem_free(t->comm, NULL));
    T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, (void *)sizes));
    T_OK(tutti_barrier(t->comm, NULL));
}

/* malloc's memory, misaligned within its pages; what lies around it on the same pages stays. */
T_RANKS(memory_of_malloc_and_its_neighbours, 3)
{
    static const size_t sizes[] = {8, 100, 4096, 5000, 100004, 3 << 20};

    for (size_t i = 0; i < T_LEN(sizes); i++) {
        const size_t around = 600 + 4 * (size_t)t->rank; /* unlike offsets on the ranks */
        unsigned char *room = malloc(sizes[i] + 2 * around);
        int32_t *x = (int32_t *)(void *)(room + around);
        tutti_window *w;

        fill(room, sizes[i] + 2 * around, 9);
        T_OK(tutti_window_register(t->comm, x, sizes[i], &w));
        check_filled(room, sizes[i] + 2 * around, 9, "after registering");
        reduce_in(t, x, sizes[i] / 4);
        fill((unsigned char *)x, sizes[i], 3);
        T_OK(tutti_window_deregister(t->comm, w));
        check_filled((unsigned char *)x, sizes[i], 3, "after deregistering");
        check_filled(room, around, 9, "before the window");
        free(room);
    }
}

/* Replacing a stack under the thread that runs on it cannot work, so it is refused. */
T_RANKS(memory_on_the_stack_is_refused, 2)
{
    int32_t x[3000] = {7};
    tutti_window *w;

    T_IS(TUTTI_E_ARG, tutti_window_register(t->comm, x, sizeof(x), &w));
    T_CONTAINS(tutti_last_error(), "stack");
    T_CHECK(x[0] == 7, "changed");
    T_OK(tutti_barrier(t->comm, NULL));
}

static int32_t in_bss[5000];
static int32_t in_data[5000] = {1};

T_RANKS(static_memory, 2)
{
    tutti_window *a, *b;

    T_OK(tutti_window_register(t->comm, in_bss, sizeof(in_bss), &a));
    T_OK(tutti_window_register(t->comm, in_data, sizeof(in_data), &b));
    reduce_in(t, in_bss, T_LEN(in_bss));
    reduce_in(t, in_data, T_LEN(in_data));
    T_OK(tutti_window_deregister(t->comm, a));
    T_OK(tutti_window_deregister(t->comm, b));
}

T_RANKS(huge_pages, 2)
{
    const size_t bytes = 8 << 20;
    unsigned char *p =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tutti_window *w;

    T_CHECK(p != MAP_FAILED, "no memory");
    madvise(p, bytes, MADV_HUGEPAGE);
    fill(p, bytes, 4);
    T_OK(tutti_window_register(t->comm, p + 3 * 4096 + 8, bytes / 2, &w)); /* splits huge pages */
    check_filled(p, bytes, 4, "after registering");
    reduce_in(t, (int32_t *)(void *)(p + 3 * 4096 + 8), bytes / 8);
    T_OK(tutti_window_deregister(t->comm, w));
    munmap(p, bytes);
}

/* Two tensors that share a page, one inside another, the same one twice: each is a window. */
T_RANKS(overlapping_windows, 3)
{
    const struct t_memory m = t_memory_new(100000);
    int32_t *x = (int32_t *)(void *)m.base;
    tutti_window *w[4];

    fill(m.base, 100000, 6);
    T_OK(tutti_window_register(t->comm, x, 6000, &w[0]));
    T_OK(tutti_window_register(t->comm, x + 1500, 60000, &w[1])); /* begins where the first ends */
    T_OK(tutti_window_register(t->comm, x + 500, 20000, &w[2]));  /* across both */
    T_OK(tutti_window_register(t->comm, x, 6000, &w[3]));
    check_filled(m.base, 100000, 6, "after registering");
    T_CHECK(w[0] != NULL && w[0] != w[3], "the same window twice");
    for (int round = 0; round < 3; round++) {
        reduce_in(t, x, 1500);
        reduce_in(t, x + 1500, 15000);
        reduce_in(t, x + 500, 5000);
        reduce_in(t, x + 1000, 16000);
    }
    T_OK(tutti_window_deregister(t->comm, w[0]));
    reduce_in(t, x, 1500);
    T_OK(tutti_window_deregister(t->comm, w[2]));
    reduce_in(t, x + 500, 5000);
    T_OK(tutti_window_deregister(t->comm, w[1]));
    T_OK(tutti_window_deregister(t->comm, w[3]));
    reduce_in(t, x, 16000);
}

T_RANKS(the_same_memory_with_two_communicators, 2)
{
    int32_t *x = calloc(50000, sizeof(*x));
    tutti_window *a, *b;
    tutti_comm *other;

    T_OK(t_comm_create(t, 2, NULL, &other));
    T_OK(tutti_window_register(t->comm, x, 200000, &a));
    T_OK(tutti_window_register(other, x, 200000, &b));
    reduce_in(t, x, 50000);
    T_OK(tutti_all_reduce(other, x, x, 50000, TUTTI_DTYPE_I32, TUTTI_OP_MAX, NULL));
    T_IS(TUTTI_E_ARG, tutti_window_deregister(other, a));
    T_OK(tutti_window_deregister(t->comm, a));
    T_OK(tutti_all_reduce(other, x, x, 50000, TUTTI_DTYPE_I32, TUTTI_OP_MAX, NULL));
    tutti_comm_destroy(other); /* takes its window with it */
    reduce_in(t, x, 50000);
    free(x);
}

T_RANKS(windows_are_found_by_address, 2)
{
    const struct t_memory m = t_memory_new(40000);
    tutti_window *w;

    T_CHECK(tutti_window_find(t->comm, m.base, 1) == NULL, "found before registering");
    T_OK(tutti_window_register(t->comm, m.base + 100, 30000, &w));
    T_CHECK(tutti_window_find(t->comm, m.base + 100, 30000) == w, "all of it");
    T_CHECK(tutti_window_find(t->comm, m.base + 100, 1) == w, "first");
    T_CHECK(tutti_window_find(t->comm, m.base + 30099, 1) == w, "last");
    T_CHECK(tutti_window_find(t->comm, m.base + 99, 1) == NULL, "before");
    T_CHECK(tutti_window_find(t->comm, m.base + 30100, 1) == NULL, "after");
    T_CHECK(tutti_window_find(t->comm, m.base + 100, 30001) == NULL, "too long");
    T_CHECK(tutti_window_find(t->comm, m.base + 200, SIZE_MAX) == NULL, "wraps");
    T_OK(tutti_window_deregister(t->comm, w));
    T_CHECK(tutti_window_find(t->comm, m.base + 100, 1) == NULL, "found after deregistering");
}

/* What was registered before a fork is shared with the child afterwards, as tutti.h says; memory
 * that was not is private as ever. */
T_RANKS(a_child_shares_what_was_registered, 2)
{
    volatile int32_t *x = calloc(20000, sizeof(*x));
    volatile int32_t *plain = calloc(20000, sizeof(*plain));
    tutti_window *w;
    int status;

    T_OK(tutti_window_register(t->comm, (void *)(uintptr_t)(x + 5000), 20000, &w));
    const pid_t child = fork();
    if (child == 0) {
        x[6000] = 42;
        plain[6000] = 42;
        _exit(0);
    }
    T_SYS(waitpid(child, &status, 0));
    T_CHECK(x[6000] == 42, "the registered page is not shared");
    T_CHECK(plain[6000] == 0, "a private page is shared");
    reduce_in(t, (int32_t *)(uintptr_t)(x + 5000), 5000);
    T_OK(tutti_window_deregister(t->comm, w));
    free((void *)(uintptr_t)x);
    free((void *)(uintptr_t)plain);
}

/* ---- afterwards malloc's memory is what it was ---- */

static void check_ordinary(unsigned char *p, size_t bytes, const char *when)
{
    for (size_t at = 0; at < bytes; at += 4096)
        T_CHECK(t_is_private(p + at), "%s: page %zu is shared with a child", when, at / 4096);
    T_CHECK(t_is_private(p + bytes - 1), "%s: the last page is shared with a child", when);
}

T_RANKS(memory_can_grow_afterwards, 2)
{
    const size_t bytes = 1 << 20;
    unsigned char *p = malloc(bytes);
    tutti_window *w;

    fill(p, bytes, 2);
    T_OK(tutti_window_register(t->comm, p, bytes, &w));
    T_CHECK(!t_is_private(p), "not shared while it is registered");
    T_OK(tutti_window_deregister(t->comm, w));
    check_filled(p, bytes, 2, "after deregistering");
    p = realloc(p, 4 * bytes);
    T_CHECK(p != NULL, "no memory");
    check_filled(p, bytes, 2, "after growing");
    fill(p, 4 * bytes, 3); /* a signal, were it still a file of the first size */
    free(p);
}

T_RANKS(memory_can_be_given_up_afterwards, 2)
{
    const struct t_memory m = t_memory_new(40000);
    tutti_window *w;

    fill(m.base, m.bytes, 2);
    T_OK(tutti_window_register(t->comm, m.base + 100, 30000, &w));
    T_OK(tutti_window_deregister(t->comm, w));
    check_filled(m.base, m.bytes, 2, "after deregistering");
    check_ordinary(m.base, m.bytes, "after deregistering");
    T_SYS(madvise(m.base, m.bytes, MADV_DONTNEED));
    T_CHECK(t_first_not(m.base, m.bytes, 0) == m.bytes, "its old contents are back");
}

/* Pages are shared as long as anybody holds them, and those that nobody holds are not, whatever was
 * registered first. */
T_RANKS(memory_held_twice_is_shared_until_the_last, 2)
{
    enum { PAGE = 4096 };
    const struct t_memory m = t_memory_new(20 * PAGE);
    tutti_window *whole, *tail, *inner;

    fill(m.base, m.bytes, 5);
    T_OK(tutti_window_register(t->comm, m.base, 10 * PAGE, &whole));
    T_OK(tutti_window_register(t->comm, m.base + 9 * PAGE, 5 * PAGE, &tail)); /* two parts */
    T_OK(tutti_window_register(t->comm, m.base + 2 * PAGE, 2 * PAGE, &inner));
    T_OK(tutti_window_deregister(t->comm, whole));
    check_ordinary(m.base, 2 * PAGE, "below the inner window");
    check_ordinary(m.base + 4 * PAGE, 5 * PAGE, "between the windows");
    for (int page = 2; page < 14; page++)
        T_CHECK(t_is_private(m.base + (size_t)page * PAGE) == (page >= 4 && page < 9), "page %d",
                page);
    check_filled(m.base, m.bytes, 5, "after the first");
    reduce_in(t, (int32_t *)(void *)(m.base + 2 * PAGE), 2 * PAGE / 4);
    reduce_in(t, (int32_t *)(void *)(m.base + 9 * PAGE), 5 * PAGE / 4);
    fill(m.base, m.bytes, 6);
    T_OK(tutti_window_deregister(t->comm, tail));
    T_OK(
        tutti_window_register(t->comm, m.base, 10 * PAGE, &whole)); /* anew, around the inner one */
    check_filled(m.base, m.bytes, 6, "after registering again");
    T_OK(tutti_window_deregister(t->comm, inner));
    T_CHECK(!t_is_private(m.base + 2 * PAGE), "the whole is registered");
    reduce_in(t, (int32_t *)(void *)m.base, 10 * PAGE / 4);
    fill(m.base, m.bytes, 7);
    T_OK(tutti_window_deregister(t->comm, whole));
    check_ordinary(m.base, m.bytes, "at the end");
    check_filled(m.base, m.bytes, 7, "at the end");
}

/* Side by side in a third that has gone they are as many windows as before: the end of one is not the other's. */
T_RANKS(memory_next_to_a_window_that_ends_stays_shared, 2)
{
    enum { PAGE = 4096 };
    const struct t_memory m = t_memory_new(8 * PAGE);
    tutti_window *whole, *lower, *upper;

    T_OK(tutti_window_register(t->comm, m.base, 8 * PAGE, &whole));
    T_OK(tutti_window_register(t->comm, m.base, 4 * PAGE, &lower));
    T_OK(tutti_window_register(t->comm, m.base + 4 * PAGE, 4 * PAGE, &upper));
    T_OK(tutti_window_deregister(t->comm, whole));
    T_OK(tutti_window_deregister(t->comm, lower));
    check_ordinary(m.base, 4 * PAGE, "below the window that is left");
    for (int page = 4; page < 8; page++)
        T_CHECK(!t_is_private(m.base + (size_t)page * PAGE), "page %d of a window is private",
                page);
    reduce_in(t, (int32_t *)(void *)(m.base + 4 * PAGE), 4 * PAGE / 4);
    T_OK(tutti_window_deregister(t->comm, upper));
    check_ordinary(m.base, m.bytes, "at the end");
}

T_RANKS(memory_of_a_communicator_that_ends, 2)
{
    const struct t_memory m = t_memory_new(40000);
    tutti_window *a, *b;
    tutti_comm *other;

    fill(m.base, m.bytes, 8);
    T_OK(t_comm_create(t, 2, NULL, &other));
    T_OK(tutti_window_register(t->comm, m.base, m.bytes, &a));
    T_OK(tutti_window_register(other, m.base, m.bytes, &b));
    T_OK(tutti_window_deregister(t->comm, a));
    T_CHECK(!t_is_private(m.base), "the other communicator's window is still there");
    tutti_comm_abort(other);
    tutti_comm_destroy(other);
    check_filled(m.base, m.bytes, 8, "after the communicator");
    check_ordinary(m.base, m.bytes, "after the communicator");
}

/* What is no longer the window's memory is left alone, even at its address. */
T_RANKS(memory_that_has_gone_meanwhile, 2)
{
    const struct t_memory m = t_memory_new(8 * 4096);
    unsigned char *other = m.base + 2 * 4096;
    tutti_window *w;

    fill(m.base, m.bytes, 1);
    T_OK(tutti_window_register(t->comm, m.base, m.bytes, &w));
    T_SYS(munmap(m.base, 4096));
    T_CHECK(mmap(other, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
                 0) == other,
            "no memory");
    *other = 77;
    T_SYS(mprotect(m.base + 4 * 4096, 4096, PROT_READ));
    T_OK(tutti_window_deregister(t->comm, w));
    T_CHECK(mmap(m.base, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
                 0) == m.base,
            "something is where the memory was freed");
    T_CHECK(*other == 77 && !t_is_private(other), "what came after it was replaced");
    T_CHECK(m.base[4 * 4096 + 1] == (unsigned char)((4 * 4096 + 1) * 7 + 1 + (4 * 4096 >> 9)),
            "the page that is read-only has changed");
    T_SYS(mprotect(m.base + 4 * 4096, 4096, PROT_READ | PROT_WRITE));
    check_ordinary(m.base + 3 * 4096, 5 * 4096, "the rest");
}

T_RANKS(memory_of_the_library_stays_shared, 2)
{
    unsigned char *p;
    tutti_window *w;

    T_OK(tutti_mem_alloc(t->comm, 40000, (void **)&p));
    fill(p, 40000, 1);
    T_OK(tutti_window_register(t->comm, p + 5000, 20000, &w));
    T_OK(tutti_window_deregister(t->comm, w));
    check_filled(p, 40000, 1, "after deregistering");
    T_CHECK(!t_is_private(p + 6000), "tutti.h says that a fork() shares it");
    T_OK(tutti_mem_free(t->comm, p));
}

T_RANKS(many_registrations_leave_nothing, 2)
{
    struct t_holdings before = {0};
    const struct t_memory m = t_memory_new(300000);

    for (unsigned i = 0; i < t_times(100, 3000); i++) {
        tutti_window *w;

        T_OK(tutti_window_register(t->comm, m.base + i % 4096, 200000, &w));
        T_OK(tutti_window_deregister(t->comm, w));
        if (i == 2)
            before = t_holdings_now();
    }
    T_CHECK(t_count_fds() <= before.fds, "%zu descriptors, were %zu", t_count_fds(), before.fds);
    T_CHECK(t_count_maps() <= before.maps + 4, "%zu mappings, were %zu", t_count_maps(),
            before.maps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_the_library),
        cmocka_unit_test(memory_of_malloc_and_its_neighbours),
        cmocka_unit_test(memory_on_the_stack_is_refused),
        cmocka_unit_test(static_memory),
        cmocka_unit_test(huge_pages),
        cmocka_unit_test(overlapping_windows),
        cmocka_unit_test(the_same_memory_with_two_communicators),
        cmocka_unit_test(windows_are_found_by_address),
        cmocka_unit_test(a_child_shares_what_was_registered),
        cmocka_unit_test(memory_can_grow_afterwards),
        cmocka_unit_test(memory_can_be_given_up_afterwards),
        cmocka_unit_test(memory_held_twice_is_shared_until_the_last),
        cmocka_unit_test(memory_next_to_a_window_that_ends_stays_shared),
        cmocka_unit_test(memory_of_a_communicator_that_ends),
        cmocka_unit_test(memory_that_has_gone_meanwhile),
        cmocka_unit_test(memory_of_the_library_stays_shared),
        cmocka_unit_test(many_registrations_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
