/*
 * The list of this process's pages that other processes can map, and who holds them. What was adopted
 * for a buffer (adopt.c) is private memory again as soon as nobody holds it.
 */
#include "cpu/pages.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "cpu/adopt.h"

#define PAGE ((uintptr_t)4096)
#define HUGE ((uintptr_t)2 << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct file {
    int fd;
    unsigned n_runs;  /* that lie in it */
    uintptr_t origin; /* where its first byte is mapped */
};

/* Neighbouring pages of one file that as many windows hold: a window that begins or ends within a run cuts
 * it in two. What comes from tt_pages_alloc() stays one. */
struct run {
    uintptr_t start, end;
    struct file *file;
    int refs;         /* windows that hold it */
    int owned;        /* from tt_pages_alloc() */
    struct run *next; /* above it */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct run *list;

/* A run of a file that is still to come. */
static struct run *run_new(uintptr_t start, uintptr_t end, int owned)
{
    struct file *file = malloc(sizeof(*file));
    struct run *run = malloc(sizeof(*run));

    if (!file || !run) {
        free(file);
        free(run);
        return NULL;
    }
    *file = (struct file){-1, 1, start};
    *run = (struct run){.start = start, .end = end, .owned = owned};
    run->file = file;
    return run;
}

static void run_free(struct run *run)
{
    if (!run)
        return;
    if (--run->file->n_runs == 0) {
        if (run->file->fd >= 0)
            close(run->file->fd);
        free(run->file);
    }
    free(run);
}

static void list_add(struct run *run)
{
    struct run **at = &list;

    while (*at && (*at)->start < run->start)
        at = &(*at)->next;
    run->next = *at;
    *at = run;
}

/* Map a file at an address that huge pages can use, and ask for them. */
static void *map_aligned(int fd, size_t bytes)
{
    unsigned char *room, *at;

    if (bytes < HUGE)
        return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    room = mmap(NULL, bytes + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    at = (unsigned char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));
    if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        munmap(room, bytes + HUGE);
        return MAP_FAILED;
    }
    if (at > room)
        munmap(room, (size_t)(at - room));
    munmap(at + bytes, (size_t)(room + HUGE - at));
    (void)madvise(at, bytes, MADV_HUGEPAGE);
    (void)madvise(at, bytes, MADV_POPULATE_WRITE); /* by huge pages where it can */
    return at;
}

tutti_result tt_pages_alloc(size_t bytes, void **ptr_out)
{
    const size_t whole = (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
    struct run *run;
    void *at = MAP_FAILED;
    tutti_result res;

    if (bytes == 0 || whole < bytes || whole > SIZE_MAX / 2)
        return TT_FAIL(TUTTI_E_ARG, "mem_alloc of %zu bytes", bytes);
    TT_TRY(tt_memory_check(whole));
    run = run_new(0, whole, 1);
    if (!run)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of shared pages");
    res = tt_memfd_new(whole, &run->file->fd);
    if (res == TUTTI_OK) {
        at = map_aligned(run->file->fd, whole);
        res = at == MAP_FAILED ? TT_FAIL_SYS("cannot map %zu bytes", whole)
                               : tt_memfd_fill(run->file->fd, whole);
    }
    if (res != TUTTI_OK) {
        if (at != MAP_FAILED)
            munmap(at, whole);
        run_free(run);
        return res;
    }
    run->start = run->file->origin = (uintptr_t)at;
    run->end = run->start + whole;
    pthread_mutex_lock(&lock);
    list_add(run);
    pthread_mutex_unlock(&lock);
    *ptr_out = at;
    return TUTTI_OK;
}

tutti_result tt_pages_free(void *ptr)
{
    struct run **at = &list, *run;
    tutti_result res = TUTTI_OK;

    pthread_mutex_lock(&lock);
    while (*at && !((*at)->owned && (*at)->start == (uintptr_t)ptr))
        at = &(*at)->next;
    run = *at;
    if (!run) {
        res = TT_FAIL(TUTTI_E_ARG, "mem_free: %p did not come from tutti_mem_alloc", ptr);
    } else if (run->refs > 0) {
        res = TT_FAIL(TUTTI_E_ARG, "mem_free: %p is still registered; deregister its window first",
                      ptr);
    } else {
        munmap(ptr, run->end - run->start);
        *at = run->next;
        run_free(run);
    }
    pthread_mutex_unlock(&lock);
    return res;
}

/* ---- holding ---- */

/* The run that holds `at`, or NULL and where the next run above begins. */
static struct run *run_at(uintptr_t at, uintptr_t *next_out)
{
    struct run *run = list;

    while (run && run->end <= at)
        run = run->next;
    *next_out = run ? run->start : UINTPTR_MAX;
    return run && run->start <= at ? run : NULL;
}

/* All that is to be adopted is looked at before the first page is. */
static tutti_result check_gaps(uintptr_t start, uintptr_t end)
{
    for (uintptr_t at = start; at < end;) {
        uintptr_t next;
        const struct run *run = run_at(at, &next);

        if (!run)
            TT_TRY(tt_adopt_check(at, next < end ? next : end));
        at = run ? run->end : next;
    }
    return TUTTI_OK;
}

static tutti_result cut(uintptr_t at)
{
    uintptr_t next;
    struct run *run = run_at(at, &next), *rest;

    if (!run || run->owned || run->start == at)
        return TUTTI_OK;
    rest = malloc(sizeof(*rest));
    if (!rest)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of shared pages");
    *rest = *run;
    rest->start = run->end = at;
    run->next = rest;
    run->file->n_runs++;
    return TUTTI_OK;
}

/* Neighbours of one file that as many windows hold are one, so that the list stays short. */
static void join(void)
{
    for (struct run *run = list; run; run = run->next)
        while (run->next && run->next->file == run->file && run->next->refs == run->refs &&
               run->next->start == run->end) {
            struct run *rest = run->next;

            run->end = rest->end;
            run->next = rest->next;
            run_free(rest);
        }
}

static void unhold(uintptr_t start, uintptr_t end)
{
    struct run **at = &list;

    /* Other windows may have gone meanwhile: then this one's run is one with a neighbour's. */
    if (cut(start) != TUTTI_OK || cut(end) != TUTTI_OK) {
        TT_LOG(TUTTI_LOG_WARN, -1, 0, "memory of a window stays shared: %s", tt_error_text());
        return;
    }
    for (struct run *run = list; run; run = run->next)
        run->refs -= run->start < end && run->end > start;
    join();
    while (*at) {
        struct run *run = *at;

        if (run->refs > 0 || run->owned) {
            at = &run->next;
            continue;
        }
        if (tt_adopt_undo(run->file->fd, run->file->origin, run->start, run->end) != TUTTI_OK)
            TT_LOG(TUTTI_LOG_WARN, -1, 0, "memory of a window stays shared: %s", tt_error_text());
        *at = run->next;
        run_free(run);
    }
}

static tutti_result adopt(uintptr_t start, uintptr_t end, struct run **run_out)
{
    struct run *run = run_new(start, end, 0);
    tutti_result res = run ? tt_adopt(start, end, &run->file->fd)
                           : TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of shared pages");

    if (res < TUTTI_OK) {
        run_free(run);
        return res;
    }
    list_add(run);
    *run_out = run;
    return TUTTI_OK;
}

/* The next part, or more of the last one. */
static tutti_result add_part(struct tt_parts *parts, const struct run *run, uintptr_t at,
                             size_t bytes)
{
    const uint64_t offset = at - run->file->origin;
    struct tt_part *last = parts->n ? &parts->part[parts->n - 1] : NULL;

    if (last && last->fd == run->file->fd && last->file_offset + last->bytes == offset) {
        last->bytes += bytes;
        return TUTTI_OK;
    }
    if (parts->n == TT_MAX_PARTS)
        return TT_FAIL(TUTTI_E_ARG, "the buffer overlaps more than %d registered ones",
                       TT_MAX_PARTS);
    parts->part[parts->n++] = (struct tt_part){run->file->fd, offset, bytes};
    return TUTTI_OK;
}

/* parts->bytes: what is held so far. */
static tutti_result share(uintptr_t start, uintptr_t end, struct tt_parts *parts)
{
    TT_TRY(check_gaps(start, end));
    TT_TRY(cut(start));
    TT_TRY(cut(end));
    for (uintptr_t at = start; at < end;) {
        uintptr_t next;
        struct run *run = run_at(at, &next);
        size_t bytes;

        if (!run)
            TT_TRY(adopt(at, next < end ? next : end, &run));
        bytes = (run->end < end ? run->end : end) - at;
        run->refs++;
        parts->bytes += bytes;
        TT_TRY(add_part(parts, run, at, bytes));
        at += bytes;
    }
    return TUTTI_OK;
}

tutti_result tt_pages_share(void *ptr, size_t bytes, struct tt_parts *parts)
{
    const uintptr_t start = (uintptr_t)ptr & ~(PAGE - 1);
    uintptr_t end;
    tutti_result res;

    memset(parts, 0, sizeof(*parts));
    parts->page_offset = (uint32_t)((uintptr_t)ptr - start);
    parts->start = start;
    if (!ptr || bytes == 0 || __builtin_add_overflow((uintptr_t)ptr, bytes, &end) ||
        __builtin_add_overflow(end, PAGE - 1, &end))
        return TT_FAIL(TUTTI_E_ARG, "window_register of %zu bytes at %p", bytes, ptr);
    end &= ~(PAGE - 1);
    pthread_mutex_lock(&lock);
    res = share(start, end, parts);
    pthread_mutex_unlock(&lock);
    if (res != TUTTI_OK)
        tt_pages_release(parts);
    return res;
}

void tt_pages_release(struct tt_parts *parts)
{
    if (parts->bytes == 0)
        return;
    pthread_mutex_lock(&lock);
    unhold(parts->start, parts->start + parts->bytes);
    pthread_mutex_unlock(&lock);
    memset(parts, 0, sizeof(*parts));
}
