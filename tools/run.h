/* `tutti run`: run.c the launcher, run_start.c, run_output.c the ranks' lines, run_story.c what they last did,
 * run_hosts.c several hosts. */
#ifndef TUTTI_TOOLS_RUN_H
#define TUTTI_TOOLS_RUN_H

#include "cli.h"
#include "place.h"
#include "ranks.h"

#include <poll.h>
#include <signal.h>

#define RUN_MOST_RANKS 4096 /* on a host */

struct lines;

struct run_options {
    int n; /* or CLI_NOT_GIVEN */
    const char *bind;
    double timeout;
    double grace;
    int no_prefix;
    struct cli_list env;
    const char *hosts; /* "alpha:4,beta:4"; NULL: this one */
    const char *rsh;
    int port;         /* 0: a random one */
    const char *part; /* "4/8": this is the part of a job whose first rank is 4 of 8 */
};

struct run_host {
    const char *name; /* for rsh; may begin with user@ */
    int n;            /* ranks */
    int control;      /* its standard input, -1: closed; its end ends the ranks there */
};

struct run {
    const struct run_options *options;
    struct ranks ranks;
    struct lines *lines;
    struct place place;
    enum place_bind bind;
    char **program;
    char secret[40];
    char address[288];
    int first, n_total; /* of this part's ranks; those of the whole job */
    int control;        /* descriptor whose end ends all, -1: none */
    char *host_list;    /* what names of hosts point into */
    struct run_host *hosts;
    int n_hosts; /* 0: this one */
    int signals; /* signalfd */
    sigset_t old_mask;
    int status; /* exit status, -1 while nothing has failed */
    int n_interrupts;
    uint64_t kill_ns;  /* when patience ends; 0: nobody was asked to end yet */
    uint64_t limit_ns; /* --timeout; 0: none */
};

/* ---- several hosts: on each of them this program runs as a part, which is told the rest by its input ---- */

int run_hosts_parse(struct run *run); /* 0, or an exit status after a message */
int run_hosts_start(struct run *run);
void run_hosts_close(struct run *run);   /* all parts end their ranks */
int run_part_prepare(struct run *run);   /* the part's side: read what it is told */
int run_part_has_ended(struct run *run); /* the other side is gone */

/* ---- start ---- */

int run_make_secret(struct run *run);
int run_start(struct run *run); /* 0, or an exit status after a message */

/* ---- lines: what the ranks print, whole lines at a time, each behind its rank ---- */

struct lines *lines_new(int n_ranks, int with_prefix);
void lines_number(struct lines *lines, int first, int n_total); /* what the prefixes count */
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
