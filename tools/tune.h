/* The table that `tutti tune` writes: tune.c measures, tune_file.c chooses and writes. */
#ifndef TUTTI_TOOLS_TUNE_H
#define TUTTI_TOOLS_TUNE_H

#include "bench.h"

/* An algorithm that only windows have: nothing to choose for other buffers. */
int tune_is_for_windows(const char *algorithm);

int tune_make_folders(const char *path); /* those above the file; 0 on success */

/* Begin the file, or keep it as it is if it was begun with the same settings on this CPU. */
int tune_begin_file(const char *path, const char *settings, int fresh);
int tune_has_rows(const char *path, const char *op, int n_ranks);
/* Choose from the results of a collective, and append its rows. */
int tune_write_rows(const struct bench_report *report, const char *path);
void tune_print_file(const char *path); /* as a table for people */

#endif
