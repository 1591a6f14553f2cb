/* Words and numbers as people type them. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *command_name;
static int
    output_errno; /* of the first flush that failed: the next one has nothing left to fail with */

void cli_set_command(const char *name)
{
    command_name = name;
}

const char *cli_reason(void)
{
    return errno == EFBIG ? "File too large: raise `ulimit -f`, which counts for shared memory too"
                          : strerror(errno);
}

void cli_flush(void)
{
    if (fflush(stdout) != 0 && output_errno == 0)
        output_errno = errno;
}

int cli_end_output(int status)
{
    cli_flush();
    if (!ferror(stdout) && output_errno == 0)
        return status;
    if (output_errno == EPIPE) /* nobody reads on, as in `| head` */
        return status;
    cli_error("standard output: %s", strerror(output_errno ? output_errno : EIO));
    return status ? status : 1;
}

int cli_error(const char *format, ...)
{
    va_list args;

    cli_flush();
    fprintf(stderr, "tutti%s%s: ", command_name ? " " : "", command_name ? command_name : "");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 2;
}

static size_t distance(const char *a, const char *b)
{
    size_t row[48];
    const size_t n = strlen(b);

    if (n >= sizeof(row) / sizeof(row[0]))
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            const size_t above = row[j];
            size_t best = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);

            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[n];
}

const char *cli_nearest(const char *word, const char *const names[], size_t n)
{
    const char *best = NULL;
    size_t least = SIZE_MAX;

    for (size_t i = 0; i < n; i++) {
        const size_t d = distance(word, names[i]);

        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return least <= (strlen(word) < 5 ? 1 : strlen(word) < 9 ? 2 : strlen(word) / 3) ? best : NULL;
}

int cli_parse_bytes(const char *text, size_t *bytes_out)
{
    char *end;
    double number;
    double scale = 1;

    errno = 0;
    number = strtod(text, &end);
    if (end == text || errno || number < 0 || !isdigit((unsigned char)text[0]))
        return -1;
    switch (toupper((unsigned char)*end)) {
    case 'K':
        scale = 1024;
        end++;
        break;
    case 'M':
        scale = 1024.0 * 1024;
        end++;
        break;
    case 'G':
        scale = 1024.0 * 1024 * 1024;
        end++;
        break;
    default: break;
    }
    if (scale > 1 && *end == 'i')
        end++;
    if (*end == 'B' || *end == 'b')
        end++;
    if (*end || number * scale > 1e15)
        return -1;
    *bytes_out = (size_t)(number * scale);
    return 0;
}

int cli_parse_seconds(const char *text, double *seconds_out)
{
    char *end;
    const double number = strtod(text, &end);

    if (end == text || number < 0 || number > 1e9)
        return -1;
    if (strcmp(end, "") == 0 || strcmp(end, "s") == 0)
        *seconds_out = number;
    else if (strcmp(end, "ms") == 0)
        *seconds_out = number / 1000;
    else if (strcmp(end, "m") == 0)
        *seconds_out = number * 60;
    else
        return -1;
    return 0;
}

int cli_parse_int(const char *text, int *number_out)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (end == text || *end || errno || number < INT_MIN || number > INT_MAX)
        return -1;
    *number_out = (int)number;
    return 0;
}

int cli_word(const char *list, size_t k, char *word, size_t bytes)
{
    size_t length;

    for (; k > 0; k--) {
        list = strchr(list, ',');
        if (!list)
            return 0;
        list++;
    }
    length = strcspn(list, ",");
    if (length + 1 > bytes)
        return 0;
    memcpy(word, list, length);
    word[length] = '\0';
    return 1;
}

int cli_is_terminal(int fd)
{
    const char *term = getenv("TERM");
    const char *no_colour = getenv("NO_COLOR");

    return isatty(fd) && !(no_colour && *no_colour) && !(term && strcmp(term, "dumb") == 0);
}

const char *cli_bytes_text(size_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;

    while (bytes >= 1024 && bytes % 1024 == 0 && u < 4) {
        bytes /= 1024;
        u++;
    }
    snprintf(text, size, "%zu %s", bytes, units[u]);
    return text;
}

void *cli_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p) {
        cli_error("no memory for %zu bytes; try fewer ranks or a smaller -e", bytes);
        exit(2);
    }
    return p;
}

void cli_append(char *text, size_t size, const char *format, ...)
{
    const size_t used = strnlen(text, size);
    va_list args;

    if (used + 1 >= size)
        return;
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}
