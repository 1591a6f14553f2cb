/*
 * Symmetric memory. A communicator's windows do not overlap: registering memory inside one again counts
 * a reference to it, if all ranks do so at the same place. They are found through a hash of the 2 MiB
 * granules of addresses that they touch: a probe or two, whatever the number and size of windows.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "cuda/share_agree.h"
#include "cuda/share_map.h"

#define GRANULE_SHIFT 21

struct tutti_window {
    uintptr_t mine; /* this rank's memory */
    size_t bytes;
    uint32_t id; /* from 1, the same on all ranks */
    int n_refs;
    int in_pool; /* one of them is memory_pool.c's */
    struct tt_cuda_share share;
};

/* The windows that touch a granule: neighbours in the sorted list, hardly ever more than one. */
struct cell {
    uintptr_t granule; /* 0: empty; no GPU memory lies there */
    uint32_t first, end;
};

struct tt_cuda_windows {
    uintptr_t low;
    size_t span; /* of all windows, from low */
    struct cell *cells;
    int cells_log2;
    uint32_t n, max;
    tutti_window **sorted; /* by address */
};

tutti_result tt_cuda_mem_alloc(struct tt_engine *e, size_t bytes, void **ptr_out)
{
    return tt_cuda_device_alloc(e->device->index, TT_CUDA_CALLER, bytes, ptr_out);
}

tutti_result tt_cuda_mem_free(struct tt_engine *e, void *ptr)
{
    (void)e;
    return tt_cuda_device_free(ptr);
}

/* ---- finding ---- */

/* The first of sorted[from .. to) that begins above `at`. */
static uint32_t first_above(const struct tt_cuda_windows *ws, uint32_t from, uint32_t to,
                            uintptr_t at)
{
    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;

        if (ws->sorted[middle]->mine <= at)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static int holds(const tutti_window *w, uintptr_t at, size_t bytes)
{
    const uintptr_t offset = at - w->mine;

    return offset < w->bytes && bytes <= w->bytes - offset;
}

/* The granule's cell, or the empty one where it would be. */
static struct cell *cell_of(const struct tt_cuda_windows *ws, uintptr_t granule)
{
    const size_t mask = ((size_t)1 << ws->cells_log2) - 1;
    size_t i = (size_t)(granule * UINT64_C(0x9e3779b97f4a7c15) >> (64 - ws->cells_log2));

    while (ws->cells[i].granule != 0 && ws->cells[i].granule != granule)
        i = (i + 1) & mask;
    return &ws->cells[i];
}

tutti_window *tt_cuda_window_find(struct tt_engine *e, const void *ptr, size_t bytes)
{
    const struct tt_cuda_windows *ws = e->windows;
    const uintptr_t at = (uintptr_t)ptr;
    const struct cell *cell;
    uint32_t i;

    if (!ws || at - ws->low >= ws->span)
        return NULL;
    cell = cell_of(ws, at >> GRANULE_SHIFT); /* an empty one has no windows */
    i = first_above(ws, cell->first, cell->end, at);
    if (i == cell->first || !holds(ws->sorted[i - 1], at, bytes))
        return NULL;
    return ws->sorted[i - 1];
}

unsigned char *tt_cuda_window_at(const tutti_window *window, const void *ptr, int rank)
{
    return window->share.at[rank] + ((uintptr_t)ptr - window->mine);
}

void *tt_cuda_window_base(struct tt_engine *e, const tutti_window *window, int rank)
{
    (void)e;
    return window->share.at[rank];
}

/* ---- the list and its hash ---- */

static uintptr_t last_granule(uintptr_t at, size_t bytes)
{
    return (at + bytes - 1) >> GRANULE_SHIFT;
}

static size_t n_granules(uintptr_t at, size_t bytes)
{
    return last_granule(at, bytes) - (at >> GRANULE_SHIFT) + 1;
}

static void cells_fill(struct tt_cuda_windows *ws)
{
    memset(ws->cells, 0, sizeof(*ws->cells) << ws->cells_log2);
    for (uint32_t i = 0; i < ws->n; i++) {
        const tutti_window *w = ws->sorted[i];
        const uintptr_t last = last_granule(w->mine, w->bytes);

        for (uintptr_t granule = w->mine >> GRANULE_SHIFT; granule <= last; granule++) {
            struct cell *cell = cell_of(ws, granule);

            if (cell->granule == 0)
                cell->first = i;
            cell->granule = granule;
            cell->end = i + 1;
        }
    }
}

static void windows_changed(struct tt_engine *e)
{
    struct tt_cuda_windows *ws = e->windows;

    if (ws->n == 0) {
        free(ws->cells);
        free(ws->sorted);
        free(ws);
        e->windows = NULL;
        return;
    }
    cells_fill(ws);
    ws->low = ws->sorted[0]->mine;
    ws->span = ws->sorted[ws->n - 1]->mine + ws->sorted[ws->n - 1]->bytes - ws->low;
}

/* A hash that stays at most half full with `more` granules. */
static tutti_result cells_grow(struct tt_cuda_windows *ws, size_t more)
{
    size_t need = more;
    struct cell *cells;
    int log2 = 6;

    for (uint32_t i = 0; i < ws->n; i++)
        need += n_granules(ws->sorted[i]->mine, ws->sorted[i]->bytes);
    while (log2 < 40 && (size_t)1 << log2 < 2 * need)
        log2++;
    if (ws->cells && log2 <= ws->cells_log2)
        return TUTTI_OK;
    cells = calloc((size_t)1 << log2, sizeof(*cells));
    if (!cells)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to find windows in %zu granules of 2 MiB", need);
    free(ws->cells);
    ws->cells = cells;
    ws->cells_log2 = log2;
    cells_fill(ws);
    return TUTTI_OK;
}

/* Room for one more, so that nothing can fail once the ranks have agreed. */
static tutti_result windows_grow(struct tt_engine *e, uintptr_t at, size_t bytes)
{
    struct tt_cuda_windows *ws = e->windows;
    const uint32_t max = ws && ws->max ? 2 * ws->max : 16;
    tutti_window **sorted;

    if (!ws)
        e->windows = ws = calloc(1, sizeof(*ws));
    if (!ws)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a window");
    TT_TRY(cells_grow(ws, n_granules(at, bytes)));
    if (ws->n < ws->max)
        return TUTTI_OK;
    sorted = realloc(ws->sorted, max * sizeof(*sorted));
    if (!sorted)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %u windows", max);
    ws->sorted = sorted;
    ws->max = max;
    return TUTTI_OK;
}

static void windows_insert(struct tt_cuda_windows *ws, tutti_window *w)
{
    const uint32_t place = first_above(ws, 0, ws->n, w->mine);

    memmove(&ws->sorted[place + 1], &ws->sorted[place], (ws->n - place) * sizeof(*ws->sorted));
    ws->sorted[place] = w;
    ws->n++;
}

static void windows_remove(struct tt_cuda_windows *ws, uint32_t place)
{
    ws->n--;
    memmove(&ws->sorted[place], &ws->sorted[place + 1], (ws->n - place) * sizeof(*ws->sorted));
}

/* The number of windows if it is none of them. */
static uint32_t place_of(const struct tt_cuda_windows *ws, const tutti_window *w)
{
    uint32_t place = 0;

    while (ws && place < ws->n && ws->sorted[place] != w)
        place++;
    return place;
}

static tutti_window *window_by_id(const struct tt_cuda_windows *ws, uint32_t id)
{
    for (uint32_t i = 0; i < ws->n; i++)
        if (ws->sorted[i]->id == id)
            return ws->sorted[i];
    return NULL;
}

/* The lowest that is free: the same on all ranks, which register and deregister in the same order. */
static uint32_t free_id(const struct tt_cuda_windows *ws)
{
    uint32_t id = 1;

    while (window_by_id(ws, id))
        id++;
    return id;
}

/* ---- registering ---- */

/* What a rank wants to register: new memory, or a place in a window that there is. */
struct wish {
    uint32_t id; /* 0: new */
    uint32_t unused;
    uint64_t offset, bytes;
};

static tutti_result wish_make(struct tt_engine *e, void *ptr, size_t bytes, struct wish *wish)
{
    const struct tt_cuda_windows *ws = e->windows;
    const uintptr_t at = (uintptr_t)ptr;
    const tutti_window *w = tt_cuda_window_find(e, ptr, bytes);

    memset(wish, 0, sizeof(*wish));
    wish->bytes = bytes;
    if (!ptr || bytes == 0 || at + bytes < at)
        return TT_FAIL(TUTTI_E_ARG, "window_register of %zu bytes at %p", bytes, ptr);
    if (w) {
        wish->id = w->id;
        wish->offset = at - w->mine;
        return TUTTI_OK;
    }
    if (ws) {
        const uint32_t n =
            first_above(ws, 0, ws->n, at + bytes - 1); /* that begin before the end */

        w = n > 0 ? ws->sorted[n - 1] : NULL;
        if (w && w->mine + w->bytes > at)
            return TT_FAIL(
                TUTTI_E_ARG,
                "the %zu bytes at %p overlap the window of %zu bytes at %p: register the "
                "whole of both once",
                bytes, ptr, w->bytes, (void *)w->mine);
    }
    return windows_grow(e, at, bytes);
}

static tutti_result wishes_agree(struct tt_engine *e, const struct wish *mine)
{
    struct wish all[TT_CUDA_MAX_RANKS];

    TT_TRY(tt_cuda_exchange(e, mine, all, sizeof(*mine)));
    for (int r = 1; r < e->n_ranks; r++) {
        if (all[r].bytes != all[0].bytes)
            return TT_FAIL(TUTTI_E_MISMATCH,
                           "window_register of %llu bytes on rank 0 meets one of %llu on rank %d",
                           (unsigned long long)all[0].bytes, (unsigned long long)all[r].bytes, r);
        if (all[r].id != all[0].id || all[r].offset != all[0].offset)
            return TT_FAIL(TUTTI_E_ARG,
                           "window_register: rank 0 and rank %d are at different places in their "
                           "windows, or one in none: register memory of the same role on all ranks",
                           r);
    }
    return TUTTI_OK;
}

static tutti_result window_new(struct tt_engine *e, void *ptr, size_t bytes,
                               tutti_window **window_out)
{
    tutti_window *w = calloc(1, sizeof(*w));
    tutti_result result = w ? TUTTI_OK : TT_FAIL(TUTTI_E_MEMORY, "no memory for a window");

    result = tt_cuda_agree(e, result, "register a window");
    if (result == TUTTI_OK)
        result = tt_cuda_share_existing(e, ptr, bytes, &w->share);
    if (result != TUTTI_OK || !w) {
        free(w);
        return result;
    }
    w->mine = (uintptr_t)ptr;
    w->bytes = bytes;
    w->n_refs = 1;
    w->id = free_id(e->windows);
    windows_insert(e->windows, w);
    tt_cuda_device_hold(ptr, 1);
    *window_out = w;
    return TUTTI_OK;
}

/* What ranks cannot map is copied on its way, on all of them: slower, and nobody would know why. */
static void tell_unmapped(struct tt_engine *e)
{
    if (e->rank != 0 || e->has_told_unmapped)
        return;
    e->has_told_unmapped = 1;
    TT_LOG(TUTTI_LOG_WARN, e->rank, e->n_ranks,
           "communicator %s: a buffer that not all ranks can map is no window; calls with it go "
           "through scratch memory on all ranks: %s",
           e->name, tt_error_text());
}

tutti_result tt_cuda_window_register(struct tt_engine *e, void *ptr, size_t bytes,
                                     tutti_window **window_out)
{
    struct wish wish;
    tutti_result result;

    TT_TRY(tt_cuda_check_report(e));
    result = tt_cuda_agree(e, wish_make(e, ptr, bytes, &wish), "register a window");
    if (result == TUTTI_OK)
        result = wishes_agree(e, &wish);
    if (result == TUTTI_OK && wish.id != 0) {
        *window_out = window_by_id(e->windows, wish.id);
        (*window_out)->n_refs++;
        return TUTTI_OK;
    }
    if (result == TUTTI_OK)
        result = window_new(e, ptr, bytes, window_out);
    if (result == TUTTI_E_UNSUPPORTED || result == TUTTI_E_SYSTEM) /* so all ranks say */
        tell_unmapped(e);
    if (e->windows)
        windows_changed(e);
    return result;
}

/* ---- deregistering ---- */

void tt_cuda_window_close(struct tt_engine *e, tutti_window *w)
{
    tt_cuda_share_close(e, &w->share);
    tt_cuda_device_hold((const void *)w->mine, -1);
    free(w);
}

/* Kernels that were launched may still reach into the window. */
static tutti_result finish_kernels(const struct tt_engine *e)
{
    struct tt_cuda_scope scope;
    tutti_result result;

    TT_TRY(tt_cuda_scope_enter(e->device, &scope));
    result = tt_cuda_wait_for_kernels();
    tt_cuda_scope_leave(&scope);
    return result;
}

static tutti_result ids_agree(struct tt_engine *e, uint32_t mine)
{
    uint32_t all[TT_CUDA_MAX_RANKS];

    TT_TRY(tt_cuda_exchange(e, &mine, all, sizeof(mine)));
    for (int r = 0; r < e->n_ranks; r++)
        if (all[r] != all[0])
            return TT_FAIL(
                TUTTI_E_MISMATCH,
                "window_deregister of window %u on rank 0 meets that of window %u on rank "
                "%d (0: NULL)",
                all[0], all[r], r);
    return TUTTI_OK;
}

tutti_result tt_cuda_window_deregister(struct tt_engine *e, tutti_window *window)
{
    const uint32_t n = e->windows ? e->windows->n : 0, place = place_of(e->windows, window);
    tutti_result result = TUTTI_OK;

    tt_cuda_watch(e); /* kernels that wait for a dead rank are waited for below */
    TT_TRY(tt_cuda_check_report(e));
    if (window && place == n)
        return TT_FAIL(TUTTI_E_ARG, "window %p is not a window of communicator %s", (void *)window,
                       e->name);
    if (window && window->n_refs == 1 && window->in_pool)
        return TT_FAIL(TUTTI_E_ARG,
                       "window %p is of memory from tutti_torch_alloc, and goes with that memory",
                       (void *)window);
    if (window && window->n_refs == 1)
        result = finish_kernels(e);
    TT_TRY(tt_cuda_agree(e, result, "deregister a window"));
    TT_TRY(ids_agree(e, window ? window->id : 0)); /* nobody uses it from here on */
    if (!window || --window->n_refs > 0)
        return TUTTI_OK;
    windows_remove(e->windows, place);
    windows_changed(e);
    tt_cuda_window_close(e, window);
    /* When it returns nobody has it mapped, so the caller may free it. */
    return tt_cuda_agree(e, TUTTI_OK, "deregister a window");
}

void tt_cuda_windows_free(struct tt_engine *e)
{
    if (!e->windows)
        return;
    while (e->windows->n > 0)
        tt_cuda_window_close(e, e->windows->sorted[--e->windows->n]);
    windows_changed(e);
}

/* ---- of memory pools ---- */

void tt_cuda_window_keep(tutti_window *window)
{
    window->in_pool = 1;
}

uint32_t tt_cuda_window_id(const tutti_window *window)
{
    return window->id;
}

int tt_cuda_window_retire(struct tt_engine *e, tutti_window *window)
{
    window->in_pool = 0;
    if (--window->n_refs > 0)
        return 0;
    windows_remove(e->windows, place_of(e->windows, window));
    windows_changed(e);
    return 1;
}
