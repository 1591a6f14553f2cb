/* Memory cgroups for tests: see cgroup.h. */
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

int t_cgroup_create(size_t limit_bytes, char path[256])
{
    static const char *const roots[][2] = {{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
                                           {"/sys/fs/cgroup", "memory.max"}};

    for (size_t i = 0; i < T_LEN(roots); i++) {
        snprintf(path, 256, "%s/tutti-test-%d", roots[i][0], (int)getpid());
        if (mkdir(path, 0755) != 0)
            continue;
        if (write_number(path, roots[i][1], limit_bytes) == 0)
            return 0;
        rmdir(path);
    }
    return -1;
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
