/* The shared segment: laid out and made by rank 0, handed to the others as a descriptor, filled by
 * each rank for itself (so that its pages are near it), locked byte by byte as proof of life. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "cpu/cpu.h"
#include "cpu/mapping.h"

#define POPULATE_UP_TO ((size_t)128 << 20)

static uint64_t pages_up(uint64_t bytes)
{
    return (bytes + TT_PAGE - 1) & ~(uint64_t)(TT_PAGE - 1);
}

static void lay_out(struct tt_segment *s, int n_ranks, uint64_t scratch_bytes, const char *name)
{
    const uint64_t n = (uint64_t)n_ranks;
    uint64_t at = pages_up(sizeof(struct tt_rank_area));

    memset(s, 0, sizeof(*s));
    s->magic = TT_SEGMENT_MAGIC;
    s->layout = TT_SEGMENT_LAYOUT;
    s->n_ranks = (uint32_t)n;
    s->ring_bytes = n <= 8 ? 65536 : n <= 16 ? 32768 : n <= 64 ? 8192 : 4096;
    s->half_bytes = pages_up(scratch_bytes / 2 < 64 * n ? 64 * n : scratch_bytes / 2);
    s->notes_offset = at;
    at = pages_up(at + 2 * n * sizeof(struct tt_block_note));
    s->senders_offset = at;
    at = pages_up(at + n * sizeof(struct tt_sender_area));
    s->receivers_offset = at;
    at = pages_up(at + n * sizeof(struct tt_receiver_area));
    s->rings_offset = at;
    at = pages_up(at + n * s->ring_bytes);
    s->scratch_offset = at;
    at += 2 * s->half_bytes;
    s->team_offset = at;
    at += (uint64_t)TT_TEAM_LANES * 2 * TT_TEAM_SCRATCH;
    s->area_stride = pages_up(at);
    s->area_offset = pages_up(sizeof(struct tt_segment));
    s->total_bytes = s->area_offset + n * s->area_stride;
    snprintf(s->name, sizeof(s->name), "%s", name);
}

static tutti_result fill(int fd, uint64_t offset, uint64_t bytes)
{
    int err;

    do
        err = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    while (err == EINTR);
    errno = err;
    return err ? TT_FAIL_SYS("no memory for %llu bytes of shared memory", (unsigned long long)bytes)
               : TUTTI_OK;
}

/* Rank 0: the file, sealed at its full size, with its header. */
static tutti_result make(const struct tt_engine_config *config, int *fd_out)
{
    struct tt_segment s;
    char label[64];
    tutti_result res;
    int fd;

    lay_out(&s, config->n_ranks, config->scratch_bytes, config->name);
    snprintf(label, sizeof(label), TT_SEGMENT_NAME ":%s", config->name);
    fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return TT_FAIL_SYS("memfd_create");
    res = tt_memory_resize(fd, s.total_bytes);
    if (res == TUTTI_OK)
        res = fill(fd, 0, s.area_offset);
    if (res == TUTTI_OK && pwrite(fd, &s, sizeof(s), 0) != (ssize_t)sizeof(s))
        res = TT_FAIL_SYS("shared segment");
    if (res == TUTTI_OK && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        res = TT_FAIL_SYS("cannot seal the shared segment");
    if (res != TUTTI_OK) {
        close(fd);
        return res;
    }
    *fd_out = fd;
    return TUTTI_OK;
}

/* A descriptor of one's own for the file: the lock on byte `rank` goes with it, and with us. */
static tutti_result lock_own_byte(struct tt_engine *e, int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = e->rank, .l_len = 1};
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    e->fd = open(path, O_RDWR | O_CLOEXEC);
    if (e->fd < 0)
        return TT_FAIL_SYS("cannot reopen the shared segment through %s (%s)", path,
                           errno == EMFILE ? "raise ulimit -n" : "is /proc mounted?");
    if (fcntl(e->fd, F_OFD_SETLK, &lock) != 0)
        return TT_FAIL_SYS("cannot lock byte %d of the shared segment", e->rank);
    return TUTTI_OK;
}

static tutti_result map(struct tt_engine *e, int fd)
{
    struct tt_segment head;
    void *at;

    if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
        head.magic != TT_SEGMENT_MAGIC || head.layout != TT_SEGMENT_LAYOUT ||
        head.n_ranks != (uint32_t)e->n_ranks)
        return TT_FAIL(TUTTI_E_VERSION,
                       "rank 0's shared segment has another layout: all ranks must "
                       "run the same version of tutti");
    at = tt_mapping_open(fd, head.total_bytes);
    if (at == MAP_FAILED)
        return TT_FAIL_SYS("cannot map %llu bytes of shared memory",
                           (unsigned long long)head.total_bytes);
    e->segment = at;
    for (int r = 0; r < e->n_ranks; r++)
        e->peers[r].area = (struct tt_rank_area *)((unsigned char *)at + head.area_offset +
                                                   (uint64_t)r * head.area_stride);
    e->mine = e->peers[e->rank].area;
    TT_TRY(tt_memory_check(head.area_stride));
    return fill(fd, head.area_offset + (uint64_t)e->rank * head.area_stride, head.area_stride);
}

tutti_result tt_segment_open(struct tt_engine *e, const struct tt_engine_config *config)
{
    int *fds = malloc((size_t)e->n_ranks * sizeof(*fds));
    int fd = -1;
    tutti_result res = TUTTI_OK, ours;

    if (!fds)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %d descriptors", e->n_ranks);
    if (e->rank == 0)
        res = make(config, &fd);
    ours = tt_fd_mesh_exchange(e->mesh, ++e->mesh_round, fd, fds, config->exchange->deadline_ns);
    if (ours == TUTTI_OK && e->rank != 0)
        fd = fds[0];
    if (ours == TUTTI_OK && fd < 0 && res == TUTTI_OK)
        res = TT_FAIL(TUTTI_E_MEMORY, "rank 0 could not make the shared segment: see its error");
    if (ours == TUTTI_OK && res == TUTTI_OK)
        res = map(e, fd);
    if (ours == TUTTI_OK && res == TUTTI_OK)
        res = lock_own_byte(e, fd);
    if (fd >= 0)
        close(fd);
    free(fds);
    if (ours != TUTTI_OK)
        return ours;
    if (res == TUTTI_OK)
        res = tt_random_bytes(&e->mine->token, sizeof(e->mine->token));
    return res;
}

void tt_segment_close(struct tt_engine *e)
{
    if (e->segment)
        tt_mapping_close(e->segment, e->segment->total_bytes);
    if (e->fd >= 0)
        close(e->fd);
    e->segment = NULL;
    e->fd = -1;
}

/* Touch all pages, now that every rank has filled its area, so that no call pays for it. */
void tt_segment_populate(struct tt_engine *e)
{
    volatile const unsigned char *p = (volatile const unsigned char *)e->segment;

    if (e->segment->total_bytes > POPULATE_UP_TO)
        return;
    for (size_t i = 0; i < e->segment->total_bytes; i += TT_PAGE)
        (void)p[i];
}
