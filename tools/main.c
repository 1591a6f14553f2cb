/* The program `tutti`: picks the subcommand. */
#include "commands.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tutti/tutti.h>
#include <unistd.h>

struct command {
    const struct cli_command *text;
    int (*run)(int argc, char **argv);
};

#define COMMAND_ROW_(name) {&command_##name, command_##name##_run},
static const struct command commands[] = {COMMANDS(COMMAND_ROW_)};
#undef COMMAND_ROW_

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct cli_option no_options[] = {{0, NULL, CLI_FLAG, NULL, NULL, NULL}};

const struct cli_command command_version = {"version", "", "print the version of the library",
                                            "The version of the library that this program holds.\n",
                                            no_options};

int command_version_run(int argc, char **argv)
{
    const uint32_t version = tutti_version();
    char *words[64] = {NULL};
    const int status =
        argc < 63 ? cli_parse(&command_version, argc, argv, 0, words) : cli_error("what?");

    if (status != CLI_GO)
        return status;
    if (words[0])
        return cli_error("%s: nothing is expected here; `tutti help version`", words[0]);
    printf("tutti %u.%u.%u\n", version >> 16, version >> 8 & 255, version & 255);
    return 0;
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].text->name, name) == 0)
            return &commands[i];
    return NULL;
}

static int overview(FILE *out)
{
    fprintf(out, "tutti: collective communication for LLM inference\n\n"
                 "Usage: tutti COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i].text->name, commands[i].text->summary);
    fprintf(out,
            "\n  tutti help COMMAND   options and examples of one of them\n\n"
            "Begin with `tutti hello`, then `tutti bench`; `tutti info` if something is odd.\n");
    return 0;
}

static int unknown(const char *name)
{
    const char *names[N_COMMANDS];
    const char *near;

    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].text->name;
    near = cli_nearest(name, names, N_COMMANDS);
    if (near)
        return cli_error("no command %s; did you mean `tutti %s`?", name, near);
    return cli_error("no command %s; `tutti help` lists them", name);
}

static int is_help(const char *name)
{
    return strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
}

static int help(int argc, char **argv)
{
    const struct command *command;

    if (argc > 3)
        return cli_error("%s: nothing is expected here; `tutti help`", argv[3]);
    if (argc < 3 || is_help(argv[2]))
        return overview(stdout);
    command = find(argv[2]);
    if (!command)
        return unknown(argv[2]);
    cli_help(command->text);
    return 0;
}

/* Else the first files that the program opens were its output, and would be written to. */
static void open_missing_standard_files(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static int run_command(int argc, char **argv)
{
    const struct command *command;
    const char *name = argc > 1 ? argv[1] : NULL;

    if (!name) {
        overview(stderr);
        return 2;
    }
    if (is_help(name))
        return help(argc, argv);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    command = find(name);
    if (!command)
        return unknown(name);
    return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    open_missing_standard_files();
    signal(SIGXFSZ, SIG_IGN); /* a file that `ulimit -f` forbids is an error like any other */
    return cli_end_output(run_command(argc, argv));
}
