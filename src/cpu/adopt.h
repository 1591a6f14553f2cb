/*
 * Page adoption: copy a range of private pages into a memfd and map that over them. Afterwards the
 * memory is where it was and holds what it held, and the memfd can be handed to other processes. And
 * the way back. Whoever calls sees to it that no two threads are at it at once.
 */
#ifndef TT_CPU_ADOPT_H
#define TT_CPU_ADOPT_H

#include <stddef.h>
#include <stdint.h>
#include <tutti/tutti.h>

/* A new memfd of `bytes`, which cannot change its size; all its pages now, so that lack of memory is an
 * error here and not a signal later. */
tutti_result tt_memfd_new(size_t bytes, int *fd_out);
tutti_result tt_memfd_fill(int fd, size_t bytes);

/* TUTTI_E_ARG unless all of [start, end) is private, writable memory that is not a stack. */
tutti_result tt_adopt_check(uintptr_t start, uintptr_t end);

tutti_result tt_adopt(uintptr_t start, uintptr_t end, int *fd_out);

/* Make what is still mapped of [start, end) private memory again, with what it holds. `origin` is where the
 * file's first byte was mapped. */
tutti_result tt_adopt_undo(int fd, uintptr_t origin, uintptr_t start, uintptr_t end);

#endif
