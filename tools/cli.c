#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELP_COLUMN 24

static void print_option(const struct cli_option *option)
{
    char left[64];

    if (!option->help)
        return;
    if (option->letter)
        snprintf(left, sizeof(left), "-%c, --%s", option->letter, option->name);
    else
        snprintf(left, sizeof(left), "    --%s", option->name);
    if (option->value)
        cli_append(left, sizeof(left), " %s", option->value);
    if (strlen(left) < HELP_COLUMN)
        printf("  %-*s ", HELP_COLUMN, left);
    else
        printf("  %s\n  %-*s ", left, HELP_COLUMN, "");
    for (const char *c = option->help; *c; c++) {
        putchar(*c);
        if (*c == '\n')
            printf("  %-*s ", HELP_COLUMN, "");
    }
    putchar('\n');
}

void cli_help(const struct cli_command *command)
{
    printf("tutti %s: %s\n\nUsage: tutti %s %s\n\n%s", command->name, command->summary,
           command->name, command->usage, command->about);
    printf("\nOptions:\n");
    for (const struct cli_option *o = command->options; o && o->name; o++)
        print_option(o);
    printf("  %-*s this text\n", HELP_COLUMN, "-h, --help");
}

static int set_value(const struct cli_option *option, const char *value)
{
    struct cli_list *list;

    switch (option->type) {
    case CLI_FLAG: break; /* has none */
    case CLI_NUMBER: return cli_parse_int(value, option->out);
    case CLI_BYTES: return cli_parse_bytes(value, option->out);
    case CLI_SECONDS: return cli_parse_seconds(value, option->out);
    case CLI_TEXT: *(const char **)option->out = value; return 0;
    case CLI_LIST:
        list = option->out;
        list->items = realloc(list->items, (list->n + 1) * sizeof(*list->items));
        if (!list->items)
            return -1;
        list->items[list->n++] = value;
        return 0;
    }
    return -1;
}

static const char *expected(enum cli_type type)
{
    switch (type) {
    case CLI_NUMBER: return "a whole number such as 8";
    case CLI_BYTES: return "a size such as 4096, 64K, 16M or 1G";
    case CLI_SECONDS: return "a time such as 30, 30s, 250ms or 2m";
    default: return "a value";
    }
}

static const struct cli_option *find_option(const struct cli_command *command, const char *word,
                                            size_t length)
{
    for (const struct cli_option *o = command->options; o && o->name; o++) {
        if (word[0] == '-' && word[1] == '-') {
            if (strlen(o->name) == length - 2 && strncmp(o->name, word + 2, length - 2) == 0)
                return o;
        } else if (o->letter && o->letter == word[1]) {
            return o;
        }
    }
    return NULL;
}

static int unknown_option(const struct cli_command *command, const char *word, size_t length)
{
    const char *names[64];
    const char *near;
    size_t n = 0;
    char bare[64];

    for (const struct cli_option *o = command->options; o && o->name && n < 63; o++)
        if (o->help)
            names[n++] = o->name;
    names[n++] = "help";
    snprintf(bare, sizeof(bare), "%.*s", (int)(length > 2 ? length - 2 : 0), word + 2);
    near = word[1] == '-' ? cli_nearest(bare, names, n) : NULL;
    if (near)
        return cli_error("no option %.*s; did you mean --%s?", (int)length, word, near);
    return cli_error("no option %.*s; `tutti help %s` lists them", (int)length, word,
                     command->name);
}

/* One option at argv[*index]; returns CLI_GO or an exit status. */
static int parse_one(const struct cli_command *command, int argc, char **argv, int *index)
{
    const char *word = argv[*index];
    const char *equals = word[1] == '-' ? strchr(word, '=') : NULL;
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const struct cli_option *option;
    const char *value = equals ? equals + 1 : NULL;

    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
        cli_help(command);
        return 0;
    }
    option = find_option(command, word, length);
    if (!option)
        return unknown_option(command, word, length);
    if (option->type == CLI_FLAG) {
        if (value || (word[1] != '-' && word[2]))
            return cli_error("--%s takes no value", option->name);
        *(int *)option->out = 1;
        return CLI_GO;
    }
    if (!value && word[1] != '-' && word[2]) {
        value = word + 2; /* -n4 */
    } else if (!value) {
        if (*index + 1 >= argc)
            return cli_error("--%s needs %s", option->name, expected(option->type));
        value = argv[++*index];
    }
    if (set_value(option, value) != 0)
        return cli_error("--%s %s: expected %s", option->name, value, expected(option->type));
    return CLI_GO;
}

int cli_parse(const struct cli_command *command, int argc, char **argv, int stop_at_first,
              char **args_out)
{
    int n = 0;
    int i = 1;

    cli_set_command(command->name);
    for (; i < argc; i++) {
        int status;

        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            if (stop_at_first)
                break;
            args_out[n++] = argv[i];
            continue;
        }
        status = parse_one(command, argc, argv, &i);
        if (status != CLI_GO)
            return status;
    }
    for (; i < argc; i++)
        args_out[n++] = argv[i];
    args_out[n] = NULL;
    return CLI_GO;
}
