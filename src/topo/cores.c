/* Which cores are near a device, and how many there are to use: what /sys says of it. */
#include "topo/cores.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cgroup_path.h"

int tt_cores_parse(const char *list, cpu_set_t *cores_out)
{
    cpu_set_t cores;

    CPU_ZERO(&cores);
    while (*list != 0 && *list != '\n') {
        char *end;
        unsigned long first, last;

        if (!isdigit((unsigned char)*list))
            return -1;
        first = last = strtoul(list, &end, 10);
        if (*end == '-') {
            if (!isdigit((unsigned char)end[1]))
                return -1;
            last = strtoul(end + 1, &end, 10);
        }
        if (last < first || last >= CPU_SETSIZE || (*end != ',' && *end != '\n' && *end != 0))
            return -1;
        for (unsigned long c = first; c <= last; c++)
            CPU_SET(c, &cores);
        list = *end == ',' ? end + 1 : end;
    }
    *cores_out = cores;
    return 0;
}

int tt_cores_near(const char *pci_device, cpu_set_t *cores_out)
{
    char path[96], list[1024];
    cpu_set_t near, mine;
    FILE *file;
    char *line;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.32s/local_cpulist", pci_device);
    for (char *p = path; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    file = fopen(path, "re");
    if (!file)
        return 0;
    line = fgets(list, sizeof(list), file);
    fclose(file);
    if (!line || tt_cores_parse(line, &near) != 0 || sched_getaffinity(0, sizeof(mine), &mine) != 0)
        return 0;
    CPU_AND(&near, &near, &mine);
    if (CPU_COUNT(&near) == 0)
        return 0;
    *cores_out = near;
    return 1;
}

/* A part of a core is a core to run on. */
static uint32_t whole(long quota, long period)
{
    return quota > 0 && period > 0 ? (uint32_t)((quota + period - 1) / period) : 0;
}

static int read_numbers(const char *folder, const char *name, long *first, long *second)
{
    char path[640];
    FILE *file;
    int n;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "re");
    n = file ? fscanf(file, "%ld %ld", first, second) : 0; /* "max" is no number */
    if (file)
        fclose(file);
    return n;
}

/* Of one group, in the files of either version of cgroups; 0: none. */
static uint32_t quota_of(const char *folder)
{
    long quota = -1, period = 0, unused;

    if (read_numbers(folder, "cpu.max", &quota, &period) == 2)
        return whole(quota, period);
    if (read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) > 0 &&
        read_numbers(folder, "cpu.cfs_period_us", &period, &unused) > 0)
        return whole(quota, period);
    return 0;
}

uint32_t tt_cores_quota(const char *prefix)
{
    static const char *const controllers[] = {"", "cpu"};
    uint32_t least = 0;

    for (int i = 0; i < 2; i++) {
        struct tt_cgroup group;

        tt_cgroup_find(&group, prefix, controllers[i]);
        do {
            const uint32_t quota = quota_of(group.folder);

            if (quota && (!least || quota < least))
                least = quota;
        } while (tt_cgroup_up(&group));
    }
    return least;
}
