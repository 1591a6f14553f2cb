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
};

void t_call_shape(struct t_stage *s, struct t_call *call);
void t_call_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf);
void t_call_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf);
tutti_result t_call_make(struct t_stage *s, struct t_call *call);

#endif
