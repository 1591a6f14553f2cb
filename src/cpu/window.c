/* Windows: memory of all ranks that every rank has mapped (the pages themselves: pages.c). */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/cpu.h"

tutti_result tt_cpu_mem_alloc(struct tt_engine *e, size_t bytes, void **ptr_out)
{
    (void)e;
    return tt_pages_alloc(bytes, ptr_out);
}

tutti_result tt_cpu_mem_free(struct tt_engine *e, void *ptr)
{
    (void)e;
    return tt_pages_free(ptr);
}

uint64_t tt_window_word(const tutti_window *w, const void *ptr)
{
    return (uint64_t)w->index << TT_WINDOW_SHIFT | (uint64_t)((const unsigned char *)ptr - w->mine);
}

/* Few windows, and calls come back to the same buffers: the last hit of each of 64 slots answers
 * almost always. A miss walks the list, once per buffer. */
tutti_window *tt_cpu_window_find(struct tt_engine *e, const void *ptr, size_t bytes)
{
    const uintptr_t at = (uintptr_t)ptr;
    tutti_window *_Atomic *slot = &e->recent[(at >> 12 ^ at >> 21) % TT_LEN(e->recent)];
    tutti_window *w = atomic_load_explicit(slot, memory_order_relaxed); /* a team may ask at once */

    if (w && at - (uintptr_t)w->mine < w->bytes && bytes <= w->bytes - (at - (uintptr_t)w->mine))
        return w;
    for (uint32_t i = 0; i < e->n_windows; i++) {
        w = e->windows[i];
        if (w && at - (uintptr_t)w->mine < w->bytes &&
            bytes <= w->bytes - (at - (uintptr_t)w->mine)) {
            atomic_store_explicit(slot, w, memory_order_relaxed);
            return w;
        }
    }
    return NULL;
}

void *tt_cpu_window_base(struct tt_engine *e, const tutti_window *window, int rank)
{
    (void)e;
    return window->base[rank];
}

/* What the ranks tell each other about a registration. */
struct offer {
    uint64_t bytes;
    uint64_t map_bytes;
    uint64_t address;
    uint32_t page_offset; /* of the window in its first page */
    uint32_t n_parts;
    struct {
        uint64_t file_offset, bytes;
    } part[TT_MAX_PARTS];
};

static void window_free(tutti_window *w)
{
    if (!w)
        return;
    for (int r = 0; w->maps && r < w->e->n_ranks; r++)
        if (w->maps[r].at)
            munmap(w->maps[r].at, w->maps[r].bytes);
    tt_pages_release(&w->parts);
    free(w->maps);
    free(w->base);
    free(w);
}

static tutti_result window_new(struct tt_engine *e, void *ptr, size_t bytes, tutti_window **w_out)
{
    tutti_window *w = calloc(1, sizeof(*w));
    tutti_result res;

    if (!w)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a window");
    w->e = e;
    w->mine = ptr;
    w->bytes = bytes;
    w->base = calloc((size_t)e->n_ranks, sizeof(*w->base));
    w->maps = calloc((size_t)e->n_ranks, sizeof(*w->maps));
    res = w->base && w->maps ? tt_pages_share(ptr, bytes, &w->parts)
                             : TT_FAIL(TUTTI_E_MEMORY, "no memory for a window");
    if (res != TUTTI_OK) {
        window_free(w);
        return res;
    }
    w->base[e->rank] = ptr;
    *w_out = w;
    return TUTTI_OK;
}

/* A thread of this process needs no mapping: its memory is here already. */
static int same_process(const struct tt_engine *e, int r)
{
    return r == e->rank || e->peers[r].pid == getpid();
}

/* Room for the whole of every peer's buffer; its parts are then mapped into it. */
static tutti_result reserve(tutti_window *w, const struct offer *offers)
{
    for (int r = 0; r < w->e->n_ranks; r++) {
        void *at;

        if (same_process(w->e, r)) {
            w->base[r] = (unsigned char *)(uintptr_t)offers[r].address;
            continue;
        }
        at = mmap(NULL, offers[r].map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
        if (at == MAP_FAILED)
            return TT_FAIL_SYS("no address space for the %llu bytes that rank %d registered",
                               (unsigned long long)offers[r].bytes, r);
        w->maps[r].at = at;
        w->maps[r].bytes = offers[r].map_bytes;
        w->base[r] = (unsigned char *)at + offers[r].page_offset;
    }
    return TUTTI_OK;
}

static tutti_result map_part(tutti_window *w, const struct offer *offers, uint32_t part, int fds[])
{
    tutti_result res = TUTTI_OK;

    for (int r = 0; r < w->e->n_ranks; r++) {
        unsigned char *at = w->maps[r].at;

        if (fds[r] < 0)
            continue;
        if (!at) {
            close(fds[r]);
            fds[r] = -1;
            continue;
        }
        for (uint32_t p = 0; p < part; p++)
            at += offers[r].part[p].bytes;
        if (res == TUTTI_OK && mmap(at, offers[r].part[part].bytes, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_FIXED | MAP_POPULATE, fds[r],
                                    (off_t)offers[r].part[part].file_offset) == MAP_FAILED)
            res = TT_FAIL_SYS("cannot map %llu bytes that rank %d registered",
                              (unsigned long long)offers[r].part[part].bytes, r);
        close(fds[r]);
        fds[r] = -1;
    }
    return res;
}

/* Hand out this rank's files and map the others': a round for each part that anybody has. A rank that could
 * not take one's files goes on, with nothing to map: the others wait for it in every round. */
static tutti_result map_peers(tutti_window *w, const struct offer *offers, int fds[])
{
    struct tt_engine *e = w->e;
    tutti_result res = reserve(w, offers);
    uint32_t rounds = 0;

    for (int r = 0; r < e->n_ranks; r++)
        rounds = offers[r].n_parts > rounds ? offers[r].n_parts : rounds;
    for (uint32_t p = 0; p < rounds; p++) {
        const int fd = p < w->parts.n ? w->parts.part[p].fd : -1;
        tutti_result one =
            tt_fd_mesh_exchange(e->mesh, ++e->mesh_round, fd, fds, tt_now_ns() + e->timeout_ns);

        if (tt_fd_mesh_is_over(one)) /* there are no further rounds */
            return one;
        if (res == TUTTI_OK)
            res = one;
        if (res == TUTTI_OK)
            res = map_part(w, offers, p, fds);
        else
            for (int r = 0; r < e->n_ranks; r++)
                if (fds[r] >= 0)
                    close(fds[r]);
    }
    return res;
}

static tutti_result windows_grow(struct tt_engine *e)
{
    uint32_t max = e->n_windows_max ? 2 * e->n_windows_max : 16;
    tutti_window **list;

    if (e->n_windows < e->n_windows_max)
        return TUTTI_OK;
    if (e->n_windows >= 65535)
        return TT_FAIL(TUTTI_E_MEMORY, "65535 windows are registered with this communicator");
    list = realloc(e->windows, max * sizeof(*list));
    if (!list)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %u windows", max);
    e->windows = list;
    e->n_windows_max = max;
    return TUTTI_OK;
}

/* Did every rank manage? All must answer alike, or the windows would get out of step. */
static tutti_result agree(struct tt_engine *e, tutti_result mine)
{
    int32_t *all = calloc((size_t)e->n_ranks, sizeof(*all));
    int32_t one = mine;
    tutti_result res = mine;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to agree on a window");
    if (tt_cpu_exchange(e, TT_FOR_REGISTER, &one, all, sizeof(one)) != TUTTI_OK)
        res = mine != TUTTI_OK ? mine : tt_engine_failed(e);
    for (int r = 0; res == TUTTI_OK && r < e->n_ranks; r++)
        if (all[r] != TUTTI_OK)
            res = TT_FAIL((tutti_result)all[r], "rank %d could not register its memory: %s", r,
                          tt_result_text((tutti_result)all[r]));
    free(all);
    return res;
}

static tutti_result exchange_offers(tutti_window *w, struct offer *offers)
{
    struct tt_engine *e = w->e;
    struct offer mine = {.bytes = w->bytes,
                         .map_bytes = w->parts.bytes,
                         .address = (uint64_t)(uintptr_t)w->mine,
                         .page_offset = w->parts.page_offset,
                         .n_parts = w->parts.n};

    for (uint32_t p = 0; p < w->parts.n; p++) {
        mine.part[p].file_offset = w->parts.part[p].file_offset;
        mine.part[p].bytes = w->parts.part[p].bytes;
    }
    TT_TRY(tt_cpu_exchange(e, TT_FOR_REGISTER, &mine, offers, sizeof(mine)));
    for (int r = 0; r < e->n_ranks; r++)
        if (offers[r].bytes != w->bytes)
            return TT_FAIL(TUTTI_E_MISMATCH,
                           "window_register of %zu bytes on rank %d meets one of %llu on rank %d",
                           w->bytes, e->rank, (unsigned long long)offers[r].bytes, r);
    return TUTTI_OK;
}

static tutti_result window_join(tutti_window *w)
{
    struct tt_engine *e = w->e;
    struct offer *offers = calloc((size_t)e->n_ranks, sizeof(*offers));
    int *fds = malloc((size_t)e->n_ranks * sizeof(*fds));
    tutti_result res = TUTTI_OK;

    if (!offers || !fds)
        res = TT_FAIL(TUTTI_E_MEMORY, "no memory for a window");
    res = agree(e, res);
    if (res == TUTTI_OK)
        res = exchange_offers(w, offers);
    if (res == TUTTI_OK)
        res = agree(e, map_peers(w, offers, fds));
    free(fds);
    free(offers);
    return res;
}

tutti_result tt_cpu_window_register(struct tt_engine *e, void *ptr, size_t bytes,
                                    tutti_window **window_out)
{
    tutti_window *w = NULL;
    tutti_result res = windows_grow(e);

    if (res == TUTTI_OK)
        res = window_new(e, ptr, bytes, &w);
    if (res != TUTTI_OK) {
        (void)agree(e, res); /* the others wait to hear; the text stays the first one's */
        return res;
    }
    res = window_join(w);
    if (res != TUTTI_OK) {
        window_free(w);
        return res;
    }
    for (w->index = 0; w->index < e->n_windows && e->windows[w->index]; w->index++)
        ; /* the same place on all ranks: they register in the same order */
    if (w->index == e->n_windows)
        e->n_windows++;
    e->windows[w->index] = w;
    e->n_registered++;
    *window_out = w;
    return TUTTI_OK;
}

static void forget(struct tt_engine *e, const tutti_window *w)
{
    for (size_t i = 0; i < TT_LEN(e->recent); i++)
        if (e->recent[i] == w)
            e->recent[i] = NULL;
}

tutti_result tt_cpu_window_deregister(struct tt_engine *e, tutti_window *window)
{
    uint32_t index = UINT32_MAX, at = UINT32_MAX;
    uint32_t *all;
    tutti_result res;

    for (uint32_t i = 0; i < e->n_windows; i++)
        if (window && e->windows[i] == window)
            at = i;
    if (window && at == UINT32_MAX)
        return TT_FAIL(TUTTI_E_ARG, "window %p is not a window of communicator %s", (void *)window,
                       e->name);
    index = at;
    all = calloc((size_t)e->n_ranks, sizeof(*all));
    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to deregister a window");
    res = tt_cpu_exchange(e, TT_FOR_DEREGISTER, &index, all,
                          sizeof(index)); /* nobody uses it from here on */
    for (int r = 0; res == TUTTI_OK && r < e->n_ranks; r++)
        if (all[r] != index)
            res = tt_engine_fail(e, TT_MISMATCH, r, (uint64_t)TT_FOR_DEREGISTER << TT_PURPOSE_SHIFT,
                                 all[r]);
    free(all);
    if (res == TUTTI_OK && window) {
        forget(e, window);
        e->windows[at] = NULL;
        e->n_registered--;
        window_free(window);
    }
    return res;
}

void tt_cpu_windows_free(struct tt_engine *e)
{
    for (uint32_t i = 0; i < e->n_windows; i++)
        window_free(e->windows[i]);
    free(e->windows);
    e->windows = NULL;
    e->n_windows = e->n_registered = 0;
}
