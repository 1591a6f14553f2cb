/*
 * Pages of this process that other processes can map: allocated so, or adopted later, in place.
 * The address space belongs to the process, so this is the one list that its communicators share.
 */
#ifndef TT_CPU_PAGES_H
#define TT_CPU_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <tutti/tutti.h>

/* A part of a buffer and where it lies in a file. A buffer is one part, unless its first or last
 * page was adopted before, with a neighbour that shares the page. */
struct tt_part {
    int fd; /* as long as the buffer is held */
    uint64_t file_offset;
    size_t bytes; /* whole pages */
};
#define TT_MAX_PARTS 8

struct tt_parts {
    struct tt_part part[TT_MAX_PARTS];
    uint32_t n;
    uint32_t page_offset; /* of the buffer in its first page */
    uintptr_t start;      /* of that page */
    size_t bytes;         /* of all parts */
};

tutti_result tt_pages_alloc(size_t bytes, void **ptr_out);
tutti_result tt_pages_free(void *ptr);

/* Make the pages under ptr[0 .. bytes) shareable where they are not yet, and hold them. */
tutti_result tt_pages_share(void *ptr, size_t bytes, struct tt_parts *parts);
/* Of these pages those that nobody else holds are private memory again; what was allocated here stays. */
void tt_pages_release(struct tt_parts *parts);

#endif
