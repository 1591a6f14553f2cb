/* Which cores are near a device: what /sys says of it. */
#include "topo/cores.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

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
