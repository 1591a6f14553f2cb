/* Atomics on memory that processes share, and what goes with them. */
#ifndef TT_BASE_ATOMIC_H
#define TT_BASE_ATOMIC_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Two cache lines: x86 fetches lines in pairs, so what different ranks write is kept a pair apart. */
#define TT_LINE 128

static inline uint64_t tt_load_acquire(const _Atomic uint64_t *p)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)p, memory_order_acquire);
}

static inline uint64_t tt_load_relaxed(const _Atomic uint64_t *p)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)p, memory_order_relaxed);
}

static inline void tt_store_release(_Atomic uint64_t *p, uint64_t v)
{
    atomic_store_explicit(p, v, memory_order_release);
}

static inline void tt_store_relaxed(_Atomic uint64_t *p, uint64_t v)
{
    atomic_store_explicit(p, v, memory_order_relaxed);
}

/* Copy to memory that others read meanwhile: no word of it is ever there in part, and who reads one sees all that this
 * thread did before. Words that are not aligned, and bytes behind the last, have no such reader. */
static inline void tt_store_words(void *to, const void *from, size_t bytes)
{
    const size_t n_words = (uintptr_t)to % 8 ? 0 : bytes / 8;
    _Atomic uint64_t *words = to;
    uint64_t word;

    for (size_t i = 0; i < n_words; i++) {
        memcpy(&word, (const unsigned char *)from + i * 8, 8);
        tt_store_release(&words[i], word);
    }
    memcpy((unsigned char *)to + n_words * 8, (const unsigned char *)from + n_words * 8,
           bytes - n_words * 8);
}

/* Ask for the line at p, to write to it. Returns at once; an address that cannot be had does nothing. */
static inline void tt_fetch_to_write(const void *p)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p)); /* where there is none, a nop */
#else
    __builtin_prefetch(p, 1, 3);
#endif
}

static inline void tt_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

#endif
