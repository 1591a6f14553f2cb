/*
 * `tutti run --hosts`: on every host this program is started once more by a remote shell, as a part of the
 * job. The part learns secret, address and variables by its standard input, and when that ends it ends
 * its ranks: so nothing outlives the launcher, or the connection to it.
 */
#include "cli.h"
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

extern char **environ;

enum { MOST_COMMAND = 65536, MOST_WORDS = 32 };

/* ---- the list of hosts ---- */

/* "name:4", "[v6]:4", "user@name": where the number begins. */
static char *find_count(char *word)
{
    char *bracket = strchr(word, ']');
    char *colon = strchr(bracket ? bracket : word, ':');

    return colon;
}

static int parse_host(struct run *run, char *word)
{
    struct run_host *host = &run->hosts[run->n_hosts];
    char *colon = find_count(word);

    *host = (struct run_host){
        .name = word, .n = run->options->n != CLI_NOT_GIVEN ? run->options->n : 1, .control = -1};
    if (colon) {
        *colon = 0;
        if (cli_parse_int(colon + 1, &host->n) != 0 || host->n < 1 || host->n > RUN_MOST_RANKS)
            return cli_error("--hosts: %s:%s is not NAME:RANKS, with 1 to %d ranks", word,
                             colon + 1, RUN_MOST_RANKS);
    }
    if (!word[0] || word[0] == '-')
        return cli_error("--hosts: \"%s\" is no name of a host", word);
    run->n_hosts++;
    run->n_total += host->n;
    return 0;
}

/* Where rank 0 listens, as the others reach it: its host's name as it was given. */
static int choose_address(struct run *run)
{
    const char *name = run->hosts[0].name, *at = strchr(name, '@');
    int port = run->options->port;
    unsigned short dice = 0;

    if (port == 0) {
        if (getrandom(&dice, sizeof(dice), 0) != (ssize_t)sizeof(dice))
            return cli_error("no random numbers: %s", strerror(errno));
        port = 20000 + dice % 12000; /* below what systems hand out by themselves */
    }
    snprintf(run->address, sizeof(run->address), "%s:%d", at ? at + 1 : name, port);
    return 0;
}

int run_hosts_parse(struct run *run)
{
    const int port = run->options->port;
    char *list, *next;
    size_t n = 1;

    if (port < 0 || port > 65535)
        return cli_error("--port %d: 1 to 65535", port);
    list = next = strdup(run->options->hosts);
    if (!list)
        return cli_error("no memory");
    for (const char *c = list; *c; c++)
        n += *c == ',';
    run->host_list = list;
    run->hosts = cli_alloc(n * sizeof(*run->hosts));
    while (next) {
        char *word = next;

        next = strchr(word, ',');
        if (next)
            *next++ = 0;
        if (parse_host(run, word) != 0)
            return 2;
    }
    return 0;
}

/* ---- the launcher's side ---- */

/* For the shell on the other side. */
static void add_quoted(char *command, const char *word)
{
    cli_append(command, MOST_COMMAND, " '");
    for (const char *c = word; *c; c++)
        if (*c == '\'')
            cli_append(command, MOST_COMMAND, "'\\''");
        else
            cli_append(command, MOST_COMMAND, "%c", *c);
    cli_append(command, MOST_COMMAND, "'");
}

static int make_command(const struct run *run, int first, int n, char *command)
{
    char self[4096], folder[4096], text[64];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (length < 0 || !getcwd(folder, sizeof(folder)))
        return cli_error("where is this program? %s", strerror(errno));
    self[length] = 0;
    snprintf(command, MOST_COMMAND, "cd");
    add_quoted(command, folder);
    cli_append(command, MOST_COMMAND, " && exec");
    add_quoted(command, self);
    snprintf(text, sizeof(text), " run -n %d --part %d/%d --grace %g", n, first, run->n_total,
             run->options->grace);
    cli_append(command, MOST_COMMAND, "%s%s", text, run->options->no_prefix ? " --no-prefix" : "");
    if (run->options->bind) {
        cli_append(command, MOST_COMMAND, " --bind");
        add_quoted(command, run->options->bind);
    }
    cli_append(command, MOST_COMMAND, " --");
    for (char **word = run->program; *word; word++)
        add_quoted(command, *word);
    return strlen(command) + 1 < MOST_COMMAND ? 0
                                              : cli_error("the command is too long for a shell");
}

static void exec_rsh(const char *rsh, const char *host, char *command)
{
    static char words[4096];
    char *argv[MOST_WORDS + 3];
    int n = 0;

    snprintf(words, sizeof(words), "%s", rsh);
    for (char *word = words; *word && n < MOST_WORDS;) {
        word += strspn(word, " ");
        if (!*word)
            break;
        argv[n++] = word;
        word += strcspn(word, " ");
        if (*word)
            *word++ = 0;
    }
    argv[n++] = (char *)(uintptr_t)host;
    argv[n++] = command;
    argv[n] = NULL;
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "tutti run: cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static const char *rsh_of(const struct run *run)
{
    const char *set = getenv("TUTTI_RSH");

    return run->options->rsh ? run->options->rsh : set && *set ? set : "ssh";
}

static int start_part(struct run *run, int h, int first, char *command)
{
    const pid_t parent = getpid();
    struct run_host *host = &run->hosts[h];
    int ends[2], input[2];
    pid_t pid;

    if (make_command(run, first, host->n, command) != 0 || lines_open(run->lines, h, ends) != 0)
        return 2;
    if (pipe2(input, O_CLOEXEC) != 0)
        return cli_error("pipe: %s; raise `ulimit -n`", strerror(errno));
    pid = fork();
    if (pid == 0) {
        ranks_die_with(parent);
        setpgid(0, 0); /* Ctrl-C is for the launcher, which ends the parts in order */
        signal(SIGPIPE, SIG_DFL);
        signal(SIGXFSZ, SIG_DFL);
        dup2(input[0], STDIN_FILENO);
        dup2(ends[0], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        sigprocmask(SIG_SETMASK, &run->old_mask, NULL);
        exec_rsh(rsh_of(run), host->name, command);
    }
    close(input[0]);
    close(ends[0]);
    close(ends[1]);
    if (pid < 0)
        return cli_error("fork: %s", strerror(errno));
    run->ranks.pids[h] = pid;
    host->control = input[1];
    return 0;
}

/* Secret, address, variables, and an empty line. */
static void tell_part(const struct run *run, const struct run_host *host)
{
    const char *at = strchr(host->name, '@');

    dprintf(host->control, "%s\n%s\nTUTTI_HOST=%s\n", run->secret, run->address,
            at ? at + 1 : host->name);
    for (char **word = environ; *word; word++)
        if (strncmp(*word, "TUTTI_", 6) == 0 && strncmp(*word, "TUTTI_SECRET=", 13) != 0 &&
            strncmp(*word, "TUTTI_RSH=", 10) != 0 && !strchr(*word, '\n'))
            dprintf(host->control, "%s\n", *word);
    for (size_t i = 0; i < run->options->env.n; i++)
        dprintf(host->control, "%s\n", run->options->env.items[i]);
    dprintf(host->control, "\n");
}

int run_hosts_start(struct run *run)
{
    char *command = cli_alloc(MOST_COMMAND);
    int first = 0, status = choose_address(run);

    signal(SIGPIPE, SIG_IGN); /* a part that is gone is seen by its end */
    for (int h = 0; h < run->n_hosts && status == 0; h++) {
        status = start_part(run, h, first, command);
        if (status == 0)
            tell_part(run, &run->hosts[h]);
        first += run->hosts[h].n;
    }
    free(command);
    return status;
}

void run_hosts_close(struct run *run)
{
    for (int h = 0; h < run->n_hosts; h++) {
        if (run->hosts[h].control >= 0)
            close(run->hosts[h].control);
        run->hosts[h].control = -1;
    }
}

/* ---- the part's side ---- */

/* A line of standard input, byte by byte: what follows the empty line is not ours to read. */
static int read_line(char *line, size_t size)
{
    size_t n = 0;

    while (n + 1 < size) {
        char c;
        const ssize_t got = read(STDIN_FILENO, &c, 1);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        if (c == '\n')
            break;
        line[n++] = c;
    }
    line[n] = 0;
    return n + 1 < size ? 0 : -1;
}

int run_part_prepare(struct run *run)
{
    static char line[65536];
    char rest;

    if (sscanf(run->options->part, "%d/%d%c", &run->first, &run->n_total, &rest) != 2 ||
        run->first < 0 || run->first + run->options->n > run->n_total)
        return cli_error("--part %s: FIRST/ALL, set by tutti run --hosts", run->options->part);
    if (read_line(run->secret, sizeof(run->secret)) != 0 ||
        read_line(run->address, sizeof(run->address)) != 0)
        return cli_error("--part is for tutti run --hosts, which says the rest by standard input");
    while (read_line(line, sizeof(line)) == 0) {
        char *equals = strchr(line, '=');

        if (!line[0]) {
            run->control = STDIN_FILENO;
            return 0;
        }
        if (!equals)
            break;
        *equals = 0;
        setenv(line, equals + 1, 1);
    }
    return cli_error("the launcher is gone");
}

int run_part_has_ended(struct run *run)
{
    struct pollfd look = {.fd = run->control, .events = POLLIN};
    char byte;

    return poll(&look, 1, 0) > 0 && read(run->control, &byte, 1) == 0;
}
