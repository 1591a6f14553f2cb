/* Mapping a communicator's segment. */
#ifndef TT_CPU_MAPPING_H
#define TT_CPU_MAPPING_H

#include <stddef.h>

/* Map `bytes` of fd, shared and writable; MAP_FAILED with errno. Undone by tt_mapping_close(). */
void *tt_mapping_open(int fd, size_t bytes);
void tt_mapping_close(void *at, size_t bytes);

#endif
