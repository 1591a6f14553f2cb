/*
 * ThreadSanitizer tells accesses apart by address. For it to see the protocol between ranks that are
 * threads of one process, they must use one mapping of the segment; in every other build each rank
 * maps for itself, and nothing here is shared.
 */
#include "cpu/mapping.h"

#include <sys/mman.h>

#if defined(__SANITIZE_THREAD__)
#define ONE_MAPPING 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ONE_MAPPING 1
#endif
#endif

#ifdef ONE_MAPPING
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

struct mapping {
    dev_t dev;
    ino_t ino;
    void *at;
    int users;
    struct mapping *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapping *mappings;

static struct mapping *mapping_of(int fd, size_t bytes)
{
    struct stat st;
    struct mapping *m;

    if (fstat(fd, &st) != 0)
        return NULL;
    for (m = mappings; m; m = m->next)
        if (m->dev == st.st_dev && m->ino == st.st_ino)
            return m;
    m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m->at == MAP_FAILED) {
        free(m);
        return NULL;
    }
    m->dev = st.st_dev;
    m->ino = st.st_ino;
    m->next = mappings;
    mappings = m;
    return m;
}

void *tt_mapping_open(int fd, size_t bytes)
{
    struct mapping *m;

    pthread_mutex_lock(&lock);
    m = mapping_of(fd, bytes);
    if (m)
        m->users++;
    pthread_mutex_unlock(&lock);
    return m ? m->at : MAP_FAILED;
}

void tt_mapping_close(void *at, size_t bytes)
{
    struct mapping **link = &mappings;

    pthread_mutex_lock(&lock);
    while (*link && (*link)->at != at)
        link = &(*link)->next;
    if (*link && --(*link)->users == 0) {
        struct mapping *gone = *link;

        *link = gone->next;
        munmap(gone->at, bytes);
        free(gone);
    }
    pthread_mutex_unlock(&lock);
}
#else
void *tt_mapping_open(int fd, size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

void tt_mapping_close(void *at, size_t bytes)
{
    munmap(at, bytes);
}
#endif
