#ifndef TUTTI_TOOLS_INFO_H
#define TUTTI_TOOLS_INFO_H

struct info_options {
    int live;
    int watch;
    int json;
    double interval;
    int pid; /* 0: all that may be read */
};

int info_live(const struct info_options *options);
void info_json_text(const char *text); /* quoted, on standard output */

/* 1 if two processes map the same anonymous memory (memfd), or if that cannot be known. */
int info_share_memory(int pid_a, int pid_b);

#endif
