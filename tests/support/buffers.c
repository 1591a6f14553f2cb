/* Guarded memory: see buffers.h. */
#include "support/buffers.h"

#include <sys/mman.h>

enum { PAGE = 4096 };

struct t_memory t_memory_new(size_t bytes)
{
    struct t_memory m = {.bytes = (bytes + PAGE - 1) / PAGE * PAGE};
    unsigned char *p;

    if (m.bytes == 0)
        m.bytes = PAGE;
    p = mmap(NULL, m.bytes + 2 * (size_t)PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_CHECK(p != MAP_FAILED, "no memory for a buffer of %zu bytes", bytes);
    m.base = p + PAGE;
    T_CHECK(mprotect(m.base, m.bytes, PROT_READ | PROT_WRITE) == 0, "mprotect failed");
    return m;
}

void t_memory_free(struct t_memory *memory)
{
    if (memory->base != NULL)
        munmap(memory->base - PAGE, memory->bytes + 2 * (size_t)PAGE);
    memory->base = NULL;
}

unsigned char *t_place(const struct t_memory *memory, enum t_place place, size_t bytes,
                       size_t element)
{
    T_CHECK(bytes + PAGE <= memory->bytes, "%zu bytes do not fit in %zu", bytes, memory->bytes);
    switch (place) {
    case T_AT_START: return memory->base;
    case T_AT_END: return memory->base + memory->bytes - bytes;
    case T_ODD: return memory->base + 512 + 64 + element;
    default: return memory->base + 512;
    }
}

static size_t canary_before(const struct t_memory *memory, const unsigned char *buf)
{
    const size_t room = (size_t)(buf - memory->base);

    return room < T_CANARY_BYTES ? room : T_CANARY_BYTES;
}

static size_t canary_after(const struct t_memory *memory, const unsigned char *end)
{
    const size_t room = (size_t)(memory->base + memory->bytes - end);

    return room < T_CANARY_BYTES ? room : T_CANARY_BYTES;
}

void t_poison(const struct t_memory *memory, unsigned char *buf, size_t bytes)
{
    const size_t before = canary_before(memory, buf);

    memset(buf - before, T_POISON, before + bytes + canary_after(memory, buf + bytes));
}

size_t t_first_not(const unsigned char *a, size_t bytes, unsigned char value)
{
    size_t i = 0;

    while (i < bytes && a[i] == value)
        i++;
    return i;
}

void t_check_canaries(const struct t_memory *memory, const unsigned char *buf, size_t bytes,
                      const char *what)
{
    const size_t before = canary_before(memory, buf);
    const size_t after = canary_after(memory, buf + bytes);
    size_t i = t_first_not(buf - before, before, T_POISON);

    T_CHECK(i == before, "%s: byte %zu before the buffer was written", what, before - i);
    i = t_first_not(buf + bytes, after, T_POISON);
    T_CHECK(i == after, "%s: byte %zu after the buffer was written", what, i);
}
