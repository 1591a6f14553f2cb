/* Inputs as repeated patterns: see reference.h. */
#include "support/job.h"
#include "support/reference.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Bit patterns at the edges of every dtype, cut to its size from the top (floats) or bottom. */
static uint64_t special(tutti_dtype dtype, uint64_t h)
{
    static const uint64_t f32[] = {0,          0x80000000, 1,          0x80000001, 0x007fffff,
                                   0x00800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000,
                                   0xffc00001, 0x7f800001, 0x3f800000, 0xbf800000, 0x33800000};
    static const uint64_t f16[] = {0,      0x8000, 1,      0x8001, 0x03ff, 0x0400, 0x7bff, 0x7c00,
                                   0xfc00, 0x7e00, 0xfe01, 0x7c01, 0x3c00, 0xbc00, 0xfbff};
    static const uint64_t bf16[] = {0,      0x8000, 1,      0x8001, 0x007f, 0x0080, 0x7f7f, 0x7f80,
                                    0xff80, 0x7fc0, 0xffc1, 0x7f81, 0x3f80, 0xbf80, 0xff7f};
    static const uint64_t f64[] = {0,
                                   0x8000000000000000,
                                   1,
                                   0x8000000000000001,
                                   0x000fffffffffffff,
                                   0x0010000000000000,
                                   0x7fefffffffffffff,
                                   0x7ff0000000000000,
                                   0xfff0000000000000,
                                   0x7ff8000000000000,
                                   0xfff8000000000001,
                                   0x7ff0000000000001,
                                   0x3ff0000000000000,
                                   0xbff0000000000000,
                                   0x3ca0000000000000};
    static const uint64_t byte[] = {0,    0x80, 1,    0x81, 0x07, 0x08, 0x7e, 0x7f,
                                    0xff, 0x7c, 0xfc, 0x7b, 0x38, 0xb8, 0x3c};
    static const uint64_t integer[] = {0,
                                       1,
                                       0xffffffffffffffff,
                                       0x8000000000000000,
                                       0x7fffffffffffffff,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x80000001,
                                       2,
                                       3,
                                       0xfffffffffffffffe,
                                       10,
                                       100,
                                       0x100000000};
    const size_t i = h % T_LEN(f32);

    switch (dtype) {
    case TUTTI_DTYPE_F32: return f32[i];
    case TUTTI_DTYPE_F16: return f16[i];
    case TUTTI_DTYPE_BF16: return bf16[i];
    case TUTTI_DTYPE_F64: return f64[i];
    case TUTTI_DTYPE_E4M3:
    case TUTTI_DTYPE_E5M2:
    case TUTTI_DTYPE_I8:
    case TUTTI_DTYPE_U8: return byte[i];
    default: return integer[i];
    }
}

static void bits(unsigned char *element, tutti_dtype dtype, uint64_t h)
{
    const uint64_t x = h % 3 == 0 ? special(dtype, h >> 8) : h >> 3;

    memcpy(element, &x, tutti_dtype_bytes(dtype)); /* the low bytes */
}

/* Every third 16 bytes are ones; elsewhere they meet what takes their place on the way, and numbers. */
static void ones(unsigned char *element, tutti_dtype dtype, uint64_t vector, uint64_t h)
{
    const size_t bytes = tutti_dtype_bytes(dtype);
    const uint64_t kind = vector % 3 == 0 ? 0 : h % 4;

    if (kind == 3) {
        bits(element, dtype, h >> 2);
        return;
    }
    memset(element, 0xff, bytes);
    if (kind != 0)
        element[bytes - 1] = kind == 1 ? 0x7f : 0xfe;
}

static void small(unsigned char *element, tutti_dtype dtype, uint64_t h)
{
    const int is_unsigned =
        dtype == TUTTI_DTYPE_U8 || dtype == TUTTI_DTYPE_U32 || dtype == TUTTI_DTYPE_U64;

    t_round((double)(h % 9) - (is_unsigned ? 0 : 4), dtype, element);
}

static void near(unsigned char *element, tutti_dtype dtype, uint64_t h)
{
    const double size = (double)(h >> 12 & 0xffffff) / 0x1000000 + (double)(1u << (h >> 40 & 3));

    t_round((h & 1) != 0 ? -size : size, dtype, element);
}

void t_pattern_input(struct t_pattern *p, size_t count, tutti_dtype dtype, enum t_inputs inputs,
                     uint64_t seed, int rank)
{
    struct t_rng rng = {t_hash(seed, (uint64_t)rank)};

    p->element = tutti_dtype_bytes(dtype);
    for (size_t i = 0; i < smaller(count, T_PERIOD); i++) {
        unsigned char *element = p->bytes + i * p->element;
        const uint64_t h = t_random(&rng);

        if (inputs == T_ONES)
            ones(element, dtype, t_hash(rng.state - h, i * p->element / 16), h);
        else if (inputs == T_BITS)
            bits(element, dtype, h);
        else if (inputs == T_NEAR)
            near(element, dtype, h);
        else
            small(element, dtype, h);
    }
}

void t_pattern_reduce(struct t_pattern *p, const struct t_pattern sources[], int n, size_t count,
                      tutti_dtype dtype, tutti_op op)
{
    const void *src[T_MAX_RANKS];

    T_CHECK(n <= T_MAX_RANKS, "%d sources", n);
    for (int r = 0; r < n; r++)
        src[r] = sources[r].bytes;
    p->element = tutti_dtype_bytes(dtype);
    t_reference_reduce(p->bytes, src, n, smaller(count, T_PERIOD), dtype, op);
}

void t_pattern_write(const struct t_pattern *p, void *dst, size_t first, size_t count)
{
    unsigned char *to = dst;
    size_t at = first % T_PERIOD;

    while (count > 0) {
        const size_t n = smaller(count, T_PERIOD - at);

        memcpy(to, p->bytes + at * p->element, n * p->element);
        to += n * p->element;
        count -= n;
        at = 0;
    }
}

static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t n,
                               size_t element)
{
    size_t i = 0;

    while (i < n && memcmp(a + i * element, b + i * element, element) == 0)
        i++;
    return i;
}

size_t t_pattern_compare(const struct t_pattern *p, const void *got, size_t first, size_t count)
{
    const unsigned char *from = got;
    size_t at = first % T_PERIOD, done = 0;

    while (done < count) {
        const size_t n = smaller(count - done, T_PERIOD - at);
        const unsigned char *want = p->bytes + at * p->element;

        if (memcmp(from, want, n * p->element) != 0)
            return done + first_difference(from, want, n, p->element);
        from += n * p->element;
        done += n;
        at = 0;
    }
    return count;
}
