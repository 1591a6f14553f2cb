/* Which ranks share a host: pure functions on what the ranks say of themselves. */
#ifndef TT_TOPO_HOST_H
#define TT_TOPO_HOST_H

#include <stddef.h>

#include <tutti/tutti.h>

/* What a rank says of the machine it runs on. */
struct tt_host_card {
    char boot_id[40]; /* of the running kernel: differs between machines and between boots */
    char name[64];
    char label[64]; /* TUTTI_HOST: ranks with different ones count as on different hosts */
};

/* TUTTI_E_SYSTEM if the system is too short of something to say. */
tutti_result tt_host_read(struct tt_host_card *card);

/* Number the hosts in order of their first rank: host_of[rank]. Returns how many there are. */
int tt_host_group(const struct tt_host_card cards[], int n_ranks, int host_of[]);

/* How many ranks run on the machine of rank r, whatever hosts they count as being on. */
int tt_host_nearby(const struct tt_host_card cards[], int n_ranks, int r);

/* "ranks 0-3 on alpha, ranks 4-7 on beta" */
void tt_host_text(const struct tt_host_card cards[], const int host_of[], int n_ranks, char *text,
                  size_t bytes);

#endif
