/* ctest: ranks=2 args=memory as=memory */
/* ctest: ranks=3 */
/*
 * One-sided: messages go round a ring. Every rank puts what it has straight into its right neighbour's
 * memory and raises a counter there; nobody calls receive. By port: through a thread of the library and
 * the network, as between hosts. With the word "memory": by loads and stores, if ranks share a host.
 *
 *     tutti run -n 3 -- ./03_port_channel
 */
#include <stdio.h>
#include <string.h>
#include <tutti/device.h>

enum { BYTES = 4096, LAPS = 100 };

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, tutti_last_error());
    return 1;
}

/* Round k sends from one half of the memory and receives in the other. The answer says that the half
 * which was sent from may be written again. */
static int go_round(const tutti_channel *left, const tutti_channel *right, uint64_t n_rounds)
{
    for (uint64_t k = 1; k <= n_rounds; k++) {
        const uint64_t from = k % 2 * BYTES, to = BYTES - from;

        if (tutti_channel_put_with_signal(right, to, from, BYTES, 0, 1) != TUTTI_OK)
            return failed("put");
        if (tutti_channel_wait(left, k) != TUTTI_OK || tutti_channel_flush(right) != TUTTI_OK ||
            tutti_channel_signal(left) != TUTTI_OK)
            return failed("receive");
        if (tutti_channel_wait(right, k) != TUTTI_OK)
            return failed("answer");
    }
    return 0;
}

int main(int argc, char **argv)
{
    tutti_channel_config config = TUTTI_CHANNEL_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_channel left, right;
    tutti_channel_set *set;
    tutti_comm *comm;
    char text[64], *home;
    void *memory;
    int l, r, bad;

    if (tutti_comm_create_from_env(NULL, &comm) != TUTTI_OK ||
        tutti_comm_query(comm, &info) != TUTTI_OK)
        return failed("create");
    l = (info.rank + info.n_ranks - 1) % info.n_ranks;
    r = (info.rank + 1) % info.n_ranks;
    if (tutti_mem_alloc(comm, (size_t)2 * BYTES, &memory) != TUTTI_OK)
        return failed("memory");
    home = (char *)memory + BYTES; /* where round 1 sends from, and the last one arrives */
    snprintf(text, sizeof(text), "hello from rank %d", info.rank);
    memcpy(home, text, sizeof(text));

    config.n_channels = 2; /* in a ring of two the right neighbour is the left one, too */
    config.flags = argc > 1 && strcmp(argv[1], "memory") == 0 ? 0 : TUTTI_CHANNELS_BY_PORT;
    if (tutti_channel_set_create(comm, memory, (size_t)2 * BYTES, &config, &set) != TUTTI_OK)
        return failed("channels");
    if (tutti_channel_get(set, l, l > info.rank, TUTTI_CHANNEL_HOST, &left) != TUTTI_OK ||
        tutti_channel_get(set, r, info.rank > r, TUTTI_CHANNEL_HOST, &right) != TUTTI_OK)
        return failed("channel");
    bad = go_round(&left, &right, 2 * LAPS * (uint64_t)info.n_ranks);
    printf("rank %d: \"%s\" has come home\n", info.rank, home);
    bad |= strcmp(home, text) != 0 || tutti_channel_set_destroy(set) != TUTTI_OK;
    tutti_mem_free(comm, memory);
    tutti_comm_destroy(comm);
    return bad;
}
