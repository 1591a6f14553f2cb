/* Checks, random numbers and times: see t.h. Where a failure goes is job.c's business. */
#include "support/t.h"

#include <time.h>

#include "support/job.h"

void t_check_result(const char *file, int line, const char *call, tutti_result want,
                    tutti_result got)
{
    if (got == want)
        return;
    t_fail(file, line, "%s gave %s, want %s; last error: %s", call, tutti_result_name(got),
           tutti_result_name(want), tutti_last_error());
}

void t_check_contains(const char *file, int line, const char *text, const char *part)
{
    if (text == NULL || strstr(text, part) == NULL)
        t_fail(file, line, "\"%s\" does not contain \"%s\"", text ? text : "(null)", part);
}

uint64_t t_random(struct t_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t t_random_below(struct t_rng *rng, uint64_t bound)
{
    return bound == 0 ? 0 : t_random(rng) % bound;
}

uint64_t t_hash(uint64_t a, uint64_t b)
{
    struct t_rng rng = {a * 0xff51afd7ed558ccdu + b};

    return t_random(&rng);
}

uint64_t t_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void t_sleep_us(unsigned us)
{
    const struct timespec pause = {us / 1000000, (long)(us % 1000000) * 1000};

    nanosleep(&pause, NULL);
}

unsigned t_scale(void)
{
    const char *text = getenv("T_TIMEOUT_SCALE");
    const long scale = text != NULL ? strtol(text, NULL, 10) : 0;

    if (scale > 1 && scale < 1000)
        return (unsigned)scale;
#if defined(__SANITIZE_THREAD__)
    return 10;
#elif defined(__SANITIZE_ADDRESS__)
    return 4;
#else
    return 1;
#endif
}

static int full_run;

void t_arguments(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "full") == 0)
        full_run = 1;
    if (argc > 1 && strncmp(argv[1], "proxies=", 8) == 0)
        setenv("TUTTI_NET_PROXIES", argv[1] + 8, 1);
    unsetenv("TUTTI_ALGO"); /* the caller's settings are not the test's */
    unsetenv("TUTTI_CPU_WAIT");
    unsetenv("TUTTI_CPU_ISA");
}

unsigned t_times(unsigned quick, unsigned full)
{
    return full_run ? full : quick;
}
