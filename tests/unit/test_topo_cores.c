/* Lists of cores as the kernel writes them, and quotas of control groups. */
#include "fake_tree.h"

#include "topo/cores.h"

static void lists_are_read(void **state)
{
    cpu_set_t cores;

    (void)state;
    assert_int_equal(tt_cores_parse("0-3,8,10-11\n", &cores), 0);
    assert_int_equal(CPU_COUNT(&cores), 7);
    assert_true(CPU_ISSET(0, &cores) && CPU_ISSET(3, &cores) && CPU_ISSET(8, &cores));
    assert_true(CPU_ISSET(10, &cores) && CPU_ISSET(11, &cores) && !CPU_ISSET(4, &cores));
    assert_int_equal(tt_cores_parse("5", &cores), 0);
    assert_true(CPU_COUNT(&cores) == 1 && CPU_ISSET(5, &cores));
    assert_int_equal(tt_cores_parse("\n", &cores), 0); /* a device without a node */
    assert_int_equal(CPU_COUNT(&cores), 0);
}

static void what_is_no_list_is_refused(void **state)
{
    static const char *const lists[] = {"a",  "1-",      "3-1", "1,,2", "1 2",
                                        "-4", "1-99999", "0x3", "1;"};
    cpu_set_t cores;

    (void)state;
    CPU_ZERO(&cores);
    CPU_SET(7, &cores);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        assert_int_equal(tt_cores_parse(lists[i], &cores), -1);
    assert_true(CPU_COUNT(&cores) == 1 && CPU_ISSET(7, &cores));
    assert_int_equal(tt_cores_near("no:such:device.0", &cores), 0);
    assert_int_equal(tt_cores_near("../../../proc", &cores), 0);
    assert_true(CPU_COUNT(&cores) == 1 && CPU_ISSET(7, &cores));
}

/* The quota in a /proc and a /sys with these files: a list of pairs of path and content. */
static uint32_t quota(const char *const files[])
{
    uint32_t n;

    snprintf(strstr(tree, "-tree-"), sizeof("-tree-XXXXXX"), "-tree-XXXXXX");
    assert_non_null(mkdtemp(tree));
    for (; files[0]; files += 2)
        tree_add(files[0], files[1]);
    n = tt_cores_quota(tree);
    assert_int_equal(tree_remove(), 0);
    return n;
}

#define QUOTA(...) quota((const char *const[]){__VA_ARGS__, NULL})

static void the_quota_of_a_process_is_that_of_its_group(void **state)
{
    (void)state;
    /* A slice of a host, as seen without a namespace of its own. The root has no such file. */
    assert_int_equal(QUOTA("proc/self/cgroup", "0::/a.slice/b.scope\n",
                           "sys/fs/cgroup/a.slice/b.scope/cpu.max", "150000 100000\n",
                           "sys/fs/cgroup/a.slice/cpu.max", "max 100000\n"),
                     2);
    /* A container with a namespace of its own: its group is the root that it sees. */
    assert_int_equal(
        QUOTA("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/cpu.max", "300000 100000\n"), 3);
    /* One without a namespace, whose files are where it sees the root. */
    assert_int_equal(
        QUOTA("proc/self/cgroup", "0::/docker/0123\n", "sys/fs/cgroup/cpu.max", "20000 10000\n"),
        2);
    assert_int_equal(QUOTA("proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/cpu.max", "max 100000\n",
                           "sys/fs/cgroup/b/cpu.max", "100000 100000\n"),
                     0);
    assert_int_equal(QUOTA("proc/self/status", ""), 0);
}

static void the_shortest_quota_on_the_way_up_counts(void **state)
{
    (void)state;
    assert_int_equal(QUOTA("proc/self/cgroup", "0::/a/b/c\n", "sys/fs/cgroup/a/b/c/cpu.max",
                           "800000 100000\n", "sys/fs/cgroup/a/b/cpu.max", "max 100000\n",
                           "sys/fs/cgroup/a/cpu.max", "400000 100000\n"),
                     4);
    assert_int_equal(QUOTA("proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max",
                           "50000 100000\n", "sys/fs/cgroup/a/cpu.max", "400000 100000\n"),
                     1);
}

static void both_versions_are_read(void **state)
{
    static const char list[] = "9:name=systemd:/x\n5:cpuset:/set\n4:cpu,cpuacct:/job/step\n0::/\n";

    (void)state;
    assert_int_equal(QUOTA("proc/self/cgroup", list, "sys/fs/cgroup/cpu/job/step/cpu.cfs_quota_us",
                           "-1\n", "sys/fs/cgroup/cpu/job/step/cpu.cfs_period_us", "100000\n",
                           "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "250000\n",
                           "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "50000\n"),
                     5);
    assert_int_equal(QUOTA("proc/self/cgroup", "4:cpuacct,cpu:/y\n",
                           "sys/fs/cgroup/cpu/y/cpu.cfs_quota_us", "100000\n",
                           "sys/fs/cgroup/cpu/y/cpu.cfs_period_us", "100000\n"),
                     1);
    assert_int_equal(QUOTA("proc/self/cgroup", "5:cpuset:/set\n",
                           "sys/fs/cgroup/cpu/set/cpu.cfs_quota_us", "100000\n",
                           "sys/fs/cgroup/cpu/set/cpu.cfs_period_us", "100000\n"),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read),
        cmocka_unit_test(what_is_no_list_is_refused),
        cmocka_unit_test(the_quota_of_a_process_is_that_of_its_group),
        cmocka_unit_test(the_shortest_quota_on_the_way_up_counts),
        cmocka_unit_test(both_versions_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
