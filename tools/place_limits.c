/* What this process may use: what the system has left, and what the control groups around it grant, by the
 * files of either version. */
#include "cli.h"
#include "place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int read_numbers(const char *folder, const char *name, double *first, double *second)
{
    char path[640];
    FILE *file;
    int n;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "re");
    n = file ? fscanf(file, "%lf %lf", first, second) : 0; /* "max" is no number */
    if (file)
        fclose(file);
    return n;
}

/* The number behind `key` in a file of such lines; `missing` if it is not there. */
static double read_line(const char *folder, const char *name, const char *key, double missing)
{
    char path[640], line[256], word[64];
    double value = missing;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        double number;

        if (sscanf(line, "%63s %lf", word, &number) == 2 && strcmp(word, key) == 0)
            value = number;
    }
    if (file)
        fclose(file);
    return value;
}

/* CPUs that one control group grants; INFINITY: no limit. */
static double quota_of(const char *folder)
{
    double quota = 0;
    double period = 0;
    double unused;

    if (read_numbers(folder, "cpu.max", &quota, &period) != 2 &&
        (read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) < 1 ||
         read_numbers(folder, "cpu.cfs_period_us", &period, &unused) < 1))
        return INFINITY;
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* Bytes that one leaves, page cache that can be given back among them; INFINITY: no limit. */
static double memory_of(const char *folder)
{
    double limit, usage, cache, unused;

    if (read_numbers(folder, "memory.max", &limit, &unused) == 1 &&
        read_numbers(folder, "memory.current", &usage, &unused) == 1)
        cache = read_line(folder, "memory.stat", "inactive_file", 0);
    else if (read_numbers(folder, "memory.limit_in_bytes", &limit, &unused) == 1 &&
             read_numbers(folder, "memory.usage_in_bytes", &usage, &unused) == 1)
        cache = read_line(folder, "memory.stat", "total_inactive_file", 0);
    else
        return INFINITY;
    usage = usage > cache ? usage - cache : 0;
    return limit > usage ? limit - usage : 0;
}

/* What the control group of that folder grants, which is the least so far. */
struct least {
    double value;
    char folder[600];
};

/* From the group `path` below `root` up to the root itself. */
static void least_on_the_way(const char *root, const char *path, double (*of)(const char *folder),
                             struct least *least)
{
    char folder[600];

    snprintf(folder, sizeof(folder), "%s%s", root, strcmp(path, "/") == 0 ? "" : path);
    for (;;) {
        const double value = of(folder);

        if (value < least->value) {
            least->value = value;
            memcpy(least->folder, folder, sizeof(folder));
        }
        if (strlen(folder) <= strlen(root))
            return;
        *strrchr(folder, '/') = '\0';
    }
}

/* Lines of /proc/self/cgroup are "4:cpu,cpuacct:/path", or "0::/path" of version 2. */
static struct least least_of_groups(const char *controller, double (*of)(const char *folder))
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    struct least least = {.value = INFINITY};
    char line[512], root[64];
    char *rest;

    snprintf(root, sizeof(root), "/sys/fs/cgroup/%s", controller);
    while (file && fgets(line, sizeof(line), file)) {
        char *list = strchr(line, ':');
        char *path = list ? strchr(list + 1, ':') : NULL;

        if (!path || path[1] != '/')
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        if (list[1] == '\0')
            least_on_the_way("/sys/fs/cgroup", path, of, &least);
        for (char *word = strtok_r(list + 1, ",", &rest); word; word = strtok_r(NULL, ",", &rest))
            if (strcmp(word, controller) == 0)
                least_on_the_way(root, path, of, &least);
    }
    if (file)
        fclose(file);
    return least;
}

double place_quota(void)
{
    const double quota = least_of_groups("cpu", quota_of).value;

    return isinf(quota) ? 0 : quota;
}

double place_meminfo(const char *key, double missing)
{
    return read_line("/proc", "meminfo", key, missing / 1024) * 1024;
}

struct place_memory place_memory(void)
{
    const struct least group = least_of_groups("memory", memory_of);
    struct stat facts;

    return (struct place_memory){
        .system = place_meminfo("MemAvailable:", INFINITY),
        .group = group.value,
        .group_id = group.folder[0] && stat(group.folder, &facts) == 0 ? facts.st_ino : 0};
}
