/* ctest: long serial timeout=300 */
/* More than 2^31 elements, and more than 4 GiB across both ranks: no count is cut to 32 bits. */
#include <sys/mman.h>

#include "support/proc.h"
#include "support/job.h"

static const size_t huge = ((size_t)1 << 31) + 12345;

static unsigned char value(size_t i, int rank)
{
    return (unsigned char)((i >> 20) + i * 3 + (size_t)rank);
}

T_RANKS(all_reduce_of_more_than_two_to_the_31_in_place, 2)
{
    unsigned char *x = mmap(NULL, huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_CHECK(x != MAP_FAILED, "no memory");
    for (size_t i = 0; i < huge; i++)
        x[i] = value(i, t->rank);
    T_OK(tutti_all_reduce(t->comm, x, x, huge, TUTTI_DTYPE_U8, TUTTI_OP_SUM, NULL));
    for (size_t i = 0; i < huge; i++)
        T_CHECK(x[i] == (unsigned char)(value(i, 0) + value(i, 1)), "element %zu is %u", i, x[i]);
    T_OK(tutti_broadcast(t->comm, x, huge, TUTTI_DTYPE_I8, 1, NULL));
    T_CHECK(x[huge - 1] == (unsigned char)(value(huge - 1, 0) + value(huge - 1, 1)), "last");
    munmap(x, huge);
}

T_RANKS(send_and_recv_of_more_than_two_to_the_31, 2)
{
    unsigned char *x = mmap(NULL, huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_CHECK(x != MAP_FAILED, "no memory");
    if (t->rank == 0) {
        for (size_t i = 0; i < huge; i++)
            x[i] = value(i, 5);
        T_OK(tutti_send(t->comm, x, huge, TUTTI_DTYPE_U8, 1, NULL));
    } else {
        T_OK(tutti_recv(t->comm, x, huge, TUTTI_DTYPE_U8, 0, NULL));
        for (size_t i = 0; i < huge; i++)
            T_CHECK(x[i] == value(i, 5), "element %zu is %u", i, x[i]);
    }
    T_OK(tutti_barrier(t->comm, NULL));
    munmap(x, huge);
}

static int enough_memory(void **state)
{
    (void)state;
    if (t_available_mib() >= 8192)
        return 0;
    printf("skipped: %zu MiB of memory are free, 8192 are needed\n", t_available_mib());
    exit(77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_reduce_of_more_than_two_to_the_31_in_place),
        cmocka_unit_test(send_and_recv_of_more_than_two_to_the_31),
    };

    return cmocka_run_group_tests(tests, enough_memory, NULL);
}
