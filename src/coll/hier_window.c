/* Windows of a communicator on several hosts: they help the steps within a host, and are registered with the network,
 * once, for what is sent from them. */
#include <stdio.h>
#include <stdlib.h>

#include "coll/hier_parts.h"

struct registration {
    int32_t result, rank;
    uint64_t bytes;
};

/* All hosts have managed, with as many bytes, or none keeps its window. */
static tutti_result agree(struct tt_engine *e, tutti_result mine, size_t bytes)
{
    const struct registration one = {mine, e->rank, bytes};
    struct registration *all = calloc((size_t)e->n_ranks, sizeof(*all));
    const struct tt_call call = {.coll = TT_COLL_ALL_GATHER,
                                 .dtype = TUTTI_DTYPE_U8,
                                 .send = &one,
                                 .recv = all,
                                 .count = sizeof(one),
                                 .thread = TT_CALL_UNCOUNTED,
                                 .purpose = TT_FOR_REGISTER};
    char text[256];
    tutti_result res;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to agree on a window");
    snprintf(text, sizeof(text), "%s", mine == TUTTI_OK ? "" : tt_error_text());
    res = tt_hier_run(e, &call);
    if (res == TUTTI_OK && mine != TUTTI_OK)
        res = TT_FAIL(mine, "%s", text);
    for (int r = 0; res == TUTTI_OK && r < e->n_ranks; r++) {
        if (all[r].result != TUTTI_OK)
            res = TT_FAIL((tutti_result)all[r].result, "rank %d could not register its memory: %s",
                          r, tt_result_text((tutti_result)all[r].result));
        else if (all[r].bytes != bytes)
            res = TT_FAIL(TUTTI_E_MISMATCH,
                          "window_register of %zu bytes on rank %d meets one of %llu on rank %d",
                          bytes, e->rank, (unsigned long long)all[r].bytes, r);
    }
    free(all);
    return res;
}

/* ---- the network's ---- */

static void lend(struct tt_engine *e, const tutti_window *window, void *ptr, size_t bytes)
{
    struct tt_hier_window *w = calloc(1, sizeof(*w));

    if (!w) /* messages are sent from it all the same */
        return;
    w->window = window;
    tt_wire_lend(e->wire, ptr, bytes, &w->lent);
    w->next = e->windows;
    e->windows = w;
}

static void take_back(struct tt_engine *e, const tutti_window *window)
{
    struct tt_hier_window **at = &e->windows, *w;

    while (*at && (*at)->window != window)
        at = &(*at)->next;
    w = *at;
    if (!w)
        return;
    *at = w->next;
    tt_wire_take_back(w->lent);
    free(w);
}

void tt_hier_windows_free(struct tt_engine *e)
{
    while (e->windows) {
        struct tt_hier_window *w = e->windows;

        e->windows = w->next;
        free(w); /* what was lent is gone with the network */
    }
}

/* ---- both ---- */

tutti_result tt_hier_window_register(struct tt_engine *e, void *ptr, size_t bytes,
                                     tutti_window **window_out)
{
    tutti_window *window = NULL;
    const tutti_result mine = e->ops->window_register(e->local_engine, ptr, bytes, &window);
    const tutti_result res = agree(e, mine, bytes);
    char text[256];

    if (res == TUTTI_OK) {
        lend(e, window, ptr, bytes);
        *window_out = window;
        return TUTTI_OK;
    }
    if (mine != TUTTI_OK)
        return res;
    snprintf(text, sizeof(text), "%s", tt_error_text());
    (void)e->ops->window_deregister(e->local_engine, window);
    return TT_FAIL(res, "%s", text);
}

tutti_result tt_hier_window_deregister(struct tt_engine *e, tutti_window *window)
{
    take_back(e, window);
    return e->ops->window_deregister(e->local_engine, window);
}
