/* See sim_switch.h. By hand on x86-64: swapcontext makes a system call each time. */
#include "support/sim/sim_switch.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

static void before(struct tt_sim_stack *from, const struct tt_sim_stack *to, int is_over)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(is_over ? NULL : &from->fake, to->bottom, to->bytes);
#else
    (void)from;
    (void)to;
    (void)is_over;
#endif
}

static void after(struct tt_sim_stack *self, struct tt_sim_stack *came_from)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t bytes;

    __sanitizer_finish_switch_fiber(self->fake, &bottom, &bytes);
    if (came_from->bottom == NULL) { /* an OS thread's own stack: nobody told us */
        came_from->bottom = bottom;
        came_from->bytes = bytes;
    }
#else
    (void)self;
    (void)came_from;
#endif
}

void tt_sim_stacks_forget(const unsigned char *bottom, size_t bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(bottom, bytes);
#else
    (void)bottom;
    (void)bytes;
#endif
}

void tt_sim_stack_begin(struct tt_sim_stack *stack, struct tt_sim_stack *came_from)
{
    after(stack, came_from);
}

#if TT_SIM_BY_HAND

/* void swap(void **save_sp, void *load_sp) */
__asm__(".text\n"
        ".type tt_sim_swap, @function\n"
        "tt_sim_swap:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size tt_sim_swap, . - tt_sim_swap\n");
void tt_sim_swap(void **save_sp, void *load_sp);

void tt_sim_stack_make(struct tt_sim_stack *stack, unsigned char *bottom, size_t bytes,
                       size_t top_skip, void (*entry)(void))
{
    void **sp = (void **)(bottom + bytes - top_skip);

    *--sp = NULL; /* where entry would return to; and the alignment that a call leaves */
    *--sp = (void *)(uintptr_t)entry;
    for (int i = 0; i < 6; i++)
        *--sp = NULL;
    *stack = (struct tt_sim_stack){.sp = sp, .bottom = bottom, .bytes = bytes};
}

void tt_sim_stack_switch(struct tt_sim_stack *from, struct tt_sim_stack *to, int is_over)
{
    before(from, to, is_over);
    tt_sim_swap(&from->sp, to->sp);
    after(from, to);
}

#else

void tt_sim_stack_make(struct tt_sim_stack *stack, unsigned char *bottom, size_t bytes,
                       size_t top_skip, void (*entry)(void))
{
    memset(stack, 0, sizeof(*stack));
    stack->bottom = bottom;
    stack->bytes = bytes;
    getcontext(&stack->context);
    stack->context.uc_stack.ss_sp = bottom;
    stack->context.uc_stack.ss_size = bytes - top_skip;
    makecontext(&stack->context, entry, 0);
}

void tt_sim_stack_switch(struct tt_sim_stack *from, struct tt_sim_stack *to, int is_over)
{
    before(from, to, is_over);
    swapcontext(&from->context, &to->context);
    after(from, to);
}

#endif
