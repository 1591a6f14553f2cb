#include "topo/host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
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
    if (strlen(tt_env_text(TT_ENV_TUTTI_HOST)) >= sizeof(card->label))
        return TT_FAIL(TUTTI_E_ARG, "TUTTI_HOST=%.20s...: at most %zu characters",
                       tt_env_text(TT_ENV_TUTTI_HOST), sizeof(card->label) - 1);
    snprintf(card->label, sizeof(card->label), "%s", tt_env_text(TT_ENV_TUTTI_HOST));
    if (card->label[0])
        snprintf(card->name, sizeof(card->name), "%s", card->label);
    return TUTTI_OK;
}

static int same_machine(const struct tt_host_card *a, const struct tt_host_card *b)
{
    return strncmp(a->boot_id, b->boot_id, sizeof(a->boot_id)) == 0;
}

static int same_host(const struct tt_host_card *a, const struct tt_host_card *b)
{
    return same_machine(a, b) && strncmp(a->label, b->label, sizeof(a->label)) == 0;
}

int tt_host_nearby(const struct tt_host_card cards[], int n_ranks, int r)
{
    int n = 0;

    for (int q = 0; q < n_ranks; q++)
        n += same_machine(&cards[q], &cards[r]);
    return n;
}

int tt_host_group(const struct tt_host_card cards[], int n_ranks, int host_of[])
{
    int n_hosts = 0;

    for (int r = 0; r < n_ranks; r++) {
        int q = 0;

        while (q < r && !same_host(&cards[q], &cards[r]))
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
