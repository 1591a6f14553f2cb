/*
 * A slow, lossy or narrow link between two network namespaces, for scripts/net_check.sh:
 *     net_relay NAMESPACE NAMESPACE INTERFACE DELAY_US LOSS_PERCENT MBIT     (0: none of it)
 */
#include <stdio.h>
#include <stdlib.h>

#include "support/relay.h"

int main(int argc, char **argv)
{
    char paths[2][256];
    struct relay relay = {.net = {paths[0], paths[1]}};
    int fds[2];

    if (argc != 7) {
        fprintf(stderr, "net_relay NAMESPACE NAMESPACE INTERFACE DELAY_US LOSS_PERCENT MBIT\n");
        return 2;
    }
    for (int i = 0; i < 2; i++)
        snprintf(paths[i], sizeof(paths[i]), "/run/netns/%s", argv[1 + i]);
    relay.name = argv[3];
    relay.delay_us = (unsigned)strtoul(argv[4], NULL, 10);
    relay.loss = strtod(argv[5], NULL) / 100;
    relay.mbit = strtod(argv[6], NULL);
    if (relay_open(&relay, fds) != 0) {
        perror("net_relay: no TAP");
        return 1;
    }
    relay_run(&relay, fds);
    return 0;
}
