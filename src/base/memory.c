#include "base/memory.h"

#include <stdio.h>
#include <string.h>

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

/* Where the two versions of cgroups keep their figures. `mark` is what /proc/self/cgroup has between
 * the colons of the line that names this process's folder. */
static const struct version {
    const char *mark, *root, *limit, *usage, *cache;
} versions[] = {
    {"", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
    {"memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_inactive_file"},
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

/* This process's folder, below v->root; the root itself where the list does not say. */
static void folder_of(const struct version *v, char *folder, size_t bytes)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[384], mark[64];
    int end;

    snprintf(folder, bytes, "%s", v->root);
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        snprintf(mark, sizeof(mark), ":%s:", v->mark);
        end = 0;
        if (sscanf(line, "%*d%n", &end) == 0 && strncmp(line + end, mark, strlen(mark)) == 0)
            snprintf(folder, bytes, "%s%s", v->root, line + end + strlen(mark));
    }
    if (f)
        fclose(f);
}

/* The tightest limit on the way from this process's cgroup up to the root. */
static unsigned long long left_in_cgroups(void)
{
    unsigned long long least = UNLIMITED;
    char folder[512];

    for (size_t i = 0; i < TT_LEN(versions); i++) {
        folder_of(&versions[i], folder, sizeof(folder));
        while (strlen(folder) >= strlen(versions[i].root)) {
            const unsigned long long left = left_in(&versions[i], folder);

            least = left < least ? left : least;
            *strrchr(folder, '/') = 0;
        }
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
                   "%zu MiB of shared memory are wanted, but %llu MiB are left (of the "
                   "system, or of this process's cgroup)",
                   bytes >> 20, left >> 20);
}
