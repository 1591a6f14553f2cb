/* Changing stacks: from a fibre to the scheduler of its OS thread and back. */
#ifndef TUTTI_TESTS_SIM_SWITCH_H
#define TUTTI_TESTS_SIM_SWITCH_H

#include <stddef.h>
#include <stdint.h>

/* -DTT_SIM_UCONTEXT: the way of other machines, to try it on this one. */
#if defined(__x86_64__) && !defined(TT_SIM_UCONTEXT)
#define TT_SIM_BY_HAND 1
#else
#define TT_SIM_BY_HAND 0
#include <ucontext.h>
#endif

struct tt_sim_stack {
#if TT_SIM_BY_HAND
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake; /* AddressSanitizer's own */
    const void *bottom;
    size_t bytes;
};

/* A stack that begins with entry(), which must not return. `top_skip` bytes stay unused at its top:
 * stacks of one size would all sit on the same cache lines. */
void tt_sim_stack_make(struct tt_sim_stack *stack, unsigned char *bottom, size_t bytes,
                       size_t top_skip, void (*entry)(void));

/* Stacks are about to become other memory: what AddressSanitizer knows of them no longer holds. */
void tt_sim_stacks_forget(const unsigned char *bottom, size_t bytes);

/* Leave `from`, which can be resumed unless it is over, for `to`. */
void tt_sim_stack_switch(struct tt_sim_stack *from, struct tt_sim_stack *to, int is_over);

/* The first thing that entry() calls. */
void tt_sim_stack_begin(struct tt_sim_stack *stack, struct tt_sim_stack *came_from);

#endif
