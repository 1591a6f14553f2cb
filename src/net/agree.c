/* Collective steps of creation: either all ranks take them, or all know which rank could not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "boot/boot.h"
#include "net/net_parts.h"

#define TEXT_BYTES 320

struct head {
    int32_t result;
    char text[TEXT_BYTES];
};

tutti_result tt_net_gather(const struct tt_net *net, const struct tt_exchange *exchange,
                           tutti_result mine, const void *record, void *records, size_t bytes)
{
    const size_t each = sizeof(struct head) + bytes;
    const size_t n = (size_t)exchange->n_ranks;
    unsigned char *all = calloc(n + 1, each);
    unsigned char *own = all ? all + n * each : NULL;
    struct head head = {.result = mine};
    tutti_result result;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu records of the network", n);
    if (mine != TUTTI_OK)
        snprintf(head.text, sizeof(head.text), "%s", tt_error_text());
    memcpy(own, &head, sizeof(head));
    memcpy(own + sizeof(head), record, bytes);
    result = exchange->all_gather(exchange->context, own, all, each);
    if (result != TUTTI_OK && mine != TUTTI_OK) /* the others have gone; the own reason says more */
        result = TT_FAIL(mine, "%s", head.text);
    for (size_t i = 0; i < n && result == TUTTI_OK; i++) {
        memcpy(&head, all + i * each, sizeof(head));
        head.text[sizeof(head.text) - 1] = 0;
        memcpy((unsigned char *)records + i * bytes, all + i * each + sizeof(head), bytes);
        if (head.result == TUTTI_OK)
            continue;
        result = (tutti_result)head.result;
        if ((int)i == exchange->rank)
            TT_FAIL(result, "%s", head.text);
        else
            TT_FAIL(result, "rank %zu%s%s has no network: %s", i,
                    net->ranks[i].host[0] ? " on " : "", net->ranks[i].host, head.text);
    }
    free(all);
    return result;
}
