#include "cli.h"
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONGEST_LINE 65536

struct stream {
    int fd; /* -1: closed */
    size_t used;
    char *text; /* [LONGEST_LINE]: the beginning of a line */
};

struct lines {
    int n_ranks;
    int with_prefix;
    int first; /* the number of the first */
    int width;
    int colour[2];
    struct stream *streams; /* [n_ranks][2] */
};

struct lines *lines_new(int n_ranks, int with_prefix)
{
    struct lines *lines = cli_alloc(sizeof(*lines));
    char digits[16];

    lines->n_ranks = n_ranks;
    lines->with_prefix = with_prefix;
    lines->width = snprintf(digits, sizeof(digits), "%d", n_ranks - 1);
    lines->colour[0] = cli_is_terminal(STDOUT_FILENO);
    lines->colour[1] = cli_is_terminal(STDERR_FILENO);
    lines->streams = cli_alloc(2 * (size_t)n_ranks * sizeof(*lines->streams));
    for (int i = 0; i < 2 * n_ranks; i++)
        lines->streams[i].fd = -1;
    return lines;
}

void lines_number(struct lines *lines, int first, int n_total)
{
    char digits[16];

    lines->first = first;
    lines->width = snprintf(digits, sizeof(digits), "%d", n_total - 1);
}

int lines_open(struct lines *lines, int rank, int ends_out[2])
{
    for (int i = 0; i < 2; i++) {
        struct stream *stream = &lines->streams[2 * rank + i];
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) != 0)
            return cli_error("pipe: %s; raise `ulimit -n`", strerror(errno));
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        stream->fd = ends[0];
        stream->text = cli_alloc(LONGEST_LINE);
        ends_out[i] = ends[1];
    }
    return 0;
}

int lines_poll_set(const struct lines *lines, struct pollfd *polls)
{
    int n_open = 0;

    for (int i = 0; i < 2 * lines->n_ranks; i++) {
        polls[i].fd = lines->streams[i].fd; /* poll() skips those below 0 */
        polls[i].events = POLLIN;
        polls[i].revents = 0;
        n_open += polls[i].fd >= 0;
    }
    return n_open;
}

static void put_line(const struct lines *lines, int index, const char *text, size_t length)
{
    FILE *out = index & 1 ? stderr : stdout;
    const int rank = lines->first + index / 2;

    if (lines->with_prefix && lines->colour[index & 1])
        fprintf(out, "\033[3%dm[%*d]\033[0m ", 1 + rank % 6, lines->width, rank);
    else if (lines->with_prefix)
        fprintf(out, "[%*d] ", lines->width, rank);
    fwrite(text, 1, length, out);
    fputc('\n', out);
}

static void split(const struct lines *lines, int index)
{
    struct stream *stream = &lines->streams[index];
    char *begin = stream->text;
    char *end = stream->text + stream->used;
    char *newline;

    while ((newline = memchr(begin, '\n', (size_t)(end - begin))) != NULL) {
        put_line(lines, index, begin, (size_t)(newline - begin));
        begin = newline + 1;
    }
    stream->used = (size_t)(end - begin);
    memmove(stream->text, begin, stream->used);
    if (stream->used == LONGEST_LINE) {
        put_line(lines, index, stream->text, stream->used);
        stream->used = 0;
    }
}

static void read_one(const struct lines *lines, int index)
{
    struct stream *stream = &lines->streams[index];

    for (int turn = 0; turn < 16; turn++) { /* then the others have theirs */
        const ssize_t n =
            read(stream->fd, stream->text + stream->used, LONGEST_LINE - stream->used);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            close(stream->fd);
            stream->fd = -1;
            if (stream->used) /* the last line had no end */
                put_line(lines, index, stream->text, stream->used);
            stream->used = 0;
            return;
        }
        stream->used += (size_t)n;
        split(lines, index);
    }
}

void lines_read(struct lines *lines, const struct pollfd *polls)
{
    for (int i = 0; i < 2 * lines->n_ranks; i++)
        if (lines->streams[i].fd >= 0 && polls[i].revents)
            read_one(lines, i);
    cli_flush();
    fflush(stderr);
}

void lines_finish(struct lines *lines)
{
    for (int i = 0; i < 2 * lines->n_ranks; i++) {
        struct stream *stream = &lines->streams[i];

        if (stream->fd >= 0)
            read_one(lines, i);
        if (stream->used)
            put_line(lines, i, stream->text, stream->used);
        if (stream->fd >= 0)
            close(stream->fd);
        free(stream->text);
    }
    cli_flush();
    fflush(stderr);
    free(lines->streams);
    free(lines);
}
