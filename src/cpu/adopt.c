#include "cpu/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

tutti_result tt_memfd_new(size_t bytes, int *fd_out)
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

tutti_result tt_memfd_fill(int fd, size_t bytes)
{
    int err;

    do
        err = posix_fallocate(fd, 0, (off_t)bytes);
    while (err == EINTR);
    errno = err;
    return err ? TT_FAIL_SYS("no memory for %zu shared bytes", bytes) : TUTTI_OK;
}

/* A line of /proc/self/maps. */
struct mapping {
    unsigned long from, to, offset, inode;
    unsigned major, minor;
    char perms[5];
    int is_stack, is_ours; /* by its name */
};

/* The next one; 0 after the last. */
static int next_mapping(FILE *maps, struct mapping *m)
{
    char line[512];

    while (fgets(line, sizeof(line), maps)) {
        if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu", &m->from, &m->to, m->perms, &m->offset,
                   &m->major, &m->minor, &m->inode) != 7)
            continue; /* the rest of a long line */
        m->is_stack = strstr(line, "[stack") != NULL;
        m->is_ours = strstr(line, "/memfd:tutti-window") != NULL;
        return 1;
    }
    return 0;
}

tutti_result tt_adopt_check(uintptr_t start, uintptr_t end)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t reached = start;
    struct mapping m;
    tutti_result res = TUTTI_OK;

    if (!maps)
        return TT_FAIL_SYS("/proc/self/maps");
    if (here >= start && here < end)
        res = TT_FAIL(TUTTI_E_ARG, "the buffer lies on the calling thread's stack");
    while (res == TUTTI_OK && reached < end && next_mapping(maps, &m)) {
        if (m.to <= reached)
            continue;
        if (m.from > reached)
            break;
        if (m.perms[0] != 'r' || m.perms[1] != 'w')
            res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is not writable", (unsigned long)reached);
        else if (m.perms[3] != 'p' && !m.is_ours)
            res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is a shared mapping of something else",
                          (unsigned long)reached);
        else if (m.is_stack)
            res = TT_FAIL(TUTTI_E_ARG, "memory at %#lx is a stack", (unsigned long)reached);
        reached = m.to;
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
tutti_result tt_adopt(uintptr_t start, uintptr_t end, int *fd_out)
{
    const size_t bytes = end - start;
    int fd = -1;
    tutti_result res;

    TT_TRY(tt_memory_check(bytes));
    TT_TRY(tt_memfd_new(bytes, &fd));
    res = tt_memfd_fill(fd, bytes);
    if (res == TUTTI_OK)
        res = copy_into(fd, start, bytes);
    if (res == TUTTI_OK && mmap((void *)start, bytes, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) == MAP_FAILED)
        res = TT_FAIL_SYS("cannot map %zu shared bytes over the buffer", bytes);
    if (res != TUTTI_OK) {
        close(fd);
        return res;
    }
    *fd_out = fd;
    return TUTTI_OK;
}

/* ---- the way back ---- */

static tutti_result copy_out(int fd, uintptr_t offset, unsigned char *to, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        const ssize_t n = pread(fd, to + done, bytes - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return TT_FAIL_SYS("cannot copy %zu bytes out of shared memory", bytes);
        done += (size_t)n;
    }
    return TUTTI_OK;
}

/* As in tt_adopt(), nothing may be written to the pages meanwhile, so nothing here allocates. The copy is
 * made beside and moved over: who only reads never sees anything else than the contents. */
static tutti_result make_private(int fd, uintptr_t offset, uintptr_t at, size_t bytes,
                                 const char *perms)
{
    const int prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
                     (perms[2] == 'x' ? PROT_EXEC : 0);
    unsigned char *copy =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tutti_result res;

    if (copy == MAP_FAILED)
        return TT_FAIL_SYS("no memory for a copy of %zu bytes", bytes);
    res = copy_out(fd, offset, copy, bytes);
    if (res == TUTTI_OK && prot != (PROT_READ | PROT_WRITE) && mprotect(copy, bytes, prot) != 0)
        res = TT_FAIL_SYS("mprotect");
    if (res == TUTTI_OK &&
        mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)at) == MAP_FAILED)
        res = TT_FAIL_SYS("cannot map %zu private bytes over the buffer", bytes);
    if (res != TUTTI_OK)
        munmap(copy, bytes);
    return res;
}

/* Only where the file is mapped as it was: the memory may have been freed, and the address be another's. */
tutti_result tt_adopt_undo(int fd, uintptr_t origin, uintptr_t start, uintptr_t end)
{
    struct mapping m;
    struct stat st;
    FILE *maps;
    tutti_result res = TUTTI_OK;

    TT_TRY(tt_memory_check(end - start));
    if (fstat(fd, &st) != 0)
        return TT_FAIL_SYS("fstat of a window's memory");
    maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return TT_FAIL_SYS("/proc/self/maps");
    while (res == TUTTI_OK && next_mapping(maps, &m) && m.from < end) {
        const uintptr_t at = m.from > start ? m.from : start, to = m.to < end ? m.to : end;

        if (at < to && m.inode == st.st_ino && m.major == major(st.st_dev) &&
            m.minor == minor(st.st_dev) && m.perms[3] == 's' && m.from - m.offset == origin)
            res = make_private(fd, at - origin, at, to - at, m.perms);
    }
    fclose(maps);
    return res;
}
