/*
 * Time, and how much of it a thread was ready to run and got no core: what a loaded machine adds to whatever a test
 * measures, and no library can help. Limits are held against the rest. In a header of its own because the unit tests
 * have nothing else of this folder.
 */
#ifndef TUTTI_TESTS_HELD_UP_H
#define TUTTI_TESTS_HELD_UP_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct t_time {
    uint64_t ns, held_up_ns;
};

/* Since when does not matter. Of that thread (the first of a process has its number), 0: of this one. Where the system
 * does not tell, nobody is ever held up. */
static inline struct t_time t_time_of(int thread)
{
    unsigned long long ran, waited;
    struct timespec now;
    char path[48] = "/proc/thread-self/schedstat";
    FILE *file;
    int n = 0;

    if (thread)
        snprintf(path, sizeof(path), "/proc/%d/schedstat", thread);
    file = fopen(path, "re");
    if (file) {
        n = fscanf(file, "%llu %llu", &ran, &waited);
        fclose(file);
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (struct t_time){(uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
                           n == 2 ? waited : 0};
}

/* From one time to another, or 0 if that was before. */
static inline struct t_time t_time_from(struct t_time from, struct t_time to)
{
    return (struct t_time){to.ns > from.ns ? to.ns - from.ns : 0,
                           to.held_up_ns > from.held_up_ns ? to.held_up_ns - from.held_up_ns : 0};
}

/* For how long the thread of a process that waited most has waited. */
static inline uint64_t t_held_up_most_ns(int pid)
{
    char path[48];
    const struct dirent *entry;
    uint64_t most = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir)) != NULL) {
        const int thread = (int)strtol(entry->d_name, NULL, 10);
        const uint64_t ns = thread > 0 ? t_time_of(thread).held_up_ns : 0;

        most = ns > most ? ns : most;
    }
    if (dir)
        closedir(dir);
    return most;
}

/* What of a time is left without such waits, one's own and another's that one depended on. */
static inline uint64_t t_time_left_ms(struct t_time took, uint64_t other_held_up_ns)
{
    const uint64_t held_up_ns = took.held_up_ns + other_held_up_ns;

    return took.ns > held_up_ns ? (took.ns - held_up_ns) / 1000000 : 0;
}

#endif
