/*
 * Test hooks at the steps of the shared-memory protocol. In a TUTTI_STALL build a step may be
 * delayed at random (TT_STALL), and one rule of the protocol may be broken on purpose (TT_BROKEN) to
 * prove that the tests notice. In every other build both are constants and cost nothing.
 */
#ifndef TT_CPU_STALL_H
#define TT_CPU_STALL_H

#include <stdint.h>

enum tt_break {
    TT_BREAK_NONE,
    TT_BREAK_BARRIER, /* skip the barrier at the end of calls that touch a peer's buffers */
    TT_BREAK_EPOCH,   /* take a peer's flag for this call's whatever its epoch says */
    TT_BREAK_FENCE,   /* post the flag before the data that it announces */
};

#ifdef TUTTI_STALL
void tt_stall_seed(uint64_t seed); /* 0: no delays. This process, all its threads. */
void tt_break(enum tt_break what);
void tt_stall_here(void);
extern enum tt_break tt_broken;
#define TT_STALL()      tt_stall_here()
#define TT_BROKEN(what) (tt_broken == TT_BREAK_##what)
#else
#define TT_STALL()      ((void)0)
#define TT_BROKEN(what) 0
#endif

#endif
