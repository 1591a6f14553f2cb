/* Memory that cannot be registered: refused on all ranks, nothing changed, communicator good. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/buffers.h"
#include "support/job.h"
#include "support/proc.h"

static void good(struct t_rank *t)
{
    int32_t x = 1;

    T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    T_CHECK(x == t->n_ranks, "sum is %d", x);
}

static void refused(struct t_rank *t, void *p, size_t bytes, const char *part)
{
    tutti_window *w = (tutti_window *)16;

    T_IS(TUTTI_E_ARG, tutti_window_register(t->comm, p, bytes, &w));
    T_CONTAINS(tutti_last_error(), part);
    T_CHECK(w == (tutti_window *)16, "the output was set");
    good(t);
}

static void *map(size_t bytes, int prot, int flags, int fd)
{
    void *p = mmap(NULL, bytes, prot, flags, fd, 0);

    T_CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
    return p;
}

T_RANKS(memory_that_is_not_mapped, 2)
{
    unsigned char *p = map(8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    munmap(p + 4 * 4096, 4096);
    refused(t, p, 8 * 4096, "mapped"); /* a hole in the middle */
    refused(t, p + 4 * 4096, 100, "mapped");
    refused(t, (void *)4096, 100, "mapped");
    refused(t, (void *)(UINTPTR_MAX - 100), 1000, ""); /* wraps */
    refused(t, p + 100, SIZE_MAX, "");                 /* and comes back to where it began */
    refused(t, NULL, 4096, "");
    refused(t, p, 0, "");
}

T_RANKS(memory_that_is_read_only, 2)
{
    static const char text[100] = "constant";
    unsigned char *p = map(4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    mprotect(p + 4096, 4096, PROT_READ);
    refused(t, p, 4 * 4096, "");
    refused(t, (void *)(uintptr_t)text, sizeof(text), "");
    refused(t, (void *)(uintptr_t)&refused, 16, ""); /* code */
    p[0] = 1;                                        /* still there, still writable */
}

T_RANKS(memory_of_files, 2)
{
    char name[] = "/tmp/tutti-test-XXXXXX";
    const int fd = mkstemp(name);

    T_SYS(fd);
    unlink(name);
    T_SYS(ftruncate(fd, 8 * 4096));
    refused(t, map(8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd), 8 * 4096, "");
    close(fd);
}

T_RANKS(memory_that_others_share_already, 2)
{
    refused(t, map(4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1), 4096, "");
}

/* What comes before the bad page, below a window that is there and above it, is as it was. */
T_RANKS(nothing_is_replaced_in_vain, 2)
{
    unsigned char *p = map(10 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    tutti_window *w;

    T_OK(tutti_window_register(t->comm, p + 4 * 4096, 4096, &w));
    mprotect(p + 8 * 4096, 4096, PROT_READ);
    refused(t, p, 10 * 4096, "not writable");
    const size_t maps = t_count_maps(); /* whatever took more memory the first time has it */
    refused(t, p, 10 * 4096, "not writable");
    T_CHECK(t_count_maps() == maps, "%zu mappings, were %zu", t_count_maps(), maps);
    T_CHECK(t_is_private(p) && t_is_private(p + 5 * 4096), "a page is shared");
    T_OK(tutti_window_deregister(t->comm, w));
    T_CHECK(t_is_private(p + 4 * 4096), "the window's page is shared");
}

/* One rank's memory is bad: the others must not wait for it, and none keeps a window. */
T_RANKS(one_rank_is_refused, 3)
{
    const struct t_memory m = t_memory_new(40000);
    tutti_window *w;
    unsigned char *p = t->rank == 1 ? m.base + m.bytes - 4096 : m.base;
    const tutti_result r = tutti_window_register(t->comm, p, 20000, &w);

    T_CHECK(r < 0 && r != TUTTI_E_TIMEOUT, "register gave %s", tutti_result_name(r));
    if (t->rank != 1)
        T_CONTAINS(tutti_last_error(), "rank 1");
    good(t);
    T_CHECK(tutti_window_find(t->comm, m.base, 100) == NULL, "a window is left");
    T_CHECK(t_is_private(m.base), "its memory is still shared");
    T_OK(tutti_window_register(t->comm, m.base, 20000, &w));
    T_OK(tutti_window_deregister(t->comm, w));
}

T_RANKS(unequal_bytes_are_a_mismatch, 2)
{
    const struct t_memory m = t_memory_new(40000);
    tutti_window *w;

    T_IS(TUTTI_E_MISMATCH, tutti_window_register(t->comm, m.base, 10000 + (size_t)t->rank, &w));
    T_CONTAINS(tutti_last_error(), "1000");
    good(t);
    T_OK(tutti_window_register(t->comm, m.base, 10000, &w));
    T_OK(tutti_window_deregister(t->comm, w));
}

T_RANKS(a_window_that_is_none, 2)
{
    tutti_window *w = (tutti_window *)(void *)t;

    T_IS(TUTTI_E_ARG, tutti_window_deregister(t->comm, w));
    T_OK(tutti_window_deregister(t->comm, NULL));
    good(t);
}

T_RANKS(allocations_that_cannot_be, 1)
{
    void *p = NULL;

    T_IS(TUTTI_E_ARG, tutti_mem_alloc(t->comm, 0, &p));
    T_IS(TUTTI_E_ARG, tutti_mem_alloc(t->comm, 4096, NULL));
    const tutti_result r = tutti_mem_alloc(t->comm, SIZE_MAX - 100, &p);
    T_CHECK(r == TUTTI_E_ARG || r == TUTTI_E_MEMORY, "%s", tutti_result_name(r));
    T_IS(TUTTI_E_MEMORY, tutti_mem_alloc(t->comm, (size_t)1 << 48, &p));
    T_CHECK(p == NULL, "the output was set");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_not_mapped),
        cmocka_unit_test(memory_that_is_read_only),
        cmocka_unit_test(memory_of_files),
        cmocka_unit_test(memory_that_others_share_already),
        cmocka_unit_test(nothing_is_replaced_in_vain),
        cmocka_unit_test(one_rank_is_refused),
        cmocka_unit_test(unequal_bytes_are_a_mismatch),
        cmocka_unit_test(a_window_that_is_none),
        cmocka_unit_test(allocations_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
