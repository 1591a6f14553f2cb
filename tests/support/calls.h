/* The calls behind cases.c: shape, input, expected result and call of each collective. */
#ifndef TUTTI_TESTS_CALLS_H
#define TUTTI_TESTS_CALLS_H

#include "support/cases.h"

/* One side of a call on this rank. */
struct t_side {
    unsigned char *buf; /* NULL where the call does not use it */
    size_t elements, bytes;
    const struct t_memory *memory;
};

struct t_call {
    const struct t_case *c;
    size_t send_elements, recv_elements; /* how much room, gaps included */
    size_t in_place_offset;              /* of the smaller side in the larger one, in elements */
    int in_place;                        /* this call on this rank */
    int null_send, null_recv;            /* pass NULL: not used here */
    struct t_side send, recv;
    tutti_stream stream;
    size_t *send_counts, *send_displs, *recv_counts, *recv_displs; /* of v-calls */

    /* Of those with counts in device memory, whose buffers have room for all that the counts may be:
     * they lie where they lie in every round. */
    int counted, hears;          /* hears: asks for the counts that come */
    size_t max_count, unit;      /* unit: elements */
    size_t send_step, recv_step; /* strides; 0: packed */
};

enum { T_NO_WORD = 0x5555 }; /* in `received` before the call */

void t_call_shape(struct t_stage *s, struct t_call *call);
void t_call_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf);
void t_call_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf);
tutti_result t_call_make(struct t_stage *s, struct t_call *call);

/* The same four of the calls that are `counted`: counted.c. */
void t_counted_shape(struct t_stage *s, struct t_call *call);
void t_counted_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf);
void t_counted_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf);
tutti_result t_counted_make(struct t_stage *s, const struct t_call *call);
/* What rank r sends this one, as a count in device memory. */
uint64_t t_call_received(const struct t_stage *s, const struct t_call *call, int r);

#endif
