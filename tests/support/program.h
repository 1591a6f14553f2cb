/* Programs of this build, started by a test: `tutti` itself, or an example. */
#ifndef TUTTI_TESTS_PROGRAM_H
#define TUTTI_TESTS_PROGRAM_H

#include <sys/types.h>

#include "support/t.h"

/* Where `name` ("tutti", "examples/01_hello") lies. 0, or -1 if this build has none. */
int t_program(const char *name, char *path, size_t bytes);

/* Start a program with these words (the first is found in PATH); *out is the end of a pipe that both
 * of its outputs go to. */
pid_t t_start(const char *const words[], int *out);

/* Read what it says to its end, of which `bytes` are kept, and wait. Its exit status, or 1000 + the
 * signal that ended it. */
int t_finish(pid_t pid, int out, char *text, size_t bytes);

/* Run `tutti` with these arguments, as a shell reads them ("hello -n 3"), and return as t_finish().
 * Skips the test if there is no such program. */
int t_tutti(const char *arguments, char *text, size_t bytes);

/* The same; it must end with that status, and say that among other things. */
void t_tutti_says(const char *arguments, int want, const char *part, char *text, size_t bytes);

#endif
