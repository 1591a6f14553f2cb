/* Communicators divided by color and key, and divided again, in use beside their parents. */
#include <unistd.h>

#include "support/proc.h"
#include "support/job.h"

static int sum_of_ranks(tutti_comm *comm, int mine)
{
    int sum = mine;

    T_OK(tutti_all_reduce(comm, &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    return sum;
}

static tutti_comm_info info_of(const tutti_comm *comm)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;

    T_OK(tutti_comm_query(comm, &info));
    return info;
}

T_RANKS(even_and_odd_ranks, 5)
{
    tutti_comm *half;

    T_OK(tutti_comm_split(t->comm, t->rank % 2, 0, &half));
    const tutti_comm_info info = info_of(half);
    T_CHECK(info.n_ranks == (t->rank % 2 ? 2 : 3), "%d ranks", info.n_ranks);
    T_CHECK(info.rank == t->rank / 2, "rank %d", info.rank);
    for (int i = 0; i < 50; i++) {
        const int sum = sum_of_ranks(half, t->rank);

        T_CHECK(sum == (t->rank % 2 ? 4 : 6), "half's sum is %d", sum);
        T_CHECK(sum_of_ranks(t->comm, t->rank) == 10, "the whole's sum is wrong");
    }
    tutti_comm_destroy(half);
    T_OK(tutti_barrier(t->comm, NULL));
}

T_RANKS(keys_order_the_ranks, 4)
{
    int all[4], mine = t->rank;
    tutti_comm *reversed, *tied;

    T_OK(tutti_comm_split(t->comm, 7, -10 * t->rank, &reversed));
    T_CHECK(info_of(reversed).rank == 3 - t->rank, "rank %d", info_of(reversed).rank);
    T_OK(tutti_all_gather(reversed, &mine, all, 1, TUTTI_DTYPE_I32, NULL));
    for (int r = 0; r < 4; r++)
        T_CHECK(all[r] == 3 - r, "all[%d] is %d", r, all[r]);
    T_OK(tutti_comm_split(t->comm, 0, t->rank >= 2 ? 0 : 1, &tied)); /* 2 3 0 1 */
    T_CHECK(info_of(tied).rank == (t->rank + 2) % 4, "rank %d", info_of(tied).rank);
    tutti_comm_destroy(reversed);
    tutti_comm_destroy(tied);
}

T_RANKS(a_negative_color_gets_none, 4)
{
    tutti_comm *part = (tutti_comm *)&part;

    T_OK(tutti_comm_split(t->comm, t->rank == 2 ? -1 : 3, 0, &part));
    T_CHECK((part == NULL) == (t->rank == 2), "rank %d got %p", t->rank, (void *)part);
    if (part != NULL)
        T_CHECK(sum_of_ranks(part, t->rank) == 4, "wrong sum");
    tutti_comm_destroy(part);
    T_OK(tutti_comm_split(t->comm, -5, 0, &part)); /* nobody gets one */
    T_CHECK(part == NULL, "got %p", (void *)part);
    T_CHECK(sum_of_ranks(t->comm, t->rank) == 6, "wrong sum");
}

T_RANKS(splits_of_splits, 8)
{
    tutti_comm *half, *quarter, *alone;

    T_OK(tutti_comm_split(t->comm, t->rank / 4, 0, &half));
    T_OK(tutti_comm_split(half, t->rank / 2, 0, &quarter));
    T_OK(tutti_comm_split(quarter, t->rank, 0, &alone));
    T_CHECK(sum_of_ranks(half, 1) == 4 && sum_of_ranks(quarter, 1) == 2, "wrong sizes");
    T_CHECK(sum_of_ranks(alone, t->rank) == t->rank, "not alone");
    tutti_comm_destroy(half); /* the parent may go first */
    for (int i = 0; i < 20; i++)
        T_CHECK(sum_of_ranks(quarter, t->rank) == t->rank / 2 * 4 + 1, "quarter's sum is wrong");
    tutti_comm_destroy(alone);
    tutti_comm_destroy(quarter);
}

T_RANKS(a_split_inherits_timeout_and_name, 2)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *parent, *child;

    config.timeout_ms = 12345;
    config.name = "tp-group";
    T_OK(t_comm_create(t, 2, &config, &parent));
    T_OK(tutti_comm_split(parent, 0, 0, &child));
    T_CHECK(info_of(child).timeout_ms == 12345, "timeout");
    T_CONTAINS(info_of(child).name, "tp-group");
    tutti_comm_destroy(child);
    tutti_comm_destroy(parent);
}

static void tuned(struct t_rank *t)
{
    const char *path = t->arg;
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *parent, *half, *again;

    config.tune_file = t->rank == 0 || t->rank == 3 ? path : NULL;
    T_OK(t_comm_create(t, 1, &config, &parent));
    T_CHECK(strstr(info_of(parent).details, path) == NULL, "rows for 4 ranks");
    for (int sign = -1; sign <= 1; sign += 2) { /* ranks 1 and 3, then 0 and 2 are the new rank 0 */
        T_OK(tutti_comm_split(parent, t->rank / 2, sign * t->rank, &half));
        T_CHECK((strstr(info_of(half).details, path) != NULL) == ((t->rank < 2) == (sign > 0)),
                "rank %d, order %d: %s", t->rank, sign, info_of(half).details);
        T_OK(tutti_comm_split(half, 0, -info_of(half).rank, &again)); /* a split of a split */
        T_CHECK((strstr(info_of(again).details, path) != NULL) == ((t->rank < 2) == (sign < 0)),
                "rank %d, order %d, again: %s", t->rank, sign, info_of(again).details);
        T_CHECK(sum_of_ranks(again, t->rank) == (t->rank < 2 ? 1 : 5), "wrong sum");
        tutti_comm_destroy(again);
        tutti_comm_destroy(half);
    }
    tutti_comm_destroy(parent);
}

/* The new rank 0 reads what it was told of for the parent, for the new number of ranks. */
static void a_split_is_tuned_like_any_other(void **state)
{
    char path[] = "/tmp/tutti-test-XXXXXX";
    const struct t_job job = {.n_ranks = 4, .no_comm = 1, .body = tuned, .arg = path};
    const int fd = mkstemp(path);
    char text[4096];
    int failed;

    (void)state;
    T_SYS(fd);
    T_SYS(dprintf(fd, "tutti-tune 1\nall_reduce 2 inf two_shot\n"));
    close(fd);
    failed = t_run_quietly(&job, text, sizeof(text));
    unlink(path);
    T_CHECK(!failed, "%s", text);
}

T_RANKS(many_splits_leave_nothing, 3)
{
    struct t_holdings before;
    tutti_comm *part;

    for (unsigned i = 0; i < t_times(30, 1000); i++) {
        T_OK(tutti_comm_split(t->comm, (t->rank + (int)i) % 2, 0, &part));
        T_OK(tutti_barrier(part, NULL));
        tutti_comm_destroy(part);
        if (i == 2)
            before = t_holdings_now();
        if (i > 2 && i % 10 == 0)
            t_check_holdings(&before, 2, "after splits");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_and_odd_ranks),
        cmocka_unit_test(keys_order_the_ranks),
        cmocka_unit_test(a_negative_color_gets_none),
        cmocka_unit_test(splits_of_splits),
        cmocka_unit_test(a_split_inherits_timeout_and_name),
        cmocka_unit_test(a_split_is_tuned_like_any_other),
        cmocka_unit_test(many_splits_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
