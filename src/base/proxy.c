/* The thread behind tt_proxy_start(), and how it spends its time when there is nothing to do. */
#include "base/proxy.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/log.h"

#define SPIN_NS       UINT64_C(1000000) /* without work, before the first nap */
#define CROWDED_NS    UINT64_C(100000)  /* the same where cores are shared */
#define FIRST_NAP_NS  UINT64_C(20000)
#define POLLS         64              /* between looks at the clock, each with a yield */
#define LONG_YIELD_NS UINT64_C(50000) /* somebody else ran: the core is shared */
#define SHORT_YIELDS  1000            /* nobody did for that many: it is ours again */

struct tt_proxy {
    pthread_t thread;
    int (*poll)(void *context);
    void *context;
    char name[16];
    uint64_t nap_ns;       /* 0: by the time since there was work */
    _Atomic uint32_t bell; /* the futex; counts kicks of a napping proxy */
    _Atomic int napping;   /* 1 from before the last look for work to the end of the nap */
    _Atomic int stopping;

    /* of the thread alone */
    int crowded;      /* others want this core: every look without work gives it away */
    int short_yields; /* since there was a long one */
};

static _Atomic int n_proxies; /* of this process: more of them than cores cannot spin */

static void sleep_until_kicked(struct tt_proxy *p, uint32_t bell, uint64_t ns)
{
    const struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    syscall(SYS_futex, (uint32_t *)(void *)&p->bell, FUTEX_WAIT_PRIVATE, bell, &t, NULL, 0);
}

static uint64_t nap_length(const struct tt_proxy *p, uint64_t idle_ns)
{
    const uint64_t ns = idle_ns / 16;

    if (p->nap_ns)
        return p->nap_ns;
    if (ns < FIRST_NAP_NS)
        return FIRST_NAP_NS;
    return ns < TT_PROXY_NAP_NS ? ns : TT_PROXY_NAP_NS;
}

/* The last look for work is after `napping` is set, so of a kick and this look one sees the other. */
static int nap(struct tt_proxy *p, uint64_t idle_ns)
{
    const uint32_t bell = atomic_load(&p->bell);
    int moved;

    atomic_store(&p->napping, 1);
    atomic_thread_fence(memory_order_seq_cst);
    moved = p->poll(p->context);
    if (!moved && !atomic_load(&p->stopping))
        sleep_until_kicked(p, bell, nap_length(p, idle_ns));
    atomic_store(&p->napping, 0);
    return moved;
}

/* How long a yield takes says whether anybody else wanted the core: nobody need be told how many ranks
 * there are on how many cores. */
static uint64_t yield(struct tt_proxy *p, uint64_t now)
{
    uint64_t then;

    sched_yield();
    then = tt_now_ns();
    if (then - now > LONG_YIELD_NS) {
        p->crowded = 1;
        p->short_yields = 0;
    } else if (p->crowded && ++p->short_yields > SHORT_YIELDS) {
        p->crowded = 0;
    }
    return then;
}

static int is_stopping(const struct tt_proxy *p)
{
    return atomic_load_explicit(&p->stopping, memory_order_relaxed);
}

/* From the first look without work to the first with some, or to the end. */
static void idle(struct tt_proxy *p)
{
    const uint64_t since = tt_now_ns();
    uint64_t now = since;

    while (!is_stopping(p) && now - since < (p->crowded ? CROWDED_NS : SPIN_NS)) {
        for (int i = p->crowded ? POLLS - 1 : 0; i < POLLS; i++) {
            if (p->poll(p->context))
                return;
            tt_pause();
        }
        now = yield(p, tt_now_ns());
    }
    while (!is_stopping(p) && !nap(p, now - since))
        now = tt_now_ns();
}

static void *run(void *context)
{
    struct tt_proxy *p = context;

    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL,
                0UL); /* naps as long as they say, not 50 us more */
    (void)prctl(PR_SET_NAME, p->name, 0UL, 0UL, 0UL);
    while (!is_stopping(p)) {
        if (!p->poll(p->context))
            idle(p);
    }
    return NULL;
}

/* Signals are the program's: none is to be delivered to a thread that it does not know. */
static int create_thread(struct tt_proxy *p, const struct tt_proxy_config *config)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);

    if (err)
        return err;
    if (config->cpus)
        err = pthread_attr_setaffinity_np(&attr, config->cpus_bytes,
                                          (const cpu_set_t *)(const void *)config->cpus);
    if (!err) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        err = pthread_create(&p->thread, &attr, run, p);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attr);
    return err;
}

static int n_cores(void)
{
    cpu_set_t cpus;

    return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

tutti_result tt_proxy_start(const struct tt_proxy_config *config, struct tt_proxy **proxy_out)
{
    struct tt_proxy_config anywhere = *config;
    struct tt_proxy *p = calloc(1, sizeof(*p));
    int err;

    if (!p)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the proxy thread %s", config->name);
    p->poll = config->poll;
    p->context = config->context;
    p->nap_ns = config->nap_ns;
    snprintf(p->name, sizeof(p->name), "%s", config->name);
    p->crowded = atomic_fetch_add(&n_proxies, 1) + 1 >= n_cores();
    err = create_thread(p, config);
    if (err == EINVAL && config->cpus) { /* none of them is ours: a control group, for example */
        TT_LOG(TUTTI_LOG_INFO, -1, 0, "the thread %s cannot have the cores chosen for it: any",
               p->name);
        anywhere.cpus = NULL;
        err = create_thread(p, &anywhere);
    }
    if (err) {
        atomic_fetch_sub(&n_proxies, 1);
        free(p);
        errno = err;
        return TT_FAIL_SYS(
            "cannot start the proxy thread %s; is there a limit of threads (ulimit -u, "
            "pids.max)?",
            config->name);
    }
    *proxy_out = p;
    return TUTTI_OK;
}

void tt_proxy_kick(struct tt_proxy *proxy)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&proxy->napping, memory_order_relaxed))
        return;
    atomic_fetch_add(&proxy->bell, 1);
    syscall(SYS_futex, (uint32_t *)(void *)&proxy->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void tt_proxy_stop(struct tt_proxy *proxy)
{
    if (!proxy)
        return;
    atomic_store(&proxy->stopping, 1);
    tt_proxy_kick(proxy);
    pthread_join(proxy->thread, NULL);
    atomic_fetch_sub(&n_proxies, 1);
    free(proxy);
}

uint32_t tt_proxy_share(int n_ranks, uint32_t most)
{
    cpu_set_t cpus;
    const int cores = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    const int share = cores / (n_ranks > 0 ? n_ranks : 1) / 2;

    return share < 1 ? 1 : (uint32_t)share < most ? (uint32_t)share : most;
}
