#include "base/cgroup_path.h"

#include <stdio.h>
#include <string.h>

/* Is `word` one of a list with commas between its words? An empty list has the empty word. */
static int has(const char *list, const char *word)
{
    for (;; list++) {
        const size_t n = strcspn(list, ",");

        if (n == strlen(word) && strncmp(list, word, n) == 0)
            return 1;
        list += n;
        if (*list == 0)
            return 0;
    }
}

/* The path at the end of a line "4:cpu,cpuacct:/a/b", "0::/a/b", if that is about `controller`. */
static const char *path_in(char *line, const char *controller)
{
    char *list = strchr(line, ':');
    char *path = list ? strchr(list + 1, ':') : NULL;

    if (!path)
        return NULL;
    *path = 0;
    return has(list + 1, controller) ? path + 1 : NULL;
}

void tt_cgroup_find(struct tt_cgroup *group, const char *prefix, const char *controller)
{
    char line[512];
    FILE *f;

    snprintf(group->folder, sizeof(group->folder), "%s/proc/self/cgroup", prefix);
    f = fopen(group->folder, "re");
    snprintf(group->folder, sizeof(group->folder), "%s/sys/fs/cgroup%s%s", prefix,
             *controller ? "/" : "", controller);
    group->root_bytes = strlen(group->folder);
    while (f && fgets(line, sizeof(line), f)) {
        const char *path;

        line[strcspn(line, "\n")] = 0;
        path = path_in(line, controller);
        if (path && path[0] == '/' && path[1]) /* else it is the root */
            snprintf(group->folder + group->root_bytes, sizeof(group->folder) - group->root_bytes,
                     "%s", path);
    }
    if (f)
        fclose(f);
}

int tt_cgroup_up(struct tt_cgroup *group)
{
    if (strlen(group->folder) <= group->root_bytes)
        return 0;
    *strrchr(group->folder, '/') = 0;
    return 1;
}
