#include "topo/host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

tutti_result tt_host_read(struct tt_host_card *card)
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    /* A host that cannot be told for want of a descriptor must not look like another host. */
    if (!f && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return TT_FAIL_SYS("cannot read which host this is");
    memset(card, 0, sizeof(*card));
    if (f) {
        if (fscanf(f, "%39s", card->boot_id) != 1)
            card->boot_id[0] = 0;
        fclose(f);
    }
    if (gethostname(card->name, sizeof(card->name) - 1) != 0)
        snprintf(card->name, sizeof(card->name), "?");
    if (!card->boot_id[0]) /* no /proc/sys: the name has to do */
        snprintf(card->boot_id, sizeof(card->boot_id), "%.39s", card->name);
    return TUTTI_OK;
}

int tt_host_group(const struct tt_host_card cards[], int n_ranks, int host_of[])
{
    int n_hosts = 0;

    for (int r = 0; r < n_ranks; r++) {
        int q = 0;

        while (q < r && strncmp(cards[q].boot_id, cards[r].boot_id, sizeof(cards[r].boot_id)) != 0)
            q++;
        host_of[r] = q < r ? host_of[q] : n_hosts++;
    }
    return n_hosts;
}

void tt_host_text(const struct tt_host_card cards[], const int host_of[], int n_ranks, char *text,
                  size_t bytes)
{
    size_t used = 0;

    text[0] = 0;
    for (int r = 0; r < n_ranks && used < bytes;) {
        int last = r, n;

        while (last + 1 < n_ranks && host_of[last + 1] == host_of[r])
            last++;
        if (last == r)
            n = snprintf(text + used, bytes - used, "%srank %d on %.63s", r ? ", " : "", r,
                         cards[r].name);
        else
            n = snprintf(text + used, bytes - used, "%sranks %d-%d on %.63s", r ? ", " : "", r,
                         last, cards[r].name);
        if (n < 0)
            break;
        used += (size_t)n;
        r = last + 1;
    }
}
