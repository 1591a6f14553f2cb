/* The command line of `tutti`: options from a table, help that teaches, errors that say what to do. */
#ifndef TUTTI_TOOLS_CLI_H
#define TUTTI_TOOLS_CLI_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum cli_type {
    CLI_FLAG,    /* int, set to 1 */
    CLI_NUMBER,  /* int */
    CLI_BYTES,   /* size_t: 64, 4K, 16M, 1G */
    CLI_SECONDS, /* double: 5, 5s, 250ms, 2m */
    CLI_TEXT,    /* const char * */
    CLI_LIST,    /* struct cli_list: the option may be given several times */
};

struct cli_list {
    const char **items;
    size_t n;
};

struct cli_option {
    char letter;      /* 'n' for -n, or 0 */
    const char *name; /* "ranks" for --ranks; NULL ends the table */
    enum cli_type type;
    void *out;
    const char *value; /* what the help calls the value: "N"; NULL for a flag */
    const char *help;  /* NULL: left out of the help */
};

struct cli_command {
    const char *name;    /* "bench" */
    const char *usage;   /* "[collective ...] [options]" */
    const char *summary; /* one line */
    const char *about;   /* paragraphs, examples included */
    const struct cli_option *options;
};

#define CLI_GO (-1) /* cli_parse: go on; any other value is the program's exit status */

/* Read options from argv[1..]; what is no option is gathered in args_out (NULL-ended, at most argc
 * entries). With stop_at_first, everything from the first such word on is left alone. */
int cli_parse(const struct cli_command *command, int argc, char **argv, int stop_at_first,
              char **args_out);

void cli_help(const struct cli_command *command);

/* Print "tutti bench: ..." on standard error; returns 2, the exit status of a misuse. */
int cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *cli_reason(void); /* errno in words, and what to do about a limit of the shell */
void cli_set_command(const char *name); /* what errors begin with */

#define CLI_NOT_GIVEN INT_MIN /* of a number without a default, before the options are read */

/* Standard output, written out; what fails is kept for cli_end_output(). */
void cli_flush(void);

/* The last thing of a process: the status, or 1 after a message if output was lost. A pipe that nobody
 * reads any more is no loss. */
int cli_end_output(int status);

/* Of names[0 .. n), the one that is spelled most like `word`, or NULL if none is near. */
const char *cli_nearest(const char *word, const char *const names[], size_t n);

/* 0 on success. */
int cli_parse_bytes(const char *text, size_t *bytes_out);
int cli_parse_seconds(const char *text, double *seconds_out);
int cli_parse_int(const char *text, int *number_out);

/* The k'th of a comma-separated list into word[bytes]; 0 past the last or when it is too long. */
int cli_word(const char *list, size_t k, char *word, size_t bytes);

/* 1 if colour and progress lines make sense on this descriptor. */
int cli_is_terminal(int fd);

/* "4 KiB", "16 MiB" (exact multiples only, else plain bytes). */
const char *cli_bytes_text(size_t bytes, char *text, size_t size);

void *cli_alloc(size_t bytes); /* zeroed; ends the program with a message when there is none */

/* Append to a text of size bytes that is already in use up to its zero; never overflows. */
void cli_append(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
