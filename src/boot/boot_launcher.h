/* The pure parts of reading launchers' variables, for their tests and fuzzers. */
#ifndef TT_BOOT_LAUNCHER_H
#define TT_BOOT_LAUNCHER_H

#include <stddef.h>

/* The first host of a Slurm list such as "gpu[03-07,9],login1": "gpu03". -1 if there is none. */
int tt_boot_first_host(const char *list, char *out, size_t bytes);

#endif
