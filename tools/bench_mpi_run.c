/* The same ranks under mpirun, so that tutti and MPI are measured in the same processes. */
#include "bench.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODULE "tutti_bench_%s.so"

/* The module is next to the program, in the build tree as where it is installed. */
static int find_module(const char *against, char *path, size_t size)
{
    char directory[512];
    const ssize_t n = readlink("/proc/self/exe", directory, sizeof(directory) - 1);
    char *slash;

    if (n < 0)
        return -1;
    directory[n] = '\0';
    slash = strrchr(directory, '/');
    if (!slash)
        return -1;
    *slash = '\0';
    snprintf(path, size, "%s/" MODULE, directory, against);
    return access(path, R_OK);
}

const struct bench_peer *bench_peer_load(const char *against)
{
    static const struct bench_peer *peer;
    char path[600];
    void *module;
    bench_peer_fn entry;
    void *symbol;

    if (peer)
        return peer;
    if (find_module(against, path, sizeof(path)) != 0) {
        cli_error("there is no " MODULE " next to the program: it is built where %s is found",
                  against, against);
        return NULL;
    }
    module = dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* Open MPI's plug-ins look for its symbols */
    symbol = module ? dlsym(module, BENCH_PEER_SYMBOL) : NULL;
    if (!symbol) {
        cli_error("%s", dlerror());
        return NULL;
    }
    memcpy(&entry, &symbol, sizeof(entry));
    peer = entry();
    if (peer->size != sizeof(*peer)) {
        cli_error("%s was built for another version of tutti: build it again", path);
        peer = NULL;
    }
    return peer;
}

/* The first bytes that a program prints; empty if it does not run. */
static void first_output(char *const argv[], char *text, size_t size)
{
    int ends[2];
    pid_t pid;
    ssize_t n;
    size_t used = 0;

    text[0] = '\0';
    if (pipe(ends) != 0)
        return;
    pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    while (used + 1 < size && (n = read(ends[0], text + used, size - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    close(ends[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

struct words {
    char *items[96];
    int n;
};

static void put(struct words *words, const char *word)
{
    if (words->n < 94)
        words->items[words->n++] = (char *)(uintptr_t)word;
}

/* mpirun and its flags, which differ between the families. */
static int launcher_words(struct words *words, int crowded)
{
    static char *version_words[] = {"mpirun", "--version", NULL};
    char version[2048];

    first_output(version_words, version, sizeof(version));
    put(words, "mpirun");
    if (strstr(version, "Open MPI") || strstr(version, "OpenRTE") || strstr(version, "PRRTE")) {
        if (geteuid() == 0)
            put(words, "--allow-run-as-root");
        put(words, "--bind-to");
        put(words, crowded ? "none" : "core");
        if (crowded)
            put(words, "--oversubscribe");
        return 0;
    }
    if (strstr(version, "HYDRA") || strstr(version, "Intel(R) MPI")) {
        put(words, "-bind-to");
        put(words, crowded ? "none" : "core");
        return 0;
    }
    if (version[0] == '\0')
        return cli_error("--against mpi: there is no mpirun; install one "
                         "(apt-get install openmpi-bin libopenmpi-dev) and build again");
    return cli_error("--against mpi: mpirun is neither Open MPI nor MPICH: %.60s", version);
}

/* What ranks under mpirun find in their environment: a rendezvous of their own, no other launcher. */
static void set_environment(void)
{
    static const char *const others[] = {"TUTTI_RANK", "TUTTI_N_RANKS", "RANK",
                                         "WORLD_SIZE", "LOCAL_RANK",    "LOCAL_WORLD_SIZE"};
    unsigned char bytes[24] = {0};
    char secret[64] = "";
    char address[64] = "unix:tutti-bench-";

    if (getrandom(bytes, sizeof(bytes), 0) < 0)
        _exit(126);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        unsetenv(others[i]);
    for (int i = 0; i < 16; i++)
        cli_append(secret, sizeof(secret), "%02x", bytes[i]);
    for (int i = 16; i < 24; i++)
        cli_append(address, sizeof(address), "%02x", bytes[i]);
    setenv("TUTTI_SECRET", secret, 1);
    setenv("TUTTI_BOOT_ADDR", address, 1);
}

int bench_mpi_launch(const struct bench_options *options, const struct place *place,
                     const struct bench_board *board, int argc, char **argv, pid_t *pid_out)
{
    struct words words = {{NULL}, 0};
    static char program[512];
    static char ranks[16];
    static char joined[64];
    const int crowded = place_is_crowded(place, options->n_ranks, options->n_threads);
    const pid_t parent = getpid();
    ssize_t n;

    if (find_module(options->against, program, sizeof(program)) != 0)
        return cli_error("--against mpi: " MODULE " is not there; it is built where mpicc is found "
                         "(apt-get install libopenmpi-dev), so build again",
                         options->against);
    if (launcher_words(&words, crowded || options->n_threads > 1 || options->no_pin) != 0)
        return 2;
    n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n < 0 ? 0 : n] = '\0';
    snprintf(ranks, sizeof(ranks), "%d", options->n_ranks);
    snprintf(joined, sizeof(joined), "/proc/%d/fd/%d", (int)parent, board->fd);
    put(&words, "-n");
    put(&words, ranks);
    put(&words, program);
    put(&words, "bench");
    put(&words, "--joined");
    put(&words, joined);
    put(&words, "-n");
    put(&words, ranks);
    for (int i = 1; i < argc; i++)
        put(&words, argv[i]);
    words.items[words.n] = NULL;

    fflush(NULL);
    *pid_out = fork();
    if (*pid_out < 0)
        return cli_error("fork: %s", strerror(errno));
    if (*pid_out > 0)
        return 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* mpirun then ends its ranks */
    if (getppid() != parent)
        _exit(125);
    set_environment();
    execvp(words.items[0], words.items);
    cli_error("%s: %s", words.items[0], strerror(errno));
    _exit(127);
}
