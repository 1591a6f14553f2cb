/* `tutti env`: every TUTTI_* variable, what it is now and why. */
#include "commands.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tutti/tutti.h>

static int only_set;
static int as_lines;
static int all; /* is the default; only there to be typed */

static const struct cli_option options[] = {
    {0, "set", CLI_FLAG, &only_set, NULL, "only those that are set"},
    {0, "lines", CLI_FLAG, &as_lines, NULL, "NAME=value, for a script (no secret)"},
    {0, "all", CLI_FLAG, &all, NULL, "all of them, as is the default"},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_env = {
    "env", "[--set]", "all TUTTI_* variables: value, where it comes from, meaning",
    "Variables are read when a communicator is created. What a program says in tutti_comm_config "
    "wins\n"
    "over them.\n"
    "\n"
    "  tutti env\n"
    "  TUTTI_TIMEOUT=5s tutti env --set\n",
    options};

/* Below the table, for those in it. */
static void print_problems(void)
{
    tutti_env_entry entry = {.size = sizeof(entry)};

    for (size_t i = 0; tutti_env_describe(i, &entry) == TUTTI_OK; i++)
        if (entry.problem)
            printf("-> %s\n", entry.problem);
}

int command_env_run(int argc, char **argv)
{
    static const char *const headings[] = {"variable", "value", "from", "type", "meaning"};
    char **words = cli_alloc((size_t)(argc + 1) * sizeof(*words));
    struct table *table = table_new(5, headings, "lllll");
    tutti_env_entry entry = {.size = sizeof(entry)};
    int n = 0;
    int status = cli_parse(&command_env, argc, argv, 0, words);

    if (status == CLI_GO && words[0])
        status = cli_error("%s: nothing is expected here; `tutti help env`", words[0]);
    free(words);
    for (size_t i = 0; status == CLI_GO && tutti_env_describe(i, &entry) == TUTTI_OK; i++) {
        const int is_set = strcmp(entry.source, "default") != 0;
        const int is_secret = strcmp(entry.name, "TUTTI_SECRET") == 0 && entry.value[0];

        if (only_set && !is_set)
            continue;
        n++;
        if (as_lines) {
            if (strcmp(entry.type, "unknown") != 0)
                printf("%s=%s\n", entry.name, is_secret ? "" : entry.value);
            continue;
        }
        table_cell(table, "%s", entry.name);
        table_cell(table, "%s", is_secret ? "(hidden)" : entry.value[0] ? entry.value : "-");
        table_cell(table, "%s", entry.problem ? "WRONG" : entry.source);
        table_cell(table, "%s", entry.type);
        table_cell(table, "%s", entry.help);
    }
    if (status == CLI_GO && !as_lines && n) {
        table_print(table, stdout);
        print_problems();
    }
    if (status == CLI_GO && !as_lines && !n)
        printf("no TUTTI_* variable is set\n");
    table_free(table);
    return status == CLI_GO ? 0 : status;
}
