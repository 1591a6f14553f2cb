/* Counting what a process holds: see proc.h. */
#include "support/proc.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t count_entries(const char *path)
{
    DIR *dir = opendir(path);
    size_t n = 0;
    const struct dirent *entry;

    if (dir == NULL)
        return 0;
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static size_t count_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    size_t n = 0;
    int c;

    if (file == NULL)
        return 0;
    while ((c = getc(file)) != EOF)
        n += c == '\n';
    fclose(file);
    return n;
}

size_t t_count_fds(void)
{
    return count_entries("/proc/self/fd");
}

/* The limit is a bound of the numbers: at the lowest free one nothing more can be opened. */
void t_limit_fds(int more)
{
    static struct rlimit before;
    struct rlimit limit;

    if (before.rlim_max == 0)
        T_SYS(getrlimit(RLIMIT_NOFILE, &before));
    limit = before;
    if (more >= 0) {
        const int lowest = dup(0);

        T_SYS(lowest);
        close(lowest);
        limit.rlim_cur = (rlim_t)(lowest + more);
    }
    T_SYS(setrlimit(RLIMIT_NOFILE, &limit));
}

size_t t_count_maps(void)
{
    return count_lines("/proc/self/maps");
}

size_t t_count_threads(int pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/task", pid ? pid : (int)getpid());
    return count_entries(path);
}

size_t t_count_dev_shm(void)
{
    return count_entries("/dev/shm");
}

int t_private_dev_shm(const char *size)
{
    char options[64];

    snprintf(options, sizeof(options), "size=%s", size);
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return -1;
    if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0)
        return -1;
    return mount("tmpfs", "/dev/shm", "tmpfs", 0, options) != 0 ? -1 : 0;
}

size_t t_count_sockets(void)
{
    return count_lines("/proc/net/unix");
}

size_t t_count_children(void)
{
    char path[64];
    unsigned long pid;
    size_t n = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    file = fopen(path, "r");
    if (file == NULL)
        return 0;
    while (fscanf(file, "%lu", &pid) == 1)
        n++;
    fclose(file);
    return n;
}

size_t t_memory_kib(const char *path, const char *name)
{
    FILE *file = fopen(path, "r");
    char line[256];
    size_t kib = 0;

    if (file == NULL)
        return 0;
    while (kib == 0 && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoul(line + strlen(name), NULL, 10);
    fclose(file);
    return kib;
}

int t_is_private(volatile unsigned char *byte)
{
    const unsigned char before = *byte;
    const pid_t child = fork();
    int status, same;

    T_SYS(child);
    if (child == 0) {
        *byte = (unsigned char)~before;
        _exit(0);
    }
    T_SYS(waitpid(child, &status, 0));
    same = *byte == before;
    *byte = before;
    return same;
}

size_t t_available_mib(void)
{
    return t_memory_kib("/proc/meminfo", "MemAvailable:") / 1024;
}

struct t_holdings t_holdings_now(void)
{
    return (struct t_holdings){t_count_fds(), t_count_maps(), t_count_dev_shm()};
}

void t_check_holdings(const struct t_holdings *before, size_t map_slack, const char *when)
{
    const struct t_holdings now = t_holdings_now();

    T_CHECK(now.fds == before->fds, "%s: %zu descriptors, were %zu", when, now.fds, before->fds);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* these map as they like */
    T_CHECK(now.maps <= before->maps + map_slack, "%s: %zu mappings, were %zu", when, now.maps,
            before->maps);
#else
    (void)map_slack;
#endif
}

static uint64_t cpu_us(void)
{
    struct rusage u;

    T_SYS(getrusage(RUSAGE_SELF, &u));
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

double t_idle_percent(void)
{
    uint64_t used, from;

    t_sleep_us(300000); /* what was busy a moment ago looks for more work for a while */
    from = t_now_ns();
    used = cpu_us();
    t_sleep_us(1000000);
    return (double)(cpu_us() - used) * 1e5 / (double)(t_now_ns() - from);
}

char t_process_state(int pid)
{
    char path[64], state = 'X';
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file == NULL)
        return errno == EMFILE ? '?' : 'X';
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    fclose(file);
    return state;
}
