/*
 * A launch: all threads of its blocks as fibres on the OS thread that called, in turn until all are
 * done. A round in which nobody did more than wait gives the core to other ranks.
 *
 * In bad weather turns are in random order, some are missed, blocks are held back for a while and the
 * whole launch comes late. A launch that begins early runs as far as it can before what it has to wait for does.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "support/sim/sim.h"
#include "support/sim/sim_switch.h"

#define STACK_BYTES ((size_t)64 << 10)
#define CANARY      0x5afe57acc0ffee11u

enum state { READY, AT_BARRIER, OVER };

struct fibre {
    struct tt_sim_thread id;
    enum state state;
    int has_paused; /* its turn ended with a wait */
    int is_listed;  /* among the ready */
    struct tt_sim_stack stack;
    struct tt_sim_pending stores;
};

struct shared {
    const void *key;
    void *memory;
    struct shared *next;
};

struct block {
    int n_live, n_at_barrier;
    int held; /* rounds that it sits out */
    struct shared *shared;
};

/* Of one OS thread, kept from launch to launch. */
struct machine {
    unsigned char *stacks;
    struct fibre *fibres;
    int n_stacks;
    int n_fibres;         /* of this launch */
    struct fibre **ready; /* those that can use a turn, and some that no longer can */
    int n_ready;
    struct block *blocks;
    struct tt_sim_stack scheduler;
    struct fibre *running;
    tt_sim_kernel kernel;
    const void *args;
    uint64_t random;               /* 0: calm */
    void (*before)(void *context); /* what the launch has to wait for; NULL when it is over */
    void *context;
};

_Thread_local struct tt_sim_thread *tt_sim_now;
static _Thread_local struct machine *here;
static pthread_key_t machine_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t weather;
static uint64_t n_launches;

static void unmap_stacks(struct machine *m)
{
    const size_t bytes = (size_t)m->n_stacks * STACK_BYTES;

    if (m->stacks == NULL)
        return;
    tt_sim_stacks_forget(m->stacks, bytes);
    munmap(m->stacks, bytes);
}

static void machine_free(void *context)
{
    struct machine *m = context;

    unmap_stacks(m);
    free(m->fibres);
    free(m->ready);
    free(m);
}

static void make_key(void)
{
    pthread_key_create(&machine_key, machine_free);
}

void tt_sim_set_weather(uint64_t seed)
{
    __atomic_store_n(&weather, seed, __ATOMIC_RELAXED);
}

uint64_t tt_sim_random(void)
{
    uint64_t x = here->random;

    if (x == 0)
        return 0;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    here->random = x;
    return (x * 0x2545f4914f6cdd1du) | 1;
}

uint64_t tt_sim_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void nap(long us)
{
    const struct timespec pause = {0, us * 1000};

    nanosleep(&pause, NULL);
}

static _Noreturn void die(const char *why)
{
    fprintf(stderr, "simulated GPU: %s\n", why);
    abort();
}

struct tt_sim_pending *tt_sim_my_stores(void)
{
    return &here->running->stores;
}

struct tt_sim_pending *tt_sim_stores_of(int thread)
{
    const struct tt_sim_thread *id = &here->running->id;

    return &here->fibres[id->block * id->threads + thread].stores;
}

/* ---- what a fibre does ---- */

static void leave(struct fibre *f)
{
    tt_sim_stack_switch(&f->stack, &here->scheduler, f->state == OVER);
}

void tt_sim_pause(void)
{
    struct fibre *f = here->running;

    if (here->random != 0)
        tt_sim_drain_some(&f->stores);
    f->has_paused = 1;
    leave(f);
}

void tt_sim_grid_wait(void)
{
    while (here->before != NULL && !tt_sim_breaks("no_grid_wait"))
        tt_sim_pause();
}

static void list(struct machine *m, struct fibre *f)
{
    if (f->is_listed)
        return;
    f->is_listed = 1;
    m->ready[m->n_ready++] = f;
}

static void release(struct block *b, const struct fibre *last)
{
    struct fibre *first = &here->fibres[last->id.block * last->id.threads];

    b->n_at_barrier = 0;
    for (int i = 0; i < last->id.threads; i++)
        if (first[i].state == AT_BARRIER) {
            first[i].state = READY;
            list(here, &first[i]);
        }
}

void tt_sim_sync(void)
{
    struct fibre *f = here->running;
    struct block *b = &here->blocks[f->id.block];

    tt_sim_passed_barrier(&f->stores);
    if (b->n_at_barrier + 1 == b->n_live) {
        release(b, f);
        return;
    }
    b->n_at_barrier++;
    f->state = AT_BARRIER;
    leave(f);
}

void *tt_sim_shared(const void *key, size_t bytes)
{
    struct block *b = &here->blocks[here->running->id.block];
    struct shared *s;

    for (s = b->shared; s != NULL; s = s->next)
        if (s->key == key)
            return s->memory;
    s = calloc(1, sizeof(*s));
    if (s == NULL || posix_memalign(&s->memory, 128, bytes + 1) != 0)
        die("no memory for a block's shared memory");
    memset(s->memory, 0xA5, bytes);
    s->key = key;
    s->next = b->shared;
    b->shared = s;
    return s->memory;
}

static void fibre_main(void)
{
    struct fibre *f = here->running;
    struct block *b = &here->blocks[f->id.block];

    tt_sim_stack_begin(&f->stack, &here->scheduler);
    here->kernel(here->args);
    tt_sim_drain(&f->stores);
    f->state = OVER;
    b->n_live--;
    if (b->n_live > 0 && b->n_at_barrier == b->n_live)
        release(b, f);
    leave(f);
    die("a fibre that was over ran again");
}

/* ---- the scheduler ---- */

static unsigned char *stack_of(const struct machine *m, int i)
{
    return m->stacks + (size_t)i * STACK_BYTES;
}

static uint64_t *canary_of(const struct machine *m, int i)
{
    return (uint64_t *)stack_of(m, i);
}

static struct machine *machine_for(int n)
{
    struct machine *m = here;

    pthread_once(&once, make_key);
    if (m == NULL) {
        here = m = calloc(1, sizeof(*m));
        if (m == NULL || pthread_setspecific(machine_key, m) != 0)
            die("no memory");
    }
    if (n <= m->n_stacks)
        return m;
    unmap_stacks(m);
    free(m->fibres);
    free(m->ready);
    m->n_stacks = n;
    m->fibres = malloc((size_t)n * sizeof(*m->fibres));
    m->ready = malloc((size_t)n * sizeof(struct fibre *));
    m->stacks = mmap(NULL, (size_t)n * STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (m->fibres == NULL || m->ready == NULL || m->stacks == MAP_FAILED)
        die("no memory for the threads of a launch");
    return m;
}

static void set_up(struct machine *m, int n_blocks, int n_threads)
{
    for (int i = 0; i < n_blocks * n_threads; i++) {
        struct fibre *f = &m->fibres[i];

        f->id = (struct tt_sim_thread){i % n_threads, n_threads, i / n_threads, n_blocks};
        f->state = READY;
        f->is_listed = 0;
        f->stores.n = f->stores.n_before = 0;
        f->stores.late.p = NULL;
        tt_sim_stack_make(&f->stack, stack_of(m, i), STACK_BYTES, (size_t)(i % 16) * 192,
                          fibre_main);
        *canary_of(m, i) = CANARY;
    }
    m->n_ready = 0;
    for (int i = 0; i < n_blocks * n_threads; i++)
        list(m, &m->fibres[i]);
    for (int b = 0; b < n_blocks; b++) {
        m->blocks[b].n_live = n_threads;
        m->blocks[b].held = (int)(tt_sim_random() % 8 == 1 ? tt_sim_random() % 200 : 0);
    }
}

static void resume(struct machine *m, struct fibre *f)
{
    m->running = f;
    tt_sim_now = &f->id;
    f->has_paused = 0;
    tt_sim_stack_switch(&m->scheduler, &f->stack, 0);
    m->running = NULL;
    tt_sim_now = NULL;
}

/* One turn for each of the ready in blocks that have begun. 1: somebody got further. */
static int round_of(struct machine *m, int n_begun)
{
    const int n = m->n_ready;
    const int backwards = (int)(tt_sim_random() >> 8 & 1);
    int at = (int)(tt_sim_random() % (uint64_t)n);
    int progress = 0, kept = 0;

    for (int k = 0; k < n; k++, at = at + 1 < n ? at + 1 : 0) {
        struct fibre *f = m->ready[backwards ? n - 1 - at : at];

        if (f->id.block >= n_begun || m->blocks[f->id.block].held > 0 ||
            (tt_sim_random() >> 16 & 7) == 1)
            continue;
        resume(m, f);
        progress |= !f->has_paused || f->state == OVER;
    }
    for (int k = 0; k < m->n_ready; k++) {
        struct fibre *f = m->ready[k];

        f->is_listed = f->state == READY;
        if (f->is_listed)
            m->ready[kept++] = f;
    }
    m->n_ready = kept;
    for (int b = 0; b < n_begun; b++)
        m->blocks[b].held -= m->blocks[b].held > 0;
    return progress;
}

/* Stores are seen in the end, also those of threads that wait at a barrier. */
static void drain_waiting(struct machine *m)
{
    for (int i = 0; m->random != 0 && i < m->n_fibres; i++)
        if (m->fibres[i].state == AT_BARRIER)
            tt_sim_drain_some(&m->fibres[i].stores);
}

static int blocks_over(const struct machine *m, int n_blocks)
{
    int n = 0;

    for (int b = 0; b < n_blocks; b++)
        n += m->blocks[b].n_live == 0;
    return n;
}

/* What the launch waits for. It may be a launch itself, on a machine of its own. */
static void run_before(struct machine *m)
{
    void (*const before)(void *context) = m->before;

    here = NULL;
    before(m->context);
    if (here != NULL)
        machine_free(here);
    here = m;
    pthread_setspecific(machine_key, m);
    m->before = NULL;
}

/* Blocks begin in order, as many at a time as there is room for. */
static void run_rounds(struct machine *m, int n_blocks, int resident)
{
    int n_over, idle = 0;

    while ((n_over = blocks_over(m, n_blocks)) < n_blocks) {
        const int room = n_over + resident;

        if (round_of(m, room < n_blocks ? room : n_blocks)) {
            idle = 0;
            continue;
        }
        if (m->before != NULL) {
            run_before(m);
            continue;
        }
        drain_waiting(m);
        if (++idle < 30)
            sched_yield();
        else
            nap(20);
    }
}

static void clean_up(struct machine *m, int n_blocks)
{
    for (int i = 0; i < m->n_fibres; i++)
        if (*canary_of(m, i) != CANARY)
            die("a thread of a kernel has overrun its stack");
    for (int b = 0; b < n_blocks; b++)
        while (m->blocks[b].shared != NULL) {
            struct shared *s = m->blocks[b].shared;

            m->blocks[b].shared = s->next;
            free(s->memory);
            free(s);
        }
    free(m->blocks);
}

void tt_sim_run(tt_sim_kernel kernel, const void *args, int n_blocks, int n_threads, int resident)
{
    tt_sim_run_early(kernel, args, n_blocks, n_threads, resident, NULL, NULL);
}

void tt_sim_run_early(tt_sim_kernel kernel, const void *args, int n_blocks, int n_threads,
                      int resident, void (*before)(void *context), void *context)
{
    struct machine *m = machine_for(n_blocks * n_threads);
    const uint64_t seed = __atomic_load_n(&weather, __ATOMIC_RELAXED);

    m->random = 0;
    if (seed != 0) {
        m->random = seed * 0x9e3779b97f4a7c15u +
                    __atomic_add_fetch(&n_launches, 1, __ATOMIC_RELAXED) * 0xbf58476d1ce4e5b9u;
        m->random |= 1;
        if (tt_sim_random() % 16 == 1)
            nap((long)(tt_sim_random() % 1000));
    }
    m->n_fibres = n_blocks * n_threads;
    m->blocks = calloc((size_t)n_blocks, sizeof(*m->blocks));
    if (m->blocks == NULL)
        die("no memory for the blocks of a launch");
    m->kernel = kernel;
    m->args = args;
    m->before = before;
    m->context = context;
    memset(&m->scheduler, 0, sizeof(m->scheduler));
    set_up(m, n_blocks, n_threads);
    run_rounds(m, n_blocks, resident);
    if (m->before != NULL) /* nobody ever had to wait */
        run_before(m);
    clean_up(m, n_blocks);
}
