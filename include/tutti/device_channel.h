/*
 * tutti/device_channel.h: what one does with a channel, the same on the host and in kernels. Part of
 * tutti/device.h, which says what holds for all of it. Bodies are here, because kernels need them.
 */
#ifndef TUTTI_DEVICE_CHANNEL_H
#define TUTTI_DEVICE_CHANNEL_H

#include <tutti/device.h>

#ifdef __CUDACC__
#define TUTTI_CHANNEL_FN static __host__ __device__ inline
#else
#define TUTTI_CHANNEL_FN static inline
#endif

/* ------------------------------------------------------------------ the machine's words ------ */

/* Memory that GPUs, processes and cards share is read and written through these. TUTTI_DEVICE_WORDS names a
 * file with others: a simulated GPU has some. */
#ifdef TUTTI_DEVICE_WORDS
#include TUTTI_DEVICE_WORDS
#else

TUTTI_CHANNEL_FN uint64_t tutti_dev_acquire(const uint64_t *p)
{
#ifdef __CUDA_ARCH__
    uint64_t value;

    asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(p) : "memory");
    return value;
#else
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#endif
}

/* Without an order on GPUs, where that costs something. */
TUTTI_CHANNEL_FN uint64_t tutti_dev_load(const uint64_t *p)
{
#ifdef __CUDA_ARCH__
    uint64_t value;

    asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(value) : "l"(p) : "memory");
    return value;
#else
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#endif
}

TUTTI_CHANNEL_FN void tutti_dev_release(uint64_t *p, uint64_t value)
{
#ifdef __CUDA_ARCH__
    asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
#else
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
#endif
}

TUTTI_CHANNEL_FN void tutti_dev_store(uint64_t *p, uint64_t value)
{
#ifdef __CUDA_ARCH__
    asm volatile("st.relaxed.sys.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
#else
    __atomic_store_n(p, value, __ATOMIC_RELAXED);
#endif
}

/* Add, and return what was there: in memory of this place, and in a peer's. */
TUTTI_CHANNEL_FN uint64_t tutti_dev_add(uint64_t *p, uint64_t value)
{
#ifdef __CUDA_ARCH__
    return atomicAdd((unsigned long long *)p, (unsigned long long)value);
#else
    return __atomic_fetch_add(p, value, __ATOMIC_ACQ_REL);
#endif
}

TUTTI_CHANNEL_FN void tutti_dev_add_at_peer(uint64_t *p, uint64_t value)
{
#ifdef __CUDA_ARCH__
    asm volatile("red.release.sys.add.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
#else
    (void)__atomic_fetch_add(p, value, __ATOMIC_ACQ_REL);
#endif
}

TUTTI_CHANNEL_FN void tutti_dev_fence(void)
{
#ifdef __CUDA_ARCH__
    asm volatile("fence.acq_rel.sys;" ::: "memory");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

struct tutti_dev_vec {
    uint64_t w[2];
};

TUTTI_CHANNEL_FN void tutti_dev_copy16(void *to, const void *from)
{
#ifdef __CUDA_ARCH__
    *(ulonglong2 *)to = *(const ulonglong2 *)from;
#else
    *(struct tutti_dev_vec *)to = *(const struct tutti_dev_vec *)from;
#endif
}

TUTTI_CHANNEL_FN void tutti_dev_copy1(unsigned char *to, const unsigned char *from)
{
    *to = *from;
}

#ifdef __CUDA_ARCH__         /* what only kernels need: the host has tutti_channel_pause() */
#define TUTTI_DEV_POLLS 2048 /* looks at the clock and at the report: about every ms */

TUTTI_CHANNEL_FN uint32_t tutti_dev_load32(const uint32_t *p)
{
    return *(const volatile uint32_t *)p;
}

TUTTI_CHANNEL_FN uint32_t tutti_dev_swap32(uint32_t *p, uint32_t expected, uint32_t value)
{
    return atomicCAS_system(p, expected, value);
}

TUTTI_CHANNEL_FN uint64_t tutti_dev_now_ns(void)
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
    return ns;
}

TUTTI_CHANNEL_FN void tutti_dev_relax(void)
{
}
#endif

#endif /* TUTTI_DEVICE_WORDS */

/* ------------------------------------------------------------------ waiting ------------------ */

struct tutti_dev_patience {
    uint32_t polls;
    uint64_t since_ns;
};

/* Kernels: the first to fail writes the report. */
#if defined(__CUDA_ARCH__) || defined(TUTTI_DEVICE_WORDS)
TUTTI_CHANNEL_FN int tutti_dev_fail(const tutti_channel *c, tutti_result result,
                                    tutti_channel_op op, uint64_t value, uint64_t seen,
                                    uint64_t waited_ns)
{
    tutti_channel_report *r = c->report;

    if (tutti_dev_swap32(&r->result, 0, UINT32_MAX) == 0) {
        r->op = (uint32_t)op;
        r->peer = c->peer;
        r->value = value;
        r->seen = seen;
        r->waited_ns = waited_ns;
        tutti_dev_fence();
        tutti_dev_swap32(&r->result, UINT32_MAX, (uint32_t) - (int32_t)result);
    }
    return result;
}
#endif

/* After a look that did not find what is waited for: TUTTI_OK, look again; or what ends the wait. */
TUTTI_CHANNEL_FN int tutti_dev_wait(const tutti_channel *c, struct tutti_dev_patience *p,
                                    tutti_channel_op op, const uint64_t *word, uint64_t value)
{
#if defined(__CUDA_ARCH__) || defined(TUTTI_DEVICE_WORDS)
    uint32_t result;
    uint64_t now;

    tutti_dev_relax();
    if (++p->polls % TUTTI_DEV_POLLS != 0)
        return TUTTI_OK;
    now = tutti_dev_now_ns();
    if (p->since_ns == 0)
        p->since_ns = now;
    result = tutti_dev_load32(&c->report->result);
    if (result != 0)
        return result == UINT32_MAX ? TUTTI_E_ABORTED : -(int)result;
    if (tutti_dev_load32(&c->report->abort))
        return tutti_dev_fail(c, TUTTI_E_ABORTED, op, value, tutti_dev_load(word),
                              now - p->since_ns);
    if (now - p->since_ns > c->timeout_ns)
        return tutti_dev_fail(c, TUTTI_E_TIMEOUT, op, value, tutti_dev_load(word),
                              now - p->since_ns);
    return TUTTI_OK;
#else
    (void)word;
    return ++p->polls % 64 ? TUTTI_OK : tutti_channel_pause(c, op, value, &p->since_ns);
#endif
}

TUTTI_CHANNEL_FN int tutti_dev_refuse(const tutti_channel *c, tutti_channel_op op, uint64_t at,
                                      uint64_t bytes)
{
#if defined(__CUDA_ARCH__) || defined(TUTTI_DEVICE_WORDS)
    return tutti_dev_fail(c, TUTTI_E_ARG, op, at, bytes, 0);
#else
    return tutti_channel_refuse(c, op, at, bytes);
#endif
}

TUTTI_CHANNEL_FN int tutti_dev_await(const tutti_channel *c, tutti_channel_op op,
                                     const uint64_t *word, uint64_t value)
{
    struct tutti_dev_patience p = {0, 0};

    while (tutti_dev_acquire(word) < value) {
        const int result = tutti_dev_wait(c, &p, op, word, value);

        if (result != TUTTI_OK)
            return tutti_dev_acquire(word) < value ? result : TUTTI_OK;
    }
    return TUTTI_OK;
}

/* ------------------------------------------------------------------ triggers ----------------- */

#define TUTTI_TRIGGER_MASK UINT64_C(0xffffffffffff)

/* The last word of a trigger. In a kernel a release would wait for the other words to cross PCIe; on the host it
 * costs nothing, and ThreadSanitizer understands it, unlike the fence. */
TUTTI_CHANNEL_FN void tutti_dev_store_last(uint64_t *p, uint64_t value)
{
#if defined(__CUDA_ARCH__) || defined(TUTTI_DEVICE_WORDS)
    tutti_dev_store(p, value);
#else
    tutti_dev_release(p, value);
#endif
}

/* Of a power of 2. To divide by it would take a kernel 0.3 us. */
TUTTI_CHANNEL_FN uint32_t tutti_dev_log2(uint32_t n)
{
#ifdef __CUDA_ARCH__
    return (uint32_t)__ffs((int)n) - 1;
#else
    return (uint32_t)__builtin_ctz(n);
#endif
}

/* Queue a trigger; its number from 0 in *number_out. What the thread wrote before is seen by the proxy. */
TUTTI_CHANNEL_FN int tutti_dev_push(const tutti_channel *c, tutti_channel_op op, uint64_t to,
                                    uint64_t from, uint64_t bytes, uint64_t *number_out)
{
    const uint64_t number = tutti_dev_add(c->head, 1);
    const uint64_t turn = ((number >> tutti_dev_log2(c->n_slots)) + 1) << 48;
    uint64_t *word = c->slots[number & (c->n_slots - 1)].word;

    if (number - tutti_dev_load(c->seen) >= c->n_slots) { /* full, as far as is known here */
        const int result = tutti_dev_await(c, op, c->done, number - c->n_slots + 1);

        if (result != TUTTI_OK)
            return result;
        tutti_dev_store(c->seen, tutti_dev_load(c->done));
    }
    tutti_dev_fence(); /* once: each word says by its turn that it is there, in whatever order they come */
    tutti_dev_store(&word[0], turn | (to & TUTTI_TRIGGER_MASK));
    tutti_dev_store(&word[1], turn | (from & TUTTI_TRIGGER_MASK));
    tutti_dev_store(&word[2], turn | (bytes & TUTTI_TRIGGER_MASK));
    tutti_dev_store_last(&word[3], turn | (uint64_t)op << 32 | c->id);
    *number_out = number;
#if !defined(__CUDA_ARCH__) && !defined(TUTTI_DEVICE_WORDS)
    tutti_channel_kick(c);
#endif
    return TUTTI_OK;
}

TUTTI_CHANNEL_FN int tutti_dev_post(const tutti_channel *c, tutti_channel_op op, uint64_t to,
                                    uint64_t from, uint64_t bytes)
{
    uint64_t number;

    return tutti_dev_push(c, op, to, from, bytes, &number);
}

/* 1 for the last of the group to come here, which then sees what all of them did. */
TUTTI_CHANNEL_FN int tutti_dev_is_last(const tutti_channel *c, uint32_t n_threads)
{
    if (n_threads == 1)
        return 1;
    tutti_dev_fence();
    if (tutti_dev_add(&c->state->arrived, 1) + 1 != n_threads)
        return 0;
    (void)tutti_dev_add(&c->state->arrived, (uint64_t)0 - n_threads);
    tutti_dev_fence();
    return 1;
}

TUTTI_CHANNEL_FN int tutti_dev_fits(uint64_t room, uint64_t at, uint64_t bytes)
{
    return bytes <= room && at <= room - bytes;
}

/* This thread's share: 16 bytes at a time where that can be. */
TUTTI_CHANNEL_FN void tutti_dev_copy(unsigned char *to, const unsigned char *from, uint64_t bytes,
                                     uint32_t thread, uint32_t n_threads)
{
    const uint64_t vecs = ((uintptr_t)to | (uintptr_t)from) % 16 == 0 ? bytes / 16 : 0;

    for (uint64_t i = thread; i < vecs; i += n_threads)
        tutti_dev_copy16(to + i * 16, from + i * 16);
    for (uint64_t i = vecs * 16 + thread; i < bytes; i += n_threads)
        tutti_dev_copy1(to + i, from + i);
}

/* ------------------------------------------------------------------ operations --------------- */

/** Copy memory[from .. from + bytes) of this rank to offset `to` of the peer's. By a group; there need not be a
 *  barrier after it but before the signal that follows. TUTTI_E_ARG if it is not within `bytes`. */
TUTTI_CHANNEL_FN int tutti_channel_put(const tutti_channel *c, uint64_t to, uint64_t from,
                                       uint64_t bytes, uint32_t thread, uint32_t n_threads)
{
    if (!tutti_dev_fits(c->bytes, to, bytes) || !tutti_dev_fits(c->bytes, from, bytes))
        return tutti_dev_refuse(c, TUTTI_CHANNEL_PUT, to > from ? to : from, bytes);
    if (c->n_slots == 0) {
        tutti_dev_copy(c->peer_memory + to, c->memory + from, bytes, thread, n_threads);
        return TUTTI_OK;
    }
    return thread == 0 ? tutti_dev_post(c, TUTTI_CHANNEL_PUT, to, from, bytes) : TUTTI_OK;
}

/** Raise the peer's counter of this channel by one, after everything before it. */
TUTTI_CHANNEL_FN int tutti_channel_signal(const tutti_channel *c)
{
    if (c->n_slots != 0)
        return tutti_dev_post(c, TUTTI_CHANNEL_SIGNAL, 0, 0, 0);
    c->state->sent++;
    tutti_dev_release(c->peer_signals, c->state->sent);
    return TUTTI_OK;
}

/** A put and the signal after it, by a group, without a barrier: one trigger, or a copy whose last thread
 *  signals. On memory channels of large groups a put, a barrier and a signal are faster. */
TUTTI_CHANNEL_FN int tutti_channel_put_with_signal(const tutti_channel *c, uint64_t to,
                                                   uint64_t from, uint64_t bytes, uint32_t thread,
                                                   uint32_t n_threads)
{
    if (!tutti_dev_fits(c->bytes, to, bytes) || !tutti_dev_fits(c->bytes, from, bytes))
        return tutti_dev_refuse(c, TUTTI_CHANNEL_PUT_WITH_SIGNAL, to > from ? to : from, bytes);
    if (c->n_slots != 0)
        return thread == 0 ? tutti_dev_post(c, TUTTI_CHANNEL_PUT_WITH_SIGNAL, to, from, bytes)
                           : TUTTI_OK;
    tutti_dev_copy(c->peer_memory + to, c->memory + from, bytes, thread, n_threads);
    return tutti_dev_is_last(c, n_threads) ? tutti_channel_signal(c) : TUTTI_OK;
}

/**
 * Send bytes[0 .. bytes) of `from`, any memory of this rank, as packets: every 4 bytes travel with `flag`, which
 * proves their arrival, so that no signal is needed. They arrive in the channel's room for packets at offset
 * `at`. By a group; `at` and `bytes` are multiples of 4.
 *
 * flag        Not 0, and another one each time that the same place is used, as a count of rounds.
 * Again       The same place may be written again once the peer has shown that it has read it.
 */
TUTTI_CHANNEL_FN int tutti_channel_put_packets(const tutti_channel *c, uint64_t at,
                                               const void *from, uint64_t bytes, uint32_t flag,
                                               uint32_t thread, uint32_t n_threads)
{
    const uint32_t *data = (const uint32_t *)from;

    if (!tutti_dev_fits(c->packet_bytes, at, bytes) || (at | bytes | (uintptr_t)from) % 4 || !flag)
        return tutti_dev_refuse(c, TUTTI_CHANNEL_PUT_PACKETS, at, bytes);
    for (uint64_t i = thread; i < bytes / 4; i += n_threads)
        tutti_dev_store(&c->packets_out[at / 4 + i], (uint64_t)flag << 32 | data[i]);
    if (c->n_slots == 0 || !tutti_dev_is_last(c, n_threads))
        return TUTTI_OK;
    return tutti_dev_post(c, TUTTI_CHANNEL_PUT_PACKETS, at, at, bytes);
}

/** Wait for packets with this flag, and leave their bytes at `to`. By a group, each thread for its share. */
TUTTI_CHANNEL_FN int tutti_channel_get_packets(const tutti_channel *c, uint64_t at, void *to,
                                               uint64_t bytes, uint32_t flag, uint32_t thread,
                                               uint32_t n_threads)
{
    struct tutti_dev_patience p = {0, 0};
    uint32_t *data = (uint32_t *)to;

    if (!tutti_dev_fits(c->packet_bytes, at, bytes) || (at | bytes | (uintptr_t)to) % 4 || !flag)
        return tutti_dev_refuse(c, TUTTI_CHANNEL_GET_PACKETS, at, bytes);
    for (uint64_t i = thread; i < bytes / 4; i += n_threads) {
        const uint64_t *word = &c->packets[at / 4 + i];
        uint64_t packet;

        while (packet = tutti_dev_load(word), packet >> 32 != flag) {
            const int result = tutti_dev_wait(c, &p, TUTTI_CHANNEL_GET_PACKETS, word, flag);

            if (result != TUTTI_OK)
                return result;
        }
        data[i] = (uint32_t)packet;
    }
    return TUTTI_OK;
}

/** Wait until the peer has signalled at least `value` times since the set was made. */
TUTTI_CHANNEL_FN int tutti_channel_wait(const tutti_channel *c, uint64_t value)
{
    return tutti_dev_await(c, TUTTI_CHANNEL_WAIT, c->signals, value);
}

/** Wait for the signal after the last that was waited for in this way: what graphs replay. One thread at
 *  a time. */
TUTTI_CHANNEL_FN int tutti_channel_wait_next(const tutti_channel *c)
{
    c->state->taken++;
    return tutti_channel_wait(c, c->state->taken);
}

/** How often the peer has signalled so far. Returns at once. */
TUTTI_CHANNEL_FN uint64_t tutti_channel_n_signals(const tutti_channel *c)
{
    return tutti_dev_acquire(c->signals);
}

/** Wait until everything that this thread has put and added on this channel is in the peer's memory. */
TUTTI_CHANNEL_FN int tutti_channel_flush(const tutti_channel *c)
{
    uint64_t number;
    int result;

    tutti_dev_fence();
    if (c->n_slots == 0)
        return TUTTI_OK;
    result = tutti_dev_push(c, TUTTI_CHANNEL_FLUSH, 0, 0, 0, &number);
    return result != TUTTI_OK ? result
                              : tutti_dev_await(c, TUTTI_CHANNEL_FLUSH, c->flushed, number + 1);
}

/** Add to the 64-bit word at offset `to` (a multiple of 8) of the peer's memory. Atomic with all such adds of
 *  channels of one kind; port channels' adds to host memory are atomic with everything that the host does. */
TUTTI_CHANNEL_FN int tutti_channel_atomic_add(const tutti_channel *c, uint64_t to, uint64_t value)
{
    if (!tutti_dev_fits(c->bytes, to, 8) || to % 8)
        return tutti_dev_refuse(c, TUTTI_CHANNEL_ATOMIC_ADD, to, 8);
    if (c->n_slots != 0) /* 48 bits of it, and the other 16 */
        return tutti_dev_post(c, TUTTI_CHANNEL_ATOMIC_ADD, to, value, value >> 48);
    tutti_dev_add_at_peer((uint64_t *)(void *)(c->peer_memory + to), value);
    return TUTTI_OK;
}

#endif /* TUTTI_DEVICE_CHANNEL_H */
