/* ctest: quick timeout=120 */
/*
 * Every dtype x operation x number of sources x count x misalignment, out of place, in place with
 * several of the sources and with a second destination, on every set of kernels, against the
 * reference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "kernels_reference.h"

#define MAX_COUNT   4097
#define MAX_SOURCES 64
#define GUARD       128 /* bytes around a destination that must stay as they are */
#define SLACK       256
#define BYTES       (MAX_COUNT * 8 + SLACK)

static const int n_sources[] = {1, 2, 3, 5, 8, 17, 64};
static const size_t counts[] = {0,  1,  2,  3,  7,  15,  16,  17,   31,  33,
                                47, 63, 64, 65, 96, 127, 255, 1000, 4097};
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t codes[MAX_SOURCES][MAX_COUNT];
static _Alignas(64) char pristine[MAX_SOURCES][BYTES];
static _Alignas(64) char sources[MAX_SOURCES][BYTES];
static _Alignas(64) char dst[BYTES + 2 * GUARD];
static _Alignas(64) char dst2[BYTES + 2 * GUARD];
static char expected[BYTES];

/* Numbers of every temper; those of one element are alike in all sources, or 64 random ones would
 * always have a NaN among them. */
static uint64_t make_float_code(const struct ref_format *f, size_t k, uint64_t *seed)
{
    const uint64_t bits = ref_random(seed);
    const int width = f->bytes * 8;
    const uint64_t all = UINT64_MAX >> (64 - width);
    const uint64_t sign = (bits >> 63) << (width - 1);
    const uint64_t mantissa = ((uint64_t)1 << f->mantissa_bits) - 1;
    const uint64_t one = (((uint64_t)1 << (f->exponent_bits - 1)) - 1) << f->mantissa_bits;
    const uint64_t infinity = (all >> 1) & ~mantissa;
    const uint64_t specials[8] = {0,
                                  sign,
                                  sign | infinity,
                                  sign | (infinity + 1),
                                  sign | (all >> 1),
                                  sign | (infinity - 1),
                                  sign | mantissa,
                                  sign | (mantissa + 1)};

    if (k % 8 == 0)
        return bits & all;
    if (k % 8 == 1)
        return specials[bits & 7];
    if (k % 8 == 2)
        return bits & 24 ? sign | (bits & mantissa) : specials[bits & 7]; /* mostly denormals */
    if (k % 8 == 3)
        return (bits & mantissa) | (infinity >> 1) | (bits & infinity & ~(infinity >> 2)) | sign;
    if (k % 8 == 4)
        return sign | (bits & 7 & mantissa);                            /* the tiniest */
    return sign | (one - (mantissa + 1) + (bits & (2 * mantissa + 1))); /* about 1 */
}

static void make_sources(tutti_dtype dtype, uint64_t seed)
{
    const struct ref_format *f = &ref_formats[dtype];

    for (int r = 0; r < MAX_SOURCES; r++)
        for (size_t k = 0; k < MAX_COUNT; k++)
            codes[r][k] = f->kind == REF_INTEGER ? ref_random(&seed) >> (64 - f->bytes * 8)
                                                 : make_float_code(f, k, &seed);
}

static void make_expected(tutti_dtype dtype, int op, int n_src)
{
    for (size_t k = 0; k < MAX_COUNT; k++) {
        uint64_t x[MAX_SOURCES] = {0};

        for (int r = 0; r < n_src; r++)
            x[r] = codes[r][k];
        ref_put(dtype, expected, k, ref_reduce(dtype, op, x, n_src));
    }
}

struct shape {
    const struct tt_kernels *set;
    tutti_dtype dtype;
    int op;
    int n_src;
    size_t count;
    size_t shift; /* bytes off alignment */
    size_t ahead;
    int in_place; /* dst is this source; -1: none */
    int twice;    /* 1: a second destination, 2: in the last source */
};

static int all_bytes_are(const char *p, size_t bytes, char value)
{
    for (size_t k = 0; k < bytes; k++)
        if (p[k] != value)
            return 0;
    return 1;
}

static void check_destination(const struct shape *s, const char *what, const char *d)
{
    const size_t bytes = s->count * (size_t)ref_formats[s->dtype].bytes;

    for (size_t k = 0; k < s->count && memcmp(d, expected, bytes) != 0; k++) {
        if (ref_get(s->dtype, d, k) == ref_get(s->dtype, expected, k))
            continue;
        fail_msg(
            "%s %s %s n_src %d count %zu shift %zu in place %d twice %d: %s[%zu] is %#llx, not "
            "%#llx",
            s->set->isa, tutti_dtype_name(s->dtype), tutti_op_name((tutti_op)s->op), s->n_src,
            s->count, s->shift, s->in_place, s->twice, what, k,
            (unsigned long long)ref_get(s->dtype, d, k),
            (unsigned long long)ref_get(s->dtype, expected, k));
    }
}

static void check_guards(const struct shape *s, const char *area, int used)
{
    const size_t bytes = s->count * (size_t)ref_formats[s->dtype].bytes;

    if (!all_bytes_are(area, GUARD + s->shift, 0x5a) ||
        !all_bytes_are(area + GUARD + s->shift + bytes, GUARD, 0x5a) ||
        (!used && !all_bytes_are(area + GUARD + s->shift, bytes, 0x5a)))
        fail_msg("%s %s %s n_src %d count %zu shift %zu: wrote outside", s->set->isa,
                 tutti_dtype_name(s->dtype), tutti_op_name((tutti_op)s->op), s->n_src, s->count,
                 s->shift);
}

static void run_shape(const struct shape *s)
{
    const size_t bytes = s->count * (size_t)ref_formats[s->dtype].bytes;
    const void *src[MAX_SOURCES];
    char *d = dst + GUARD + s->shift;
    char *d2 = s->twice == 2 ? sources[s->n_src - 1] + s->shift : dst2 + GUARD + s->shift;

    for (int r = 0; r < s->n_src; r++) {
        src[r] = sources[r] + s->shift;
        memcpy(sources[r] + s->shift, pristine[r], bytes);
    }
    memset(dst, 0x5a, bytes + s->shift + 2 * GUARD);
    memset(dst2, 0x5a, bytes + s->shift + 2 * GUARD);
    if (s->in_place >= 0)
        d = sources[s->in_place] + s->shift;

    s->set->reduce[s->dtype][s->op](d, s->twice ? d2 : NULL, src, s->n_src, s->count, s->ahead);

    check_destination(s, "dst", d);
    if (s->twice)
        check_destination(s, "dst2", d2);
    check_guards(s, dst, s->in_place < 0);
    check_guards(s, dst2, s->twice == 1);
    for (int r = 0; r < s->n_src; r++)
        if (r != s->in_place && !(s->twice == 2 && r == s->n_src - 1))
            assert_memory_equal(src[r], pristine[r], bytes);
}

/* The places of a destination that one count is tried with. */
static void run_places(struct shape s)
{
    static const size_t shifts[] = {0, 1, 3, 6}; /* in elements */
    const size_t element = (size_t)ref_formats[s.dtype].bytes;

    for (size_t i = 0; i < LENGTH(shifts); i++) {
        s.shift = shifts[i] * element;
        s.in_place = -1;
        s.twice = (int)(i & 1);
        s.ahead = i == 1 ? 4096 : 0;
        run_shape(&s);
    }
    s.shift = 1; /* not even the elements are aligned */
    run_shape(&s);
    s.shift = 0;
    s.ahead = 0;
    for (int r = 0; r < s.n_src && r < 8; r++) {
        s.in_place = s.n_src - 1 - r;
        s.twice = r == 0 ? 1 : r == 1 ? 2 : 0;
        run_shape(&s);
    }
}

static void check_dtype(tutti_dtype dtype)
{
    struct shape s = {.dtype = dtype};

    make_sources(dtype, 1000 + (uint64_t)dtype);
    for (int r = 0; r < MAX_SOURCES; r++)
        for (size_t k = 0; k < MAX_COUNT; k++)
            ref_put(dtype, pristine[r], k, codes[r][k]);
    for (s.op = 0; s.op < TUTTI_N_OPS; s.op++) {
        for (size_t n = 0; n < LENGTH(n_sources); n++) {
            s.n_src = n_sources[n];
            make_expected(dtype, s.op, s.n_src);
            for (int i = 0; (s.set = ref_set(i)); i++) {
                for (size_t c = 0; c < LENGTH(counts); c++) {
                    s.count = counts[c];
                    run_places(s);
                }
            }
        }
    }
}

#define DTYPE_TEST(name, value, bytes, text)                                                       \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        check_dtype(TUTTI_DTYPE_##name);                                                           \
    }
TUTTI_DTYPE_MAP(DTYPE_TEST)

static int prepare(void **state)
{
    (void)state;
    ref_prepare();
    for (int i = 0; ref_set(i); i++)
        print_message("set: %s\n", ref_set(i)->isa);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define DTYPE_ENTRY(name, value, bytes, text) cmocka_unit_test(test_##name),
        TUTTI_DTYPE_MAP(DTYPE_ENTRY)};

    return cmocka_run_group_tests(tests, prepare, NULL);
}
