/* RDMA ports and which of them is near, in a /sys of our own. */
#include "fake_tree.h"

#include "topo/rails.h"

static void add_link(const char *path, const char *to)
{
    char from[400], target[400];

    tree_add(path, NULL);
    snprintf(from, sizeof(from), "%s/%s", tree, path);
    snprintf(target, sizeof(target), "%s/%s", tree, to);
    assert_int_equal(symlink(target, from), 0);
}

static void add_device(const char *where, const char *node, const char *cores)
{
    const char *name = strrchr(where, '/') + 1;
    char path[300];

    snprintf(path, sizeof(path), "%s/numa_node", where);
    tree_add(path, node);
    snprintf(path, sizeof(path), "%s/local_cpulist", where);
    tree_add(path, cores);
    snprintf(path, sizeof(path), "bus/pci/devices/%s", name);
    add_link(path, where);
}

static void add_card(const char *card, const char *where, const char *port1, const char *port2)
{
    const char *const states[] = {port1, port2};
    char path[300];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "class/infiniband/%s/ports/%d/state", card, i + 1);
        if (states[i])
            tree_add(path, states[i]);
    }
    snprintf(path, sizeof(path), "class/infiniband/%s/device", card);
    add_link(path, where);
}

static int tear_down(void **state)
{
    (void)state;
    return tree_remove();
}

/* Two sockets. On the first a GPU and a card behind one switch, and another card; on the second a GPU with a card
 * whose second port is the one in use, and below other roots another card and another GPU. */
static int set_up(void **state)
{
    static const char up[] = "4: ACTIVE\n", down[] = "1: DOWN\n";

    (void)state;
    if (!mkdtemp(tree))
        return -1;
    add_device("devices/pci0000:10/0000:10:01.0/0000:17:00.0", "0\n", "0-1022\n");
    add_device("devices/pci0000:10/0000:10:01.0/0000:18:00.0", "0\n", "1023\n");
    add_device("devices/pci0000:10/0000:10:02.0/0000:27:00.0", "0\n", "1023\n");
    add_device("devices/pci0000:90/0000:90:01.0/0000:9a:00.0", "1\n", "0-1022\n");
    add_device("devices/pci0000:90/0000:90:01.0/0000:9b:00.0", "1\n", "0-1022\n");
    add_device("devices/pci0000:a0/0000:a1:00.0", "1\n", "0-1022\n");
    add_device("devices/pci0000:b0/0000:b1:00.0", "1\n", "0-1022\n");
    add_card("mlx5_0", "devices/pci0000:10/0000:10:01.0/0000:18:00.0", up, NULL);
    add_card("mlx5_1", "devices/pci0000:10/0000:10:02.0/0000:27:00.0", up, NULL);
    add_card("mlx5_2", "devices/pci0000:90/0000:90:01.0/0000:9b:00.0", down, up);
    add_card("mlx5_3", "devices/pci0000:a0/0000:a1:00.0", up, NULL);
    add_card("mlx5_4", "devices/pci0000:a0/0000:a1:00.0", down, NULL);
    return 0;
}

static void nearest_is(const char *gpu, int turn, const char *want)
{
    char text[64];

    tt_rails_nearest(tree, gpu, turn, text, sizeof(text));
    assert_string_equal(text, want);
}

static void active_ports_are_listed(void **state)
{
    char text[64];

    (void)state;
    tt_rails_list(tree, text, sizeof(text));
    assert_string_equal(text, ",mlx5_0:1,mlx5_1:1,mlx5_2:2,mlx5_3:1");
    tt_rails_list(tree, text, 12); /* what does not fit is left out as a whole */
    assert_string_equal(text, ",mlx5_0:1");
    tt_rails_list("/nowhere", text, sizeof(text));
    assert_string_equal(text, "");
    tt_rails_nearest("/nowhere", "0000:17:00.0", 0, text, sizeof(text));
    assert_string_equal(text, "");
}

static void a_gpu_has_the_card_behind_its_switch(void **state)
{
    (void)state;
    for (int turn = 0; turn < 3; turn++) {
        nearest_is("0000:17:00.0", turn, ",mlx5_0:1");
        nearest_is("0000:9A:00.0", turn, ",mlx5_2:2"); /* as CUDA writes it */
    }
}

static void else_one_at_its_socket_each_another(void **state)
{
    (void)state;
    nearest_is("0000:b1:00.0", 0, ",mlx5_2:2");
    nearest_is("0000:b1:00.0", 1, ",mlx5_3:1");
    nearest_is("0000:b1:00.0", 2, ",mlx5_2:2");
    nearest_is("0000:55:00.0", 1, ",mlx5_1:1"); /* a GPU that /sys does not know */
}

static void cores_have_those_at_their_socket(void **state)
{
    (void)state;
    nearest_is("", 0, ",mlx5_2:2");
    nearest_is("", 1, ",mlx5_3:1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(active_ports_are_listed),
        cmocka_unit_test(a_gpu_has_the_card_behind_its_switch),
        cmocka_unit_test(else_one_at_its_socket_each_another),
        cmocka_unit_test(cores_have_those_at_their_socket),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
