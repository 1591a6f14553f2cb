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
    TT_BREAK_PARITY,  /* one half of scratch, and one table of notes, for all calls */
    TT_BREAK_NOTES,   /* arrive before the notes and places that the peers will read are there */
    /* messages (p2p.c) */
    TT_BREAK_NUMBER,  /* take a message's line for the next one's whatever its number says */
    TT_BREAK_LINE,    /* post the number before the line that it announces */
    TT_BREAK_SLOT,    /* write a message's line though the receiver has not read the one in it */
    TT_BREAK_PUT,     /* announce bytes of the ring before they are there */
    TT_BREAK_ROOM,    /* put bytes where the receiver has not taken those before */
    TT_BREAK_TAKEN,   /* give room in the ring back before it has been read */
    TT_BREAK_PLACE,   /* say that the place is known before it is */
    TT_BREAK_PLACED,  /* store before the receiver has said where */
    TT_BREAK_STORED,  /* say "stored" before it is */
    TT_BREAK_ARRIVED, /* take a message for stored before its sender says so */
    /* sleeping, and storing into a peer's buffers (wait.c) */
    TT_BREAK_WAKE,  /* look for sleepers before the flag is stored */
    TT_BREAK_LOOK,  /* sleep without another look at the flag */
    TT_BREAK_GUARD, /* look whether the call has failed before counting oneself as storing */
    TT_BREAK_LEAVE, /* come back from a failed call while others store into its buffers */
};

#ifdef TUTTI_STALL
void tt_stall_seed(uint64_t seed); /* 0: no delays. This process, all its threads. */
void tt_break(enum tt_break what);
void tt_stall_here(void);
void tt_stall_long(void);       /* some milliseconds */
void tt_stall_nap(uint64_t ns); /* how long a sleeper sleeps that nobody wakes; 0: as ever */
uint64_t tt_stall_napping(uint64_t ns);
extern enum tt_break tt_broken;
#define TT_STALL()      tt_stall_here()
#define TT_STALL_LONG() tt_stall_long()
#define TT_NAP(ns)      tt_stall_napping(ns)
#define TT_BROKEN(what) (tt_broken == TT_BREAK_##what)
#else
#define TT_STALL()      ((void)0)
#define TT_STALL_LONG() ((void)0)
#define TT_NAP(ns)      (ns)
#define TT_BROKEN(what) 0
#endif

#endif
