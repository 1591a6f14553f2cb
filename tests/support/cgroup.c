/* Cgroups for tests: see cgroup.h. */
#include "support/cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

static int write_number(const char *folder, const char *name, size_t value)
{
    char path[512];
    FILE *file;
    int bad;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "w");
    if (file == NULL)
        return -1;
    bad = fprintf(file, "%zu", value) < 0;
    return fclose(file) != 0 || bad ? -1 : 0;
}

/* Folder and file, of version 1 and of version 2. */
static int create(const char *const roots[2][2], size_t value, char path[256])
{
    static int number;

    number++;
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, 256, "%s/tutti-test-%d-%d", roots[i][0], (int)getpid(), number);
        if (mkdir(path, 0755) != 0)
            continue;
        if (write_number(path, roots[i][1], value) == 0)
            return 0;
        rmdir(path);
    }
    return -1;
}

int t_cgroup_create(size_t limit_bytes, char path[256])
{
    static const char *const roots[][2] = {{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
                                           {"/sys/fs/cgroup", "memory.max"}};

    return create(roots, limit_bytes, path);
}

/* Of periods of 100 ms, which is what both versions begin with. */
int t_cgroup_create_cpu(size_t n_cores, char path[256])
{
    static const char *const roots[][2] = {{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"},
                                           {"/sys/fs/cgroup", "cpu.max"}};

    return create(roots, n_cores * 100000, path);
}

int t_cgroup_enter(const char *path)
{
    return write_number(path, "cgroup.procs", (size_t)getpid());
}

void t_cgroup_remove(const char *path)
{
    for (int i = 0; i < 100 && rmdir(path) != 0; i++)
        t_sleep_us(10000);
}
