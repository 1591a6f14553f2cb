/* `tutti run`: run.c the launcher, run_start.c, run_output.c the ranks' lines, run_story.c what they last did. */
#ifndef TUTTI_TOOLS_RUN_H
#define TUTTI_TOOLS_RUN_H

#include "cli.h"
#include "place.h"
#include "ranks.h"

#include <poll.h>
#include <signal.h>

struct lines;

struct run_options {
    int n;
    const char *bind;
    double timeout;
    double grace;
    int no_prefix;
    struct cli_list env;
};

struct run {
    const struct run_options *options;
    struct ranks ranks;
    struct lines *lines;
    struct place place;
    enum place_bind bind;
    char **program;
    char secret[40];
    char address[40];
    int signals; /* signalfd */
    sigset_t old_mask;
    int status; /* exit status, -1 while nothing has failed */
    int n_interrupts;
    uint64_t kill_ns;  /* when patience ends; 0: nobody was asked to end yet */
    uint64_t limit_ns; /* --timeout; 0: none */
};

/* ---- start ---- */

int run_make_secret(struct run *run);
int run_start(struct run *run); /* 0, or an exit status after a message */

/* ---- lines: what the ranks print, whole lines at a time, each behind its rank ---- */

struct lines *lines_new(int n_ranks, int with_prefix);
/* The write ends for a rank that is about to be started: [0] standard output, [1] standard error. */
int lines_open(struct lines *lines, int rank, int ends_out[2]);
/* Fill polls[2 * n_ranks] with what to wait for; returns how many are still open. */
int lines_poll_set(const struct lines *lines, struct pollfd *polls);
/* Read from those that are ready, and print the lines that are complete. */
void lines_read(struct lines *lines, const struct pollfd *polls);
/* Print what is left, ended by a newline where there was none. */
void lines_finish(struct lines *lines);

/* ---- story ---- */

/* Which collectives the ranks last began, as far as the living ones know: lines on standard error.
 * `dead` is the rank to begin with, or -1. */
void story_tell(struct ranks *ranks, int dead);

#endif
