#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cgroup_path.h"
#include "base/error.h"

#define UNLIMITED (~0ull)

unsigned long long tt_memory_left(unsigned long long limit, unsigned long long usage,
                                  unsigned long long cache)
{
    const unsigned long long taken = usage > cache ? usage - cache : 0;

    return limit > taken ? limit - taken : 0;
}

/* The number after `key` in a file of "key value" lines; UNLIMITED if it is not there. */
static unsigned long long line_value(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    unsigned long long value = UNLIMITED;
    char line[256], name[64];

    while (f && value == UNLIMITED && fgets(line, sizeof(line), f))
        if (sscanf(line, "%63s %llu", name, &value) != 2 || strcmp(name, key) != 0)
            value = UNLIMITED;
    if (f)
        fclose(f);
    return value;
}

/* A file of one number; UNLIMITED for "max" or no file. */
static unsigned long long file_value(const char *folder, const char *name)
{
    char path[512];
    unsigned long long value;
    FILE *f;
    int n;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "re");
    n = f ? fscanf(f, "%llu", &value) : 0;
    if (f)
        fclose(f);
    return n == 1 ? value : UNLIMITED;
}

/* Where the two versions of cgroups keep their figures. */
static const struct version {
    const char *controller, *limit, *usage, *cache;
} versions[] = {
    {"", "memory.max", "memory.current", "inactive_file"},
    {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
};

static unsigned long long left_in(const struct version *v, const char *folder)
{
    const unsigned long long limit = file_value(folder, v->limit);
    const unsigned long long usage = file_value(folder, v->usage);
    char path[512];
    unsigned long long cache;

    if (limit == UNLIMITED || usage == UNLIMITED)
        return UNLIMITED;
    snprintf(path, sizeof(path), "%s/memory.stat", folder);
    cache = line_value(path, v->cache);
    return tt_memory_left(limit, usage, cache == UNLIMITED ? 0 : cache);
}

/* The tightest limit on the way from this process's cgroup up to the root. */
static unsigned long long left_in_cgroups(void)
{
    unsigned long long least = UNLIMITED;
    struct tt_cgroup group;

    for (size_t i = 0; i < TT_LEN(versions); i++) {
        tt_cgroup_find(&group, "", versions[i].controller);
        do {
            const unsigned long long left = left_in(&versions[i], group.folder);

            least = left < least ? left : least;
        } while (tt_cgroup_up(&group));
    }
    return least;
}

tutti_result tt_memory_check(size_t bytes)
{
    const unsigned long long system = line_value("/proc/meminfo", "MemAvailable:");
    unsigned long long left = left_in_cgroups();

    if (system != UNLIMITED && system < left >> 10)
        left = system << 10;
    if (bytes <= left)
        return TUTTI_OK;
    return TT_FAIL(TUTTI_E_MEMORY,
                   "%zu MiB of memory are wanted, but %llu MiB are left (of the "
                   "system, or of this process's cgroup)",
                   bytes >> 20, left >> 20);
}

tutti_result tt_memory_resize(int fd, size_t bytes)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
        return TT_FAIL(TUTTI_E_MEMORY,
                       "%zu KiB of shared memory are wanted, but this process may have files of "
                       "%llu KiB at most: raise `ulimit -f`, which counts for shared memory too",
                       bytes >> 10, (unsigned long long)limit.rlim_cur >> 10);
    return ftruncate(fd, (off_t)bytes) == 0 ? TUTTI_OK
                                            : TT_FAIL_SYS("shared memory of %zu bytes", bytes);
}
