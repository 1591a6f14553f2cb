/*
 * Memory that another allocator manages (torch's, api_torch.c), in segments. It takes and returns them when
 * it likes, in any thread and not at the same time on all ranks, so neither may wait for a peer. What
 * the ranks have to agree on is done when all of them ask for it: the segments that are new on all ranks
 * become windows, and windows of which any rank has returned its segment end.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "cuda/cuda_engine.h"
#include "cuda/share_agree.h"

#define PER_ROUND 32 /* segments that a rank tells the others of at a time */

struct tt_cuda_pool {
    struct tt_engine *engine; /* NULL: its communicator is no more */
    int device_index, n_refs;
};

enum stage {
    ORDINARY,    /* in no window */
    NEW,         /* waits for the others to have one */
    REGISTERING, /* being made a window */
    REGISTERED,
    RETIRED, /* the ranks use the window no more; it is closed when this rank returns the segment */
};

struct segment {
    void *ptr;
    size_t bytes;
    struct tt_cuda_pool *pool; /* NULL: none */
    enum stage stage;
    int is_returned; /* by the allocator, while it is in a window */
    tutti_window *window;
    struct segment *next;
};

/* The segments of all pools, in the order in which they were allocated: whoever returns one knows nothing
 * but its address. Taken before any lock of the files below. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct segment *segments;

/* ---- pools; the lock is held ---- */

static void put_locked(struct tt_cuda_pool *pool)
{
    if (pool && --pool->n_refs == 0)
        free(pool);
}

static void add(struct segment *s)
{
    struct segment **p = &segments;

    while (*p)
        p = &(*p)->next;
    *p = s;
}

static void drop(struct segment *s)
{
    struct segment **p = &segments;

    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    put_locked(s->pool);
    free(s);
}

/* ---- pools ---- */

tutti_result tt_cuda_pool_of(struct tt_engine *e, struct tt_cuda_pool **pool_out)
{
    tutti_result result = TUTTI_OK;

    pthread_mutex_lock(&lock);
    if (!e->pool) {
        e->pool = calloc(1, sizeof(*e->pool));
        if (e->pool)
            *e->pool = (struct tt_cuda_pool){e, e->device->index, 1};
        else
            result = TT_FAIL(TUTTI_E_MEMORY, "no memory for a pool");
    }
    if (e->pool) {
        e->pool->n_refs++;
        *pool_out = e->pool;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void tt_cuda_pool_put(struct tt_cuda_pool *pool)
{
    pthread_mutex_lock(&lock);
    put_locked(pool);
    pthread_mutex_unlock(&lock);
}

int tt_cuda_pool_is_alive(struct tt_cuda_pool *pool)
{
    int is_alive;

    pthread_mutex_lock(&lock);
    is_alive = pool->engine != NULL;
    pthread_mutex_unlock(&lock);
    return is_alive;
}

/* Windows that are found are closed by tt_cuda_windows_free(), which comes next. */
void tt_cuda_pool_detach(struct tt_engine *e)
{
    struct tt_cuda_pool *pool = e->pool;
    struct segment *next;

    if (!pool)
        return;
    pthread_mutex_lock(&lock);
    for (struct segment *s = segments; s; s = next) {
        next = s->next;
        if (s->pool != pool)
            continue;
        if (s->stage == RETIRED)
            tt_cuda_window_close(e, s->window);
        s->window = NULL;
        s->stage = ORDINARY;
        if (s->is_returned)
            drop(s);
    }
    pool->engine = NULL;
    e->pool = NULL;
    put_locked(pool);
    pthread_mutex_unlock(&lock);
}

/* ---- taking and returning ---- */

tutti_result tt_cuda_pool_alloc(struct tt_cuda_pool *pool, int device_index, size_t bytes,
                                void **ptr_out)
{
    struct segment *s = calloc(1, sizeof(*s));
    tutti_result result;

    if (!s)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of GPU memory");
    result = tt_cuda_device_alloc(device_index, TT_CUDA_POOL, bytes, &s->ptr);
    if (result != TUTTI_OK) {
        free(s);
        return result;
    }
    s->bytes = bytes;
    *ptr_out = s->ptr;
    pthread_mutex_lock(&lock);
    if (pool && pool->engine && pool->device_index == device_index) {
        s->pool = pool;
        pool->n_refs++;
        s->stage = NEW;
    }
    add(s);
    pthread_mutex_unlock(&lock);
    return TUTTI_OK;
}

/* Its memory can be released then, at once or with a window that there is, unless it is being registered:
 * whoever does that goes on from here. */
static tutti_result give_back_locked(const void *ptr, int *may_release)
{
    struct segment *s = segments;

    while (s && (s->ptr != ptr || s->is_returned))
        s = s->next;
    if (!s)
        return TT_FAIL(TUTTI_E_ARG, "%p has been given to tutti_torch_free twice", ptr);
    *may_release = s->stage != REGISTERING;
    s->is_returned = s->stage == REGISTERING || s->stage == REGISTERED;
    if (s->stage == RETIRED)
        tt_cuda_window_close(s->pool->engine, s->window);
    if (!s->is_returned)
        drop(s);
    return TUTTI_OK;
}

/* Kernels that use the memory are waited for here, in a thread that is not in a call: windows can then be
 * closed without. */
tutti_result tt_cuda_pool_free(void *ptr)
{
    tutti_result result;
    int may_release = 0;

    TT_TRY(tt_cuda_device_quiet(ptr));
    pthread_mutex_lock(&lock);
    result = give_back_locked(ptr, &may_release);
    pthread_mutex_unlock(&lock);
    if (may_release)
        tt_cuda_device_release(ptr);
    return result;
}

/* ---- agreeing ---- */

/* What a rank tells the others of its pool. */
struct news {
    uint32_t n_new, n_gone;
    uint32_t gone[PER_ROUND];  /* ids of windows */
    uint64_t bytes[PER_ROUND]; /* of new segments, in the order of their allocation */
};

static void collect(const struct tt_cuda_pool *pool, struct news *mine, struct segment *chosen[])
{
    memset(mine, 0, sizeof(*mine));
    pthread_mutex_lock(&lock);
    for (struct segment *s = segments; s; s = s->next) {
        if (s->pool != pool)
            continue;
        if (s->stage == NEW && mine->n_new < PER_ROUND) {
            s->stage = REGISTERING;
            chosen[mine->n_new] = s;
            mine->bytes[mine->n_new++] = s->bytes;
        } else if (s->stage == REGISTERED && s->is_returned && mine->n_gone < PER_ROUND) {
            mine->gone[mine->n_gone++] = tt_cuda_window_id(s->window);
        }
    }
    pthread_mutex_unlock(&lock);
}

/* Twice the same id, from two ranks, is found the first time only. */
static void retire_locked(struct tt_cuda_pool *pool, uint32_t id)
{
    struct segment *s = segments;

    while (s && (s->pool != pool || s->stage != REGISTERED || tt_cuda_window_id(s->window) != id))
        s = s->next;
    if (!s)
        return;
    s->stage = tt_cuda_window_retire(pool->engine, s->window) ? RETIRED : ORDINARY;
    if (!s->is_returned) {
        TT_LOG(TUTTI_LOG_INFO, pool->engine->rank, pool->engine->n_ranks,
               "the %zu bytes at %p are registered no more: another rank has returned its part",
               s->bytes, s->ptr);
        return;
    }
    if (s->stage == RETIRED)
        tt_cuda_window_close(pool->engine, s->window);
    drop(s);
}

static void retire_all(struct tt_cuda_pool *pool, const struct news all[], int n_ranks)
{
    pthread_mutex_lock(&lock);
    for (int r = 0; r < n_ranks; r++)
        for (uint32_t i = 0; i < all[r].n_gone; i++)
            retire_locked(pool, all[r].gone[i]);
    pthread_mutex_unlock(&lock);
}

/* How many segments, from the first, all ranks have alike. After its last one a rank says 0 bytes. */
static tutti_result compare(const struct news all[], int n_ranks, uint32_t *n_alike_out)
{
    for (uint32_t i = 0; i < PER_ROUND; i++)
        for (int r = 1; r < n_ranks; r++)
            if (all[r].bytes[i] != all[0].bytes[i]) {
                *n_alike_out = i;
                return TT_FAIL(
                    TUTTI_E_MISMATCH,
                    "new segment %u of the pool has %llu bytes on rank 0 and %llu on rank "
                    "%d (0: there is none): it and those after it are not registered, "
                    "and calls on them copy. Allocate alike on all ranks",
                    i + 1, (unsigned long long)all[0].bytes[i], (unsigned long long)all[r].bytes[i],
                    r);
            }
    *n_alike_out = all[0].n_new;
    return TUTTI_OK;
}

/* Registration of this segment has ended; `window` is NULL if it failed. */
static void settle(struct segment *s, tutti_window *window)
{
    void *const ptr = s->ptr;
    int is_returned;

    pthread_mutex_lock(&lock);
    is_returned = s->is_returned;
    s->window = window;
    s->stage = window ? REGISTERED : ORDINARY;
    if (window)
        tt_cuda_window_keep(window);
    else if (is_returned)
        drop(s);
    pthread_mutex_unlock(&lock);
    if (is_returned)
        tt_cuda_device_release(ptr);
}

static tutti_result register_all(struct tt_engine *e, struct segment *chosen[], uint32_t n_alike)
{
    tutti_result result = TUTTI_OK;

    for (uint32_t i = 0; i < PER_ROUND && chosen[i]; i++) {
        tutti_window *window = NULL;
        tutti_result one = TUTTI_OK;

        if (i < n_alike)
            one = tt_cuda_window_register(e, chosen[i]->ptr, chosen[i]->bytes, &window);
        result = one != TUTTI_OK ? one : result; /* the last, whose text it is */
        settle(chosen[i], window);
    }
    return result;
}

/* One round. *more_out: some rank has more to tell. */
static tutti_result do_round(struct tt_cuda_pool *pool, int *in_step, int *more_out)
{
    struct tt_engine *e = pool->engine;
    struct segment *chosen[PER_ROUND] = {NULL};
    struct news mine, all[TT_CUDA_MAX_RANKS];
    tutti_result result, compared = TUTTI_OK;
    uint32_t n_alike = 0;

    *more_out = 0;
    collect(pool, &mine, chosen);
    result = tt_cuda_exchange(e, &mine, all, sizeof(mine));
    if (result == TUTTI_OK) {
        retire_all(pool, all, e->n_ranks);
        if (*in_step)
            compared = compare(all, e->n_ranks, &n_alike);
        *in_step = *in_step && compared == TUTTI_OK;
        for (int r = 0; r < e->n_ranks; r++)
            *more_out |= all[r].n_new == PER_ROUND || all[r].n_gone == PER_ROUND;
    }

    const tutti_result registered = register_all(e, chosen, n_alike);

    return result != TUTTI_OK ? result : registered != TUTTI_OK ? registered : compared;
}

tutti_result tt_cuda_pool_register(struct tt_cuda_pool *pool)
{
    tutti_result result = TUTTI_OK;
    int in_step = 1, more = 1;

    TT_TRY(tt_cuda_check_report(pool->engine));
    while (more) {
        const tutti_result one = do_round(pool, &in_step, &more);

        result = one != TUTTI_OK ? one : result;
    }
    return result;
}
