/* RDMA ports, by what /sys says of them. */
#include "topo/rails.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo/cores.h"

#define MOST_RAILS 64
#define MOST_PORTS 2 /* of a card */

struct rail {
    char card[48];
    int port;
    int nearness;
};

/* ---- which there are ---- */

static int first_line(const char *path, char *line, size_t bytes)
{
    FILE *file = fopen(path, "re");
    const int found = file && fgets(line, (int)bytes, file);

    if (file)
        fclose(file);
    return found;
}

static int is_active(const char *sysfs, const char *card, int port)
{
    char path[PATH_MAX], line[64];

    snprintf(path, sizeof(path), "%s/class/infiniband/%s/ports/%d/state", sysfs, card, port);
    return first_line(path, line, sizeof(line)) && strstr(line, "ACTIVE");
}

static int find_rails(const char *sysfs, struct rail out[MOST_RAILS])
{
    struct dirent **cards = NULL;
    char folder[PATH_MAX];
    int n_cards, n = 0;

    snprintf(folder, sizeof(folder), "%s/class/infiniband", sysfs);
    n_cards = scandir(folder, &cards, NULL, alphasort);
    for (int i = 0; i < n_cards; i++) {
        const char *card = cards[i]->d_name;

        for (int port = 1; port <= MOST_PORTS && card[0] != '.'; port++) {
            if (n == MOST_RAILS || strlen(card) >= sizeof(out[n].card) ||
                !is_active(sysfs, card, port))
                continue;
            out[n].port = port;
            snprintf(out[n++].card, sizeof(out[0].card), "%s", card);
        }
        free(cards[i]);
    }
    free(cards);
    return n;
}

void tt_rails_list(const char *sysfs, char *out, size_t bytes)
{
    struct rail rails[MOST_RAILS];
    const int n = find_rails(sysfs, rails);
    size_t used = 0;

    out[0] = 0;
    for (int i = 0; i < n; i++)
        if (used + strlen(rails[i].card) + 4 < bytes)
            used +=
                (size_t)snprintf(out + used, bytes - used, ",%s:%d", rails[i].card, rails[i].port);
}

/* ---- which are near ---- */

/* How many bridges and switches lead to both, as the folders that contain both say. */
static int common_folders(const char *a, const char *b)
{
    int n = 0;

    for (; *a == *b && *a; a++, b++)
        n += *a == '/';
    return n;
}

static int numa_node(const char *device)
{
    char path[PATH_MAX + 16], line[32];

    snprintf(path, sizeof(path), "%s/numa_node", device);
    return first_line(path, line, sizeof(line)) ? (int)strtol(line, NULL, 10) : -1;
}

/* Behind the same switch is nearest; then below the same root; then at the same socket. */
static int nearness_of_devices(const char *a, const char *b)
{
    const int node = numa_node(a);

    return 2 * common_folders(a, b) + (node >= 0 && node == numa_node(b));
}

static int is_near_cores(const char *device)
{
    char path[PATH_MAX + 16], line[1024];
    cpu_set_t near, mine;

    snprintf(path, sizeof(path), "%s/local_cpulist", device);
    if (!first_line(path, line, sizeof(line)) || tt_cores_parse(line, &near) != 0 ||
        sched_getaffinity(0, sizeof(mine), &mine) != 0)
        return 0;
    CPU_AND(&near, &near, &mine);
    return CPU_COUNT(&near) > 0;
}

static int nearness(const char *sysfs, const struct rail *rail, const char *gpu)
{
    char link[PATH_MAX], card[PATH_MAX], other[PATH_MAX];

    snprintf(link, sizeof(link), "%s/class/infiniband/%s/device", sysfs, rail->card);
    if (!realpath(link, card))
        return 0;
    if (!gpu[0])
        return is_near_cores(card);
    snprintf(link, sizeof(link), "%s/bus/pci/devices/%.32s", sysfs, gpu);
    for (char *p = strrchr(link, '/'); *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return realpath(link, other) ? nearness_of_devices(card, other) : 0;
}

void tt_rails_nearest(const char *sysfs, const char *gpu, int turn, char *out, size_t bytes)
{
    struct rail rails[MOST_RAILS];
    const int n = find_rails(sysfs, rails);
    int best = -1, n_best = 0;

    out[0] = 0;
    for (int i = 0; i < n; i++) {
        rails[i].nearness = nearness(sysfs, &rails[i], gpu);
        if (rails[i].nearness > best) {
            best = rails[i].nearness;
            n_best = 0;
        }
        n_best += rails[i].nearness == best;
    }
    for (int i = 0, k = 0; i < n; i++)
        if (rails[i].nearness == best && k++ == turn % n_best)
            snprintf(out, bytes, ",%s:%d", rails[i].card, rails[i].port);
}
