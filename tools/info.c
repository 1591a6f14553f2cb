/* `tutti info`: what this build can do on this machine, and what to do where it could be better. */
#include "bench.h"
#include "commands.h"
#include "info.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#define GIB 1073741824.0

static struct info_options options;

static const struct cli_option option_table[] = {
    {'l', "live", CLI_FLAG, &options.live, NULL,
     "communicators at work: where their time goes, who is late"},
    {'w', "watch", CLI_FLAG, &options.watch, NULL, "--live again and again, changes only"},
    {0, "interval", CLI_SECONDS, &options.interval, "TIME", "of --watch; default 1 s"},
    {0, "json", CLI_FLAG, &options.json, NULL, "for a program to read"},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_info = {
    "info", "[--live [PID]]", "what works here, what does not and what to do about it",
    "Without options: the machine, the build, and a line for everything tutti depends on, with a "
    "remedy\n"
    "where something is missing. With --live: a table of every communicator of a running process "
    "(all\n"
    "processes that may be read, without a PID), without disturbing it. wait is the time until the "
    "last\n"
    "rank arrived: the rank with the least of it is the one the others wait for.\n"
    "\n"
    "  tutti info\n"
    "  tutti info --live 12345\n"
    "  tutti info --live --watch\n"
    "  tutti info --json\n"
    "\n"
    "Exit status: 0, or 1 if a process was asked for and has no communicator.\n",
    option_table};

static void print_machine(void)
{
    struct place place;
    struct utsname system = {0};
    struct statvfs shm;
    char cpu[128];
    const uint32_t version = tutti_version();

    place_read(&place);
    uname(&system);
    printf("tutti %u.%u.%u, this program built with %s\n\n", version >> 16, version >> 8 & 255,
           version & 255,
#if defined(__clang__)
           "clang " __clang_version__
#else
           "gcc " __VERSION__
#endif
    );
    printf("machine\n");
    printf("  CPU        %s, %s\n", bench_cpu_name(cpu, sizeof(cpu)), system.machine);
    printf("  cores      %d usable (%d hardware threads) in %d NUMA %s, by %s\n", place.n_cores,
           place.n_threads, place.n_nodes, place.n_nodes == 1 ? "node" : "nodes", place.source);
    if (place.quota > 0)
        printf("  quota      %.1f CPUs by the control group: %d %s fit\n", place.quota,
               place_fit(&place), place_fit(&place) == 1 ? "rank" : "ranks");
    printf("  memory     %.1f GiB, %.1f GiB available\n", place_meminfo("MemTotal:", 0) / GIB,
           place_meminfo("MemAvailable:", 0) / GIB);
    if (statvfs("/dev/shm", &shm) == 0)
        printf("  /dev/shm   %.1f GiB; it does not matter: tutti shares anonymous memory, which is "
               "bounded\n             by the memory above (and the control group) alone\n",
               (double)shm.f_blocks * (double)shm.f_frsize / GIB);
    printf("  kernel     %s %s\n", system.sysname, system.release);
    place_free(&place);
}

static void print_capabilities(void)
{
    static const char *const marks[] = {"--", " !", "ok"};
    static const char *const colours[] = {"\033[31m", "\033[33m", "\033[32m"};
    tutti_capability c = {.size = sizeof(c)};
    const int colour = cli_is_terminal(STDOUT_FILENO);
    int n_remedies = 0;
    int width = 0;

    for (size_t i = 0; tutti_capability_describe(i, &c) == TUTTI_OK; i++)
        if ((int)strlen(c.name) > width)
            width = (int)strlen(c.name);
    printf("\nwhat works\n");
    for (size_t i = 0; tutti_capability_describe(i, &c) == TUTTI_OK; i++) {
        const int state = c.good > 0 ? 2 : c.good == 0 ? 1 : 0;

        printf("  %s%s%s %-*s  %s\n", colour ? colours[state] : "", marks[state],
               colour ? "\033[0m" : "", width, c.name, c.value ? c.value : "");
        if (c.remedy && c.good <= 0) {
            printf("     %*s  -> %s\n", width, "", c.remedy);
            n_remedies++;
        }
    }
    if (n_remedies == 0)
        printf("  nothing to improve\n");
}

static void print_environment(void)
{
    tutti_env_entry entry = {.size = sizeof(entry)};
    int n = 0;

    printf("\nvariables that are set (tutti env: all)\n");
    for (size_t i = 0; tutti_env_describe(i, &entry) == TUTTI_OK; i++) {
        if (strcmp(entry.source, "default") == 0)
            continue;
        printf("  %s=%s\n", entry.name,
               strcmp(entry.name, "TUTTI_SECRET") == 0 ? "(hidden)" : entry.value);
        if (entry.problem)
            printf("     -> %s\n", entry.problem);
        n++;
    }
    if (n == 0)
        printf("  none\n");
}

void info_json_text(const char *text)
{
    putchar('"');
    for (; text && *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text >= 32)
            putchar(*text);
    }
    putchar('"');
}

static void print_json(void)
{
    tutti_capability c = {.size = sizeof(c)};
    const uint32_t version = tutti_version();
    struct place place;
    char cpu[128];

    place_read(&place);
    printf("{\"version\": \"%u.%u.%u\", \"cpu\": ", version >> 16, version >> 8 & 255,
           version & 255);
    info_json_text(bench_cpu_name(cpu, sizeof(cpu)));
    printf(", \"cores\": %d, \"hardware_threads\": %d, \"numa_nodes\": %d, \"quota\": %.2f, "
           "\"capabilities\": [",
           place.n_cores, place.n_threads, place.n_nodes, place.quota);
    for (size_t i = 0; tutti_capability_describe(i, &c) == TUTTI_OK; i++) {
        printf("%s\n{\"name\": ", i ? "," : "");
        info_json_text(c.name);
        printf(", \"good\": %d, \"value\": ", c.good);
        info_json_text(c.value);
        printf(", \"remedy\": ");
        if (c.remedy)
            info_json_text(c.remedy);
        else
            printf("null");
        printf("}");
    }
    printf("]}\n");
    place_free(&place);
}

int command_info_run(int argc, char **argv)
{
    char **words = cli_alloc((size_t)(argc + 1) * sizeof(*words));
    int status;

    options.interval = 1;
    status = cli_parse(&command_info, argc, argv, 0, words);
    if (status == CLI_GO && words[0] && (cli_parse_int(words[0], &options.pid) != 0 || words[1]))
        status = cli_error("%s: expected the number of one process", words[0]);
    if (status == CLI_GO && words[0])
        options.live = 1;
    free(words);
    if (status != CLI_GO)
        return status;
    if (options.live || options.watch)
        return info_live(&options);
    if (options.json) {
        print_json();
        return 0;
    }
    print_machine();
    print_capabilities();
    print_environment();
    return 0;
}
