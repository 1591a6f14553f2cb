#include "place.h"
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef TUTTI_HAVE_HWLOC
#include <hwloc.h>
#endif

static int compare_cores(const void *a, const void *b)
{
    const struct place_core *x = a;
    const struct place_core *y = b;

    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The core that holds `cpu` (they are told apart by the lowest of their hardware threads). */
static void add_cpu(struct place *place, int cpu, int core_key, int node, int package)
{
    struct place_core *core = NULL;

    for (int i = 0; i < place->n_cores; i++)
        if (place->cores[i].first == core_key)
            core = &place->cores[i];
    if (!core) {
        core = &place->cores[place->n_cores++];
        CPU_ZERO(&core->threads);
        core->first = core_key;
        core->node = node;
        core->package = package;
    }
    CPU_SET((size_t)cpu, &core->threads);
    place->n_threads++;
}

#ifdef TUTTI_HAVE_HWLOC
static void read_cores(struct place *place, const cpu_set_t *allowed)
{
    hwloc_topology_t topology;
    hwloc_obj_t pu = NULL;

    if (hwloc_topology_init(&topology) != 0)
        return;
    if (hwloc_topology_load(topology) == 0) {
        while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL) {
            const hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, pu);
            const hwloc_obj_t pack =
                hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_PACKAGE, pu);
            const int cpu = (int)pu->os_index;
            const int node = pu->nodeset ? hwloc_bitmap_first(pu->nodeset) : 0;

            if (cpu >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu, allowed))
                continue;
            add_cpu(place, cpu, core ? hwloc_bitmap_first(core->cpuset) : cpu, node < 0 ? 0 : node,
                    pack ? (int)pack->logical_index : 0);
        }
    }
    hwloc_topology_destroy(topology);
    place->source = "hwloc";
}
#else
static int read_number(const char *path, int fallback)
{
    FILE *file = fopen(path, "re");
    int number = fallback;

    if (!file)
        return fallback;
    if (fscanf(file, "%d", &number) != 1)
        number = fallback;
    fclose(file);
    return number;
}

static int node_of(int cpu)
{
    char path[128];

    for (int node = 0; node < 64; node++) {
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpu%d", node, cpu);
        if (access(path, F_OK) == 0)
            return node;
    }
    return 0;
}

static void read_cores(struct place *place, const cpu_set_t *allowed)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[128];
        int key;
        int package;

        if (!CPU_ISSET((size_t)cpu, allowed))
            continue;
        snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        key = read_number(path, cpu);
        snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/physical_package_id",
                 cpu);
        package = read_number(path, 0);
        add_cpu(place, cpu, key, node_of(cpu), package < 0 ? 0 : package);
    }
    place->source = "sysfs";
}
#endif

void place_read(struct place *place)
{
    cpu_set_t allowed;

    memset(place, 0, sizeof(*place));
    place->cores = cli_alloc(CPU_SETSIZE * sizeof(*place->cores));
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        CPU_SET(0, &allowed);
    read_cores(place, &allowed);
    if (place->n_cores == 0)
        add_cpu(place, 0, 0, 0, 0);
    for (int i = 0; i < place->n_cores; i++) /* hwloc's first thread may be one we may not use */
        for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
            if (CPU_ISSET((size_t)cpu, &place->cores[i].threads))
                place->cores[i].first = cpu;
    qsort(place->cores, (size_t)place->n_cores, sizeof(*place->cores), compare_cores);
    for (int i = 0; i < place->n_cores; i++) {
        int new_package = 1;

        if (i == 0 || place->cores[i].node != place->cores[i - 1].node)
            place->n_nodes++;
        for (int k = 0; k < i; k++)
            if (place->cores[k].package == place->cores[i].package)
                new_package = 0;
        place->n_packages += new_package;
    }
    place->quota = place_quota();
}

void place_free(struct place *place)
{
    free(place->cores);
    place->cores = NULL;
}

int place_fit(const struct place *place)
{
    int fit = place->n_cores;

    if (place->quota > 0 && place->quota < fit)
        fit = (int)(place->quota + 0.01);
    return fit < 1 ? 1 : fit;
}

int place_is_crowded(const struct place *place, int n_ranks, int n_threads)
{
    return n_ranks * n_threads > place_fit(place);
}

void place_of_thread(const struct place *place, int rank, int n_ranks, int thread, int n_threads,
                     cpu_set_t *set_out)
{
    const int all = n_ranks * n_threads;
    const int index = rank * n_threads + thread;
    int core = index % place->n_cores;

    if (all <= place->n_cores) /* spread: leave equal gaps, so that every NUMA node is used */
        core = (int)((long)index * place->n_cores / all);
    CPU_ZERO(set_out);
    CPU_SET((size_t)place->cores[core].first, set_out);
}

void place_of_rank(const struct place *place, enum place_bind bind, int rank, int n_ranks,
                   cpu_set_t *set_out)
{
    int begin = (int)((long)rank * place->n_cores / n_ranks);
    int end = (int)((long)(rank + 1) * place->n_cores / n_ranks);

    CPU_ZERO(set_out);
    if (n_ranks > place->n_cores) {
        begin = rank % place->n_cores;
        end = begin + 1;
    }
    for (int i = 0; i < place->n_cores; i++) {
        const struct place_core *core = &place->cores[i];
        int take = 1;

        if (bind == PLACE_CORE)
            take = i >= begin && i < end;
        else if (bind == PLACE_NUMA)
            take = core->node == place->cores[begin].node;
        if (take)
            CPU_OR(set_out, set_out, &core->threads);
    }
}
