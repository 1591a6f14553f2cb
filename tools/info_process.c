/* Do two processes belong together? Ranks of a communicator map each other's memory. */
#include "info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_INODES 4096

/* Inodes of the memfds that a process maps; returns how many, -1 if they may not be read. */
static int read_inodes(int pid, unsigned long *inodes)
{
    char path[64];
    char line[512];
    FILE *file;
    int n = 0;

    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    file = fopen(path, "re");
    if (!file)
        return -1;
    while (n < MOST_INODES && fgets(line, sizeof(line), file)) {
        unsigned long inode;

        if (!strstr(line, "/memfd:") || sscanf(line, "%*s %*s %*s %*s %lu", &inode) != 1)
            continue;
        if (n == 0 || inodes[n - 1] != inode)
            inodes[n++] = inode;
    }
    fclose(file);
    return n;
}

int info_share_memory(int pid_a, int pid_b)
{
    static unsigned long a[MOST_INODES];
    static unsigned long b[MOST_INODES];
    const int n_a = read_inodes(pid_a, a);
    const int n_b = read_inodes(pid_b, b);

    if (n_a < 0 || n_b < 0)
        return 1;
    for (int i = 0; i < n_a; i++)
        for (int k = 0; k < n_b; k++)
            if (a[i] == b[k])
                return 1;
    return 0;
}
