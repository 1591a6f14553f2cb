/* ctest: quick timeout=120 */
/* Between two pages that may not be touched, nothing is read or written beside the buffers; and the
 * copies copy, whatever the alignment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels_reference.h"

#define ROOM          65536 /* bytes between the guard pages: a multiple of any page size */
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum { SOURCES = 3, AREAS = SOURCES + 2 };

static char *rooms[AREAS];

/* ROOM bytes with an untouchable page on either side: the processor does the checking. */
static char *make_room(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p =
        mmap(NULL, ROOM + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) ||
        mprotect(p + page + ROOM, page, PROT_NONE))
        abort();
    memset(p + page, 0x3c, ROOM);
    return p + page;
}

static int prepare(void **state)
{
    (void)state;
    ref_prepare();
    for (int k = 0; k < AREAS; k++)
        rooms[k] = make_room();
    return 0;
}

static char *place(int area, size_t bytes, int at_end)
{
    return at_end ? rooms[area] + ROOM - bytes : rooms[area];
}

static void reduce_at_edge(const struct tt_kernels *set, tutti_dtype dtype, int op, size_t count,
                           int at_end)
{
    const size_t bytes = count * (size_t)ref_formats[dtype].bytes;
    const void *src[SOURCES];
    char *dst = place(SOURCES, bytes, at_end);
    char *dst2 = place(SOURCES + 1, bytes, at_end);

    for (int r = 0; r < SOURCES; r++)
        src[r] = place(r, bytes, at_end);
    set->reduce[dtype][op](dst, NULL, src, 1, count, 0);
    set->reduce[dtype][op](dst, dst2, src, 2, count, 0);
    set->reduce[dtype][op](dst, dst2, src, 3, count, 4096);
}

static void test_reductions_stay_inside(void **state)
{
    static const size_t long_counts[] = {300, 511, 1000, 1023, 2049};
    const struct tt_kernels *set;

    (void)state;
    for (int i = 0; (set = ref_set(i)); i++) {
        for (int t = 0; t < TUTTI_N_DTYPES; t++) {
            for (int op = 0; op < TUTTI_N_OPS; op++) {
                for (size_t count = 0; count < 290; count++) {
                    reduce_at_edge(set, (tutti_dtype)t, op, count, 0);
                    reduce_at_edge(set, (tutti_dtype)t, op, count, 1);
                }
                for (size_t c = 0; c < LENGTH(long_counts); c++)
                    reduce_at_edge(set, (tutti_dtype)t, op, long_counts[c], 1);
            }
        }
    }
}

static void fill(char *p, size_t bytes, uint64_t seed)
{
    for (size_t k = 0; k < bytes; k++)
        p[k] = (char)ref_random(&seed);
}

/* copy (kind 0 without, 1 with prefetching) and copy_stream (2) */
static void copy_one(const struct tt_kernels *set, int kind, char *dst, const char *src,
                     size_t bytes)
{
    if (kind == 2)
        set->copy_stream(dst, src, bytes);
    else
        (bytes % 2 ? set->put : set->take)(dst, src, bytes, kind ? 2048 : 0);
}

static void check_copy(const struct tt_kernels *set, int kind, char *dst, const char *src,
                       size_t bytes)
{
    static char before[64];
    static char after[64];

    memset(before, 0x77, sizeof(before));
    memset(after, 0x77, sizeof(after));
    memset(dst - 64, 0x77, bytes + 128);
    copy_one(set, kind, dst, src, bytes);
    if (memcmp(dst, src, bytes) != 0 || memcmp(dst - 64, before, 64) != 0 ||
        memcmp(dst + bytes, after, 64) != 0)
        fail_msg("%s copy kind %d of %zu bytes, %zu to %zu off alignment", set->isa, kind, bytes,
                 (uintptr_t)src % 64, (uintptr_t)dst % 64);
}

static void test_copies(void **state)
{
    static const size_t sizes[] = {320,  321,  511,  512,  513,  1000, 1024,
                                   2047, 2048, 2049, 2111, 4097, 33001};
    static const size_t shifts[] = {0, 1, 2, 8, 31, 32, 63};
    char *dst = rooms[0] + 1024;
    char *src = rooms[1];
    const struct tt_kernels *set;

    (void)state;
    fill(src, ROOM, 3);
    for (int i = 0; (set = ref_set(i)); i++) {
        for (int kind = 0; kind < 3; kind++) {
            for (size_t bytes = 0; bytes < 300; bytes++)
                for (size_t s = 0; s < LENGTH(shifts); s++)
                    check_copy(set, kind, dst + shifts[s], src + shifts[(s * 3) % 7], bytes);
            for (size_t c = 0; c < LENGTH(sizes); c++)
                for (size_t s = 0; s < 49; s++)
                    check_copy(set, kind, dst + shifts[s % 7], src + shifts[s / 7], sizes[c]);
        }
    }
}

static void test_copies_stay_inside(void **state)
{
    const struct tt_kernels *set;

    (void)state;
    for (int i = 0; (set = ref_set(i)); i++)
        for (int kind = 0; kind < 3; kind++)
            for (int end = 0; end < 4; end++)
                for (size_t bytes = 0; bytes < 4400; bytes += bytes < 600 ? 1 : 97)
                    copy_one(set, kind, place(0, bytes, end & 1), place(1, bytes, end >> 1), bytes);
}

/* Nothing to see of a demotion but that it leaves the bytes alone and stays mapped. */
static void test_demote_changes_nothing(void **state)
{
    char saved[256];

    (void)state;
    fill(rooms[2], 256, 4);
    memcpy(saved, rooms[2], 256);
    for (int i = 0; ref_set(i); i++) {
        ref_set(i)->demote(rooms[2], 256);
        ref_set(i)->demote(rooms[2] + 3, 70);
        ref_set(i)->demote(rooms[2], 0);
        ref_set(i)->demote(rooms[2] + ROOM - 1, 1);
    }
    assert_memory_equal(saved, rooms[2], 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reductions_stay_inside),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_copies_stay_inside),
        cmocka_unit_test(test_demote_changes_nothing),
    };

    return cmocka_run_group_tests(tests, prepare, NULL);
}
