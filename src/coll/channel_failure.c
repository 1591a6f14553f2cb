/* What ends a wait on a channel: the peer's word, a failure of the set or of the communicator, the peer's death,
 * the deadline. And how a kernel's report becomes a text. */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "coll/channel_parts.h"
#include "coll/hier.h"
#include "cpu/cpu_engine.h"

#define YIELD_NS UINT64_C(1000000) /* before a wait goes to sleep now and then */
#define NAP_NS   UINT64_C(500000)

const char *tt_channel_op_name(uint32_t op)
{
    static const char *const names[] = {"nothing",         "put",         "signal",
                                        "put_with_signal", "put_packets", "flush",
                                        "atomic_add",      "wait",        "get_packets"};

    return op < TT_LEN(names) ? names[op] : "unknown";
}

/* The first failure counts: its text, then the word that makes everybody look. Kernels are told, and the
 * networks tell the other ranks: of a death they know by themselves, and who it was. */
tutti_result tt_channel_fail(tutti_channel_set *s, tutti_result result, const char *text)
{
    int is_first;

    pthread_mutex_lock(&s->lock);
    is_first = atomic_load(&s->failed) == TUTTI_OK;
    if (is_first) {
        snprintf(s->failed_text, sizeof(s->failed_text), "channels of communicator %s, rank %d: %s",
                 s->comm->name, s->rank, text);
        atomic_store(&s->failed, (int)result);
        __atomic_store_n(&s->report->abort, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; is_first && result != TUTTI_E_PEER && i < s->n_started; i++)
        tt_net_abort(s->ports[i].net);
    return tt_channel_check(s);
}

tutti_result tt_channel_check(tutti_channel_set *s)
{
    const tutti_result result = (tutti_result)atomic_load(&s->failed);
    char text[sizeof(s->failed_text)];

    if (result == TUTTI_OK)
        return TUTTI_OK;
    pthread_mutex_lock(&s->lock);
    memcpy(text, s->failed_text, sizeof(text));
    pthread_mutex_unlock(&s->lock);
    return TT_FAIL(result, "%s", text);
}

/* ---- who is there ---- */

static enum tt_presence presence(tutti_channel_set *s, int rank)
{
    const tutti_comm *c = s->comm;

    if (c->control_ops == &tt_cpu_engine)
        return tt_cpu_presence(c->control, rank);
    return c->control_ops == &tt_hier_engine ? tt_hier_presence(c->control, rank) : TT_IS_THERE;
}

tutti_result tt_channel_look(tutti_channel_set *s, int peer)
{
    tutti_comm_state state = {.size = sizeof(state)};
    enum tt_presence is;

    tt_comm_state(s->comm, &state);
    if (state.result != TUTTI_OK)
        return TT_FAIL(state.result, "%s", state.text);
    if (peer < 0)
        return TUTTI_OK;
    if (atomic_load(&s->gone[peer]))
        return TT_FAIL(TUTTI_E_PEER, "rank %d has left or died", peer);
    is = presence(s, peer);
    if (is == TT_IS_THERE)
        return TUTTI_OK;
    return TT_FAIL(TUTTI_E_PEER, "rank %d has %s", peer,
                   is == TT_HAS_DIED ? "died" : "destroyed its communicator");
}

/* ---- waits of host threads ---- */

static tutti_result too_late(const tutti_channel *c, tutti_channel_op op, uint64_t value,
                             uint64_t waited_ns)
{
    char text[200];

    snprintf(
        text, sizeof(text),
        "%s: rank %d did not do its part within %llu ms (waited for %llu). It is stopped, busy or "
        "does not %s",
        tt_channel_op_name((uint32_t)op), c->peer, (unsigned long long)(waited_ns / 1000000),
        (unsigned long long)value,
        op == TUTTI_CHANNEL_WAIT          ? "signal"
        : op == TUTTI_CHANNEL_GET_PACKETS ? "put packets"
                                          : "take what is sent to it");
    return tt_channel_fail(c->set, TUTTI_E_TIMEOUT, text);
}

/* Sleep a sixteenth of the time that has been waited already. */
static void nap(uint64_t waited_ns)
{
    const uint64_t ns = waited_ns / 16 < NAP_NS ? waited_ns / 16 : NAP_NS;
    const struct timespec t = {0, (long)ns};

    (void)nanosleep(&t, NULL);
}

tutti_result tt_channel_pause(const tutti_channel *c, tutti_channel_op op, uint64_t value,
                              uint64_t *since_ns)
{
    const uint64_t now = tt_now_ns();
    char text[400];
    tutti_result result;

    if (*since_ns == 0)
        *since_ns = now;
    tt_channel_kick(c);
    TT_TRY(tt_channel_check(c->set));
    sched_yield();
    if (now - *since_ns < YIELD_NS)
        return TUTTI_OK;
    result = tt_channel_look(c->set, c->peer);
    if (result != TUTTI_OK) {
        snprintf(text, sizeof(text), "%s: %s", tt_channel_op_name((uint32_t)op), tt_error_text());
        return tt_channel_fail(c->set, result, text);
    }
    if (now - *since_ns > c->timeout_ns)
        return too_late(c, op, value, now - *since_ns);
    nap(now - *since_ns);
    return TUTTI_OK;
}

void tt_channel_kick(const tutti_channel *c)
{
    const tutti_channel_set *s = c->set;

    if (c->n_slots != 0 && c->id < (uint32_t)s->n_ranks * s->n_channels)
        tt_proxy_kick(
            s->ports[tt_channel_proxy(s, (int)(c->id / s->n_channels), c->id % s->n_channels)]
                .proxy);
}

tutti_result tt_channel_refuse(const tutti_channel *c, tutti_channel_op op, uint64_t at,
                               uint64_t bytes)
{
    const int packets = op == TUTTI_CHANNEL_PUT_PACKETS || op == TUTTI_CHANNEL_GET_PACKETS;

    return TT_FAIL(
        TUTTI_E_ARG, "%s of %llu bytes at offset %llu: the channel to rank %d has %llu bytes%s",
        tt_channel_op_name((uint32_t)op), (unsigned long long)bytes, (unsigned long long)at,
        c->peer, (unsigned long long)(packets ? c->packet_bytes : c->bytes),
        packets ? " of packets; offset, bytes and address are multiples of 4, and the flag "
                  "is not 0"
        : op == TUTTI_CHANNEL_ATOMIC_ADD ? ", and words at multiples of 8"
                                         : "");
}

/* ---- what kernels have reported ---- */

/* Kernels can write what they like there. */
static tutti_result take_report(tutti_channel_set *s, uint32_t word)
{
    const tutti_channel_report r = *s->report;
    tutti_result result =
        word <= (uint32_t)-TUTTI_E_INTERNAL ? (tutti_result) - (int32_t)word : TUTTI_E_INTERNAL;
    char text[300], why[200] = "";

    if (result == TUTTI_E_TIMEOUT && r.peer >= 0 && r.peer < s->n_ranks &&
        tt_channel_look(s, r.peer) != TUTTI_OK) { /* it could not come */
        result = TUTTI_E_PEER;
        snprintf(why, sizeof(why), ": %.150s", tt_error_text());
    }
    snprintf(text, sizeof(text),
             "a kernel's %s with rank %d ended after %llu ms (%s): %s %llu, %s %llu%s",
             tt_channel_op_name(r.op), r.peer, (unsigned long long)(r.waited_ns / 1000000),
             tt_result_name(result), result == TUTTI_E_ARG ? "offset" : "waited for",
             (unsigned long long)r.value, result == TUTTI_E_ARG ? "bytes" : "saw",
             (unsigned long long)r.seen, why);
    return tt_channel_fail(s, result, text);
}

tutti_result tt_channel_set_status(tutti_channel_set *s)
{
    const uint32_t word = __atomic_load_n(&s->report->result, __ATOMIC_ACQUIRE);
    char text[400];
    tutti_result result;

    TT_TRY(tt_channel_check(s));
    if (word != 0 && word != UINT32_MAX)
        return take_report(s, word);
    result = tt_channel_look(s, -1);
    if (result == TUTTI_OK)
        return TUTTI_OK;
    snprintf(text, sizeof(text), "%s", tt_error_text());
    return tt_channel_fail(s, result, text);
}
