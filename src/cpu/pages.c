/*
 * Page adoption: copy a range of private pages into a memfd and map that over them. Afterwards the
 * memory is where it was and holds what it held, and the memfd can be handed to other processes.
 */
#include "cpu/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

#define PAGE ((uintptr_t)4096)
#define HUGE ((uintptr_t)2 << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct tt_pages {
    uintptr_t start, end;
    int fd;
    int refs;  /* windows that hold it */
    int owned; /* from tt_pages_alloc() */
    struct tt_pages *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tt_pages *list;

static tutti_result file_new(size_t bytes, int *fd_out)
{
    const int fd = memfd_create("tutti-window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    tutti_result res;

    if (fd < 0)
        return TT_FAIL_SYS("memfd_create");
    res = tt_memory_resize(fd, bytes);
    if (res == TUTTI_OK && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        res = TT_FAIL_SYS("cannot seal %zu bytes of shared memory", bytes);
    if (res != TUTTI_OK) {
        close(fd);
        return res;
    }
    *fd_out = fd;
    return TUTTI_OK;
}

/* All pages of the file now, so that lack of memory is an error here and not a signal later. */
static tutti_result file_fill(int fd, size_t bytes)
{
    int err;

    do
        err = posix_fallocate(fd, 0, (off_t)bytes);
    while (err == EINTR);
    errno = err;
    return err ? TT_FAIL_SYS("no memory for %zu shared bytes", bytes) : TUTTI_OK;
}

static struct tt_pages *pages_new(uintptr_t start, size_t bytes, int fd, int owned)
{
    struct tt_pages *p = calloc(1, sizeof(*p));

    if (p)
        *p = (struct tt_pages){start, start + bytes, fd, 0, owned, NULL};
    return p;
}

static void pages_add(struct tt_pages *p)
{
    p->next = list;
    list = p;
}

static void pages_drop(struct tt_pages *p)
{
    struct tt_pages **at = &list;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    close(p->fd);
    free(p);
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
    struct tt_pages *p = NULL;
    void *at = MAP_FAILED;
    int fd = -1;
    tutti_result res;

    if (bytes == 0 || whole < bytes || whole > SIZE_MAX / 2)
        return TT_FAIL(TUTTI_E_ARG, "mem_alloc of %zu bytes", bytes);
    res = tt_memory_check(whole);
    if (res == TUTTI_OK)
        res = file_new(whole, &fd);
    if (res == TUTTI_OK) {
        at = map_aligned(fd, whole);
        res = at == MAP_FAILED ? TT_FAIL_SYS("cannot map %zu bytes", whole) : file_fill(fd, whole);
    }
    if (res == TUTTI_OK) {
        p = pages_new((uintptr_t)at, whole, fd, 1);
        if (!p)
            res = TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of shared pages");
    }
    if (res != TUTTI_OK) {
        if (at != MAP_FAILED)
            munmap(at, whole);
        if (fd >= 0)
            close(fd);
        return res;
    }
    pthread_mutex_lock(&lock);
    pages_add(p);
    pthread_mutex_unlock(&lock);
    *ptr_out = at;
    return TUTTI_OK;
}

tutti_result tt_pages_free(void *ptr)
{
    struct tt_pages *p;
    tutti_result res = TUTTI_OK;

    pthread_mutex_lock(&lock);
    for (p = list; p && !(p->owned && p->start == (uintptr_t)ptr); p = p->next)
        ;
    if (!p) {
        res = TT_FAIL(TUTTI_E_ARG, "mem_free: %p did not come from tutti_mem_alloc", ptr);
    } else if (p->refs > 0) {
        res = TT_FAIL(TUTTI_E_ARG, "mem_free: %p is still registered; deregister its window first",
                      ptr);
    } else {
        munmap(ptr, p->end - p->start);
        pages_drop(p);
    }
    pthread_mutex_unlock(&lock);
    return res;
}

/* ---- adoption ---- */

/* Is all of [start, end) private, writable memory that is not a stack? */
static tutti_result check_adoptable(uintptr_t start, uintptr_t end)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t reached = start;
    char line[512];
    tutti_result res = TUTTI_OK;

    if (!maps)
        return TT_FAIL_SYS("/proc/self/maps");
    if (here >= start && here < end)
        res = TT_FAIL(TUTTI_E_ARG, "the buffer lies on the calling thread's stack");
    while (res == TUTTI_OK && reached < end && fgets(line, sizeof(line), maps)) {
        unsigned long from, to;
        char perms[5];

        if (sscanf(line, "%lx-%lx %4s", &from, &to, perms) != 3 || to <= reached)
            continue;
        if (from > reached)
            break;
        if (perms[0] != 'r' || perms[1] != 'w')
            res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is not writable", (unsigned long)reached);
        else if (perms[3] != 'p' && !strstr(line, "/memfd:tutti-window"))
            res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is a shared mapping of something else",
                          (unsigned long)reached);
        else if (strstr(line, "[stack"))
            res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is a stack", (unsigned long)reached);
        reached = to;
    }
    fclose(maps);
    if (res == TUTTI_OK && reached < end)
        res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is not mapped", (unsigned long)reached);
    return res;
}

/* By the system call itself: the pages hold red zones of other people's memory checkers. */
static tutti_result copy_into(int fd, uintptr_t start, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        const long n = syscall(SYS_pwrite64, fd, start + done, bytes - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return TT_FAIL_SYS("cannot copy %zu bytes into shared memory", bytes);
        done += (size_t)n;
    }
    return TUTTI_OK;
}

/* Between the copy and the map nothing may be written to the pages. They may be the heap's own, so
 * that includes malloc and free: all that allocates is done before. */
static tutti_result adopt(uintptr_t start, uintptr_t end, struct tt_pages **pages_out)
{
    const size_t bytes = end - start;
    struct tt_pages *p;
    int fd = -1;
    tutti_result res;

    TT_TRY(check_adoptable(start, end));
    TT_TRY(tt_memory_check(bytes));
    TT_TRY(file_new(bytes, &fd));
    p = pages_new(start, bytes, fd, 0);
    res = p ? file_fill(fd, bytes)
            : TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of shared pages");
    if (res == TUTTI_OK)
        res = copy_into(fd, start, bytes);
    if (res == TUTTI_OK && mmap((void *)start, bytes, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) == MAP_FAILED)
        res = TT_FAIL_SYS("cannot map %zu shared bytes over the buffer", bytes);
    if (res != TUTTI_OK) {
        free(p);
        close(fd);
        return res;
    }
    pages_add(p);
    *pages_out = p;
    return TUTTI_OK;
}

/* The run that holds `at`, or NULL and where the next run above begins. */
static struct tt_pages *run_at(uintptr_t at, uintptr_t *next_out)
{
    *next_out = UINTPTR_MAX;
    for (struct tt_pages *p = list; p; p = p->next) {
        if (at >= p->start && at < p->end)
            return p;
        if (p->start > at && p->start < *next_out)
            *next_out = p->start;
    }
    return NULL;
}

static void unhold(struct tt_parts *parts)
{
    for (uint32_t i = 0; i < parts->n; i++) {
        struct tt_pages *p = parts->part[i].pages;

        if (--p->refs == 0 && !p->owned)
            pages_drop(p); /* the mapping, and with it the memory, stays */
    }
    parts->n = 0;
}

static tutti_result share(uintptr_t start, uintptr_t end, struct tt_parts *parts)
{
    for (uintptr_t at = start; at < end;) {
        uintptr_t next;
        struct tt_pages *p = run_at(at, &next);
        struct tt_part *part = &parts->part[parts->n];

        if (parts->n == TT_MAX_PARTS)
            return TT_FAIL(TUTTI_E_ARG, "the buffer overlaps more than %d registered ones",
                           TT_MAX_PARTS);
        if (!p)
            TT_TRY(adopt(at, next < end ? next : end, &p));
        part->pages = p;
        part->file_offset = at - p->start;
        part->bytes = (p->end < end ? p->end : end) - at;
        p->refs++;
        parts->n++;
        at += part->bytes;
    }
    return TUTTI_OK;
}

tutti_result tt_pages_share(void *ptr, size_t bytes, struct tt_parts *parts)
{
    const uintptr_t start = (uintptr_t)ptr & ~(PAGE - 1);
    const uintptr_t end = ((uintptr_t)ptr + bytes + PAGE - 1) & ~(PAGE - 1);
    tutti_result res;

    memset(parts, 0, sizeof(*parts));
    parts->page_offset = (uint32_t)((uintptr_t)ptr - start);
    parts->bytes = end - start;
    if (!ptr || bytes == 0 || end <= start)
        return TT_FAIL(TUTTI_E_ARG, "window_register of %zu bytes at %p", bytes, ptr);
    pthread_mutex_lock(&lock);
    res = share(start, end, parts);
    if (res != TUTTI_OK)
        unhold(parts);
    pthread_mutex_unlock(&lock);
    return res;
}

void tt_pages_release(struct tt_parts *parts)
{
    pthread_mutex_lock(&lock);
    unhold(parts);
    pthread_mutex_unlock(&lock);
}

int tt_pages_fd(const struct tt_part *part)
{
    return part->pages->fd;
}
