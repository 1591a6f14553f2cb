/*
 * Memory with inaccessible pages before and after, canaries where it does not reach them, and
 * pieces of any alignment cut from it. A byte too many is a crash or a failed check.
 */
#ifndef TUTTI_TESTS_BUFFERS_H
#define TUTTI_TESTS_BUFFERS_H

#include "support/t.h"

struct t_memory {
    unsigned char *base; /* first accessible byte, page-aligned */
    size_t bytes;        /* whole pages */
};

/* Accessible pages for at least `bytes`, zeroed, between two that are not. */
struct t_memory t_memory_new(size_t bytes);
void t_memory_free(struct t_memory *memory);

/* Where a buffer lies in its memory. */
enum t_place {
    T_AT_START, /* first byte follows the guard page */
    T_AT_END,   /* last byte precedes the guard page: element-aligned only */
    T_ALIGNED,  /* 64-byte aligned, in the middle */
    T_ODD,      /* element-aligned, as unaligned as that allows, in the middle */
    T_N_PLACES
};

/* The address for `bytes` of elements of `element` bytes. The memory must hold bytes + 4096. */
unsigned char *t_place(const struct t_memory *memory, enum t_place place, size_t bytes,
                       size_t element);

enum { T_POISON = 0xA5, T_CANARY_BYTES = 256 };

/* Set buf[0..bytes) and up to T_CANARY_BYTES on both sides, within the memory, to T_POISON. */
void t_poison(const struct t_memory *memory, unsigned char *buf, size_t bytes);

/* Fails if a canary beside buf[0..bytes) has changed. */
void t_check_canaries(const struct t_memory *memory, const unsigned char *buf, size_t bytes,
                      const char *what);

/* Index of the first byte of a[0..bytes) that is not `value`, or bytes. */
size_t t_first_not(const unsigned char *a, size_t bytes, unsigned char value);

#endif
