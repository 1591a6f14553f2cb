/* ctest: timeout=120 */
/* Messages under random delays; and with one rule of theirs broken on purpose (docs/design/
 * shared-memory.md, "Messages") the same ones arrive wrong, or not at all. Needs -DTUTTI_STALL=1. */
#include "cpu/stall.h"
#include "support/job.h"

#ifdef TUTTI_STALL

enum { N_MESSAGES = 64, MOST = 100000, WHOLE = 32 };

/* How a message goes depends on its length and on whether memories can be reached. */
struct stream {
    enum tt_break what;
    const char *rule;
    size_t bytes;     /* of a message */
    const char *xmem; /* TUTTI_CPU_XMEM */
    const char *sign; /* of the report that notices */
};

#define WRONG ", want 0x"
static const struct stream streams[] = {
    {TT_BREAK_NUMBER, "a message's line whatever its number says", 40, "off", WRONG},
    {TT_BREAK_LINE, "a number before its line", 40, "off", WRONG},
    {TT_BREAK_SLOT, "a line written over a message", 40, "off", "TUTTI_E_TIMEOUT"},
    {TT_BREAK_PUT, "bytes announced before they are there", MOST, "off", WRONG},
    {TT_BREAK_ROOM, "bytes put over others", MOST, "off", WRONG},
    {TT_BREAK_TAKEN, "room given back before it is read", MOST, "off", WRONG},
    {TT_BREAK_PLACE, "a place before it is known", 5000, "on", WRONG},
    {TT_BREAK_PLACED, "stored before there is a place", 5000, "on", WRONG},
    {TT_BREAK_STORED, "\"stored\" before it is", 5000, "on", WRONG},
    {TT_BREAK_ARRIVED, "not waited for \"stored\"", 5000, "on", WRONG},
};

struct plan {
    const struct stream *stream;
    int is_broken;
    uint64_t seed;
};

static unsigned char byte_of(uint64_t seed, size_t message, size_t i)
{
    return (unsigned char)(seed + message * 131 + i * 7 + (i >> 8));
}

/* Both directions at a time, each with messages enough that its lines and its ring are used again and
 * again. The first ones keep the rule, so that what is stale afterwards looks like a message. */
static void messages(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    const size_t bytes = plan->stream->bytes;
    unsigned char *out = malloc(bytes), *in = malloc(2 * bytes);
    const int is_sender = t->rank == 0;

    t_meet(t);
    tt_stall_seed(t_hash(plan->seed, (uint64_t)t->rank + 1) | 1);
    for (size_t m = 0; m < N_MESSAGES; m++) {
        unsigned char *to = in + m % 2 * bytes;

        if (m == WHOLE && plan->is_broken)
            tt_break(plan->stream->what);
        for (size_t i = 0; is_sender && i < bytes; i++)
            out[i] = byte_of(plan->seed, m, i);
        if (is_sender) {
            T_OK(tutti_send(t->comm, out, bytes, TUTTI_DTYPE_U8, 1, NULL));
            memset(out, 0, bytes);
            continue;
        }
        memset(to, 0, bytes);
        T_OK(tutti_recv(t->comm, to, bytes, TUTTI_DTYPE_U8, 0, NULL));
        for (size_t i = 0; i < bytes; i++)
            T_CHECK(to[i] == byte_of(plan->seed, m, i), "message %zu, byte %zu is %#x" WRONG "%02x",
                    m, i, to[i], byte_of(plan->seed, m, i));
    }
    tt_break(TT_BREAK_NONE);
    tt_stall_seed(0);
    t_meet(t);
    free(out);
    free(in);
}

/* 1: it failed, and `text` says how. */
static int play(const struct stream *s, int is_broken, uint64_t seed, char *text, size_t bytes)
{
    struct plan plan = {s, is_broken, seed};
    struct t_job job = {.n_ranks = 2, .body = messages, .arg = &plan};
    int failed;

    job.config.size = sizeof(job.config);
    job.config.timeout_ms = is_broken ? 1000 : 20000;
    setenv("TUTTI_CPU_XMEM", s->xmem, 1);
    failed = t_run_quietly(&job, text, bytes);
    unsetenv("TUTTI_CPU_XMEM");
    return failed;
}

static int cannot_run(const struct stream *s, const char *text)
{
    if (strstr(text, "TUTTI_E_UNSUPPORTED") == NULL)
        return 0;
    printf("passed over, memories cannot be reached here: %s\n", s->rule);
    return 1;
}

static void messages_are_right_under_stalls(void **state)
{
    static char text[8192];

    (void)state;
    for (size_t i = 0; i < T_LEN(streams); i++)
        for (uint64_t seed = 1; seed <= t_times(2, 50); seed++)
            if (play(&streams[i], 0, t_now_ns() + seed, text, sizeof(text)) &&
                !cannot_run(&streams[i], text))
                T_FAIL("%zu bytes, TUTTI_CPU_XMEM=%s: %s", streams[i].bytes, streams[i].xmem, text);
}

static void must_be_noticed(const struct stream *s)
{
    static char text[8192];

    for (uint64_t seed = 1; seed <= 60; seed++) {
        if (!play(s, 1, seed, text, sizeof(text)))
            continue;
        if (cannot_run(s, text))
            return;
        if (strstr(text, s->sign) != NULL) {
            printf("%s: noticed in attempt %d: %.160s\n", s->rule, (int)seed, text);
            return;
        }
    }
    T_FAIL("nothing was noticed with %s; last report: %s", s->rule, text);
}

static void every_broken_rule_is_noticed(void **state)
{
    (void)state;
    for (size_t i = 0; i < T_LEN(streams); i++)
        must_be_noticed(&streams[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_right_under_stalls),
        cmocka_unit_test(every_broken_rule_is_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
#include "support/without_stall.inc"
#endif
