/*
 * How a rank finds rank 0: the addresses of the id are tried side by side, each with its own
 * back-off, until one of them proves that it knows the secret. Only one at a time is shown our
 * proof, because several addresses may lead to the same rank 0. An address has a short head start
 * over the next, and one that answers holds the others back for a while: nearly always the first
 * will do, and thousands of ranks that connect several times each are a flood.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot_parts.h"
#include "boot/boot_socket.h"

#define MAX_TRIES      16
#define CONNECT_MS     3000 /* then the host does not answer, and is asked again */
#define CHALLENGE_MS   10000 /* rank 0 may be connected but not have called tutti_comm_create() yet */
#define WELCOME_MS     3000
#define HEAD_START_MS  20  /* of an address over the next */
#define HOLD_MS        500 /* that one which answers holds the others back */
#define BACKOFF_MIN_MS 2
#define BACKOFF_MAX_MS 250
#define LOOKUP_MS      1000
#define POLL_MS        1000
#define MAX_REFUSALS   8 /* in a row, about 0.6 s with the back-off */
#define MS             UINT64_C(1000000)

enum phase { IDLE, CONNECTING, WAITING, CHALLENGED, PROVING };

/* Why the last attempt on an address failed; later ones say more about what is wrong. */
enum trouble { NOTHING_YET, NO_CONNECTION, SILENT, NOT_TUTTI, OTHER_USER, OTHER_SECRET };

struct
try {
    struct tt_boot_endpoint endpoint;
    int fd;
    enum phase phase;
    uint64_t since_ns; /* of this phase */
    uint64_t next_ns;  /* IDLE: when to connect */
    int is_held;       /* IDLE: but at once if another try fails */
    unsigned backoff_ms;
    size_t n_in;
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES];
    unsigned char proof[TT_WIRE_PROOF_BYTES];
    unsigned char welcome[TT_WIRE_WELCOME_BYTES];
    enum trouble trouble;
    int error;      /* errno of NO_CONNECTION, uid of OTHER_USER */
    int n_refusals; /* ECONNREFUSED, in a row */
};

struct hunt {
    struct tt_boot *boot;
    uint64_t instance;
    uint64_t lookup_ns; /* when to look up names again */
    int has_warned;
    int shortage; /* errno of a connection for which this process has no means; 0: none */
    int n;
    struct try tries[MAX_TRIES];
};

/* The others need wait no longer for the one that seemed to lead somewhere. */
static void release(struct hunt *hunt)
{
    for (int i = 0; i < hunt->n; i++) {
        if (hunt->tries[i].is_held)
            hunt->tries[i].next_ns = tt_now_ns();
        hunt->tries[i].is_held = 0;
    }
}

static void retry(struct hunt *hunt, struct try *t, enum trouble trouble, int error)
{
    uint64_t now = tt_now_ns();

    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
    t->phase = IDLE;
    t->trouble = trouble;
    t->error = error;
    t->n_refusals = trouble == NO_CONNECTION && error == ECONNREFUSED ? t->n_refusals + 1 : 0;
    /* Ranks spread over +-25 % so that thousands do not come back in step. */
    unsigned spread = (unsigned)((hunt->instance >> 8 ^ now >> 10) % 51) + 75;

    t->next_ns = now + (uint64_t)t->backoff_ms * spread * MS / 100;
    t->backoff_ms *= 2;
    /* Who takes our proof and says nothing comes last from now on. */
    if (t->backoff_ms > BACKOFF_MAX_MS || trouble == SILENT)
        t->backoff_ms = BACKOFF_MAX_MS;
    release(hunt);
}

static void enter(struct try *t, enum phase phase)
{
    t->phase = phase;
    t->since_ns = tt_now_ns();
    t->n_in = 0;
}

static void connected(struct hunt *hunt, struct try *t)
{
    int uid = -1;

    if (tt_boot_check_user(t->fd, &uid) != 0)
        retry(hunt, t, OTHER_USER, uid);
    else
        enter(t, WAITING);
}

static int is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* With too few descriptors for all addresses side by side they take turns; which says nothing of rank 0. */
static void put_off(struct hunt *hunt, struct try *t, int error)
{
    int n_open = 0;

    for (int i = 0; i < hunt->n; i++)
        n_open += hunt->tries[i].fd >= 0;
    if (n_open == 0)
        hunt->shortage = error;
    t->next_ns = tt_now_ns() + HEAD_START_MS * MS;
}

static void begin(struct hunt *hunt, struct try *t)
{
    int error = tt_boot_connect(&t->endpoint, &t->fd);

    if (error == EINPROGRESS)
        enter(t, CONNECTING);
    else if (is_shortage(error))
        put_off(hunt, t, error);
    else if (error)
        retry(hunt, t, NO_CONNECTION, error);
    else
        connected(hunt, t);
}

/* Host names again and again: the name of a host that is being started may not exist yet. */
static void look_up(struct hunt *hunt)
{
    const struct tt_boot_id *id = &hunt->boot->id;
    struct tt_boot_endpoint found[MAX_TRIES];
    int n = 0;

    for (int i = 0; i < id->n_addresses; i++)
        n += tt_boot_address_resolve(&id->addresses[i], id->port, found + n, MAX_TRIES - n);
    hunt->lookup_ns = tt_now_ns() + LOOKUP_MS * MS;
    for (int i = 0; i < n; i++) {
        struct try *t = &hunt->tries[i];

        memset(t, 0, sizeof(*t));
        t->endpoint = found[i];
        t->fd = -1;
        t->backoff_ms = BACKOFF_MIN_MS;
        t->next_ns = tt_now_ns() + (uint64_t)i * HEAD_START_MS * MS;
        t->is_held = i > 0;
    }
    hunt->n = n;
}

static void prove(struct hunt *hunt, struct try *t)
{
    const struct tt_boot *boot = hunt->boot;
    struct tt_wire_proof proof = {.version = TT_WIRE_VERSION, .instance = hunt->instance};

    proof.rank = (uint32_t)boot->rank;
    proof.n_ranks = (uint32_t)boot->n_ranks;
    proof.pid = (uint32_t)getpid();
    if (tt_random_bytes(proof.nonce, sizeof(proof.nonce)) != TUTTI_OK) {
        retry(hunt, t, NO_CONNECTION, EIO);
        return;
    }
    tt_wire_pack_proof(&proof, t->proof);
    tt_wire_tag_proof(boot->join_key, t->challenge, t->proof, proof.tag);
    tt_wire_pack_proof(&proof, t->proof);
    if (tt_boot_send_some(t->fd, t->proof, sizeof(t->proof)) != sizeof(t->proof))
        retry(hunt, t, NO_CONNECTION, errno);
    else
        enter(t, PROVING);
}

static tutti_result refused(const struct tt_boot *boot, const struct tt_wire_welcome *w)
{
    switch (w->status) {
    case TT_WIRE_BAD_VERSION:
        return TT_FAIL(
            TUTTI_E_VERSION,
            "rank %d speaks version %d of the rendezvous, rank 0 (process %u) version %u: "
            "use one version of tutti in all ranks",
            boot->rank, TT_WIRE_VERSION, w->pid, w->version);
    case TT_WIRE_BAD_N_RANKS:
        return TT_FAIL(
            TUTTI_E_ARG,
            "rank %d was told n_ranks %d, rank 0 (process %u) n_ranks %u: give all ranks "
            "the same number",
            boot->rank, boot->n_ranks, w->pid, w->n_ranks);
    case TT_WIRE_DUPLICATE:
        return TT_FAIL(TUTTI_E_ARG, "processes %u and %d both claim rank %d: give each its own",
                       w->pid, (int)getpid(), boot->rank);
    default:
        return TT_FAIL(TUTTI_E_ARG, "rank 0 (process %u) does not accept rank %d of %u", w->pid,
                       boot->rank, w->n_ranks);
    }
}

/* OK: joined. IN_PROGRESS: this was not our rank 0. */
static tutti_result welcomed(struct hunt *hunt, struct try *t)
{
    struct tt_boot *boot = hunt->boot;
    struct tt_wire_welcome welcome;
    unsigned char tag[TT_WIRE_TAG_BYTES];
    unsigned char out[TT_WIRE_HEADER_BYTES];
    struct tt_wire_header ready = {.type = TT_WIRE_READY};

    if (tt_wire_parse_welcome(t->welcome, sizeof(t->welcome), &welcome) != 0) {
        retry(hunt, t, NOT_TUTTI, 0);
        return TUTTI_IN_PROGRESS;
    }
    tt_wire_tag_welcome(boot->root_key, t->challenge, t->proof, t->welcome, tag);
    if (welcome.status == TT_WIRE_BAD_SECRET || !tt_equal_secret(tag, welcome.tag, sizeof(tag))) {
        if (!hunt->has_warned)
            TT_LOG(TUTTI_LOG_WARN, boot->rank, boot->n_ranks,
                   "a tutti process at %s has another secret: another job's, or a wrong id or "
                   "TUTTI_SECRET; trying on",
                   boot->where);
        hunt->has_warned = 1;
        retry(hunt, t, OTHER_SECRET, 0);
        return TUTTI_IN_PROGRESS;
    }
    if (welcome.status != TT_WIRE_JOINED)
        return refused(boot, &welcome);
    tt_wire_pack_header(&ready, out);
    if (tt_boot_send_some(t->fd, out, sizeof(out)) != sizeof(out)) {
        retry(hunt, t, NO_CONNECTION, errno);
        return TUTTI_IN_PROGRESS;
    }
    boot->fd = t->fd;
    t->fd = -1;
    t->phase = IDLE;
    return TUTTI_OK;
}

static tutti_result advance(struct hunt *hunt, struct try *t)
{
    struct tt_wire_challenge challenge;
    int is_challenge = t->phase == WAITING;
    unsigned char *in = is_challenge ? t->challenge : t->welcome;
    size_t want = is_challenge ? sizeof(t->challenge) : sizeof(t->welcome);

    if (t->phase == CONNECTING) {
        int error = tt_boot_connect_finish(t->fd);

        if (error)
            retry(hunt, t, NO_CONNECTION, error);
        else
            connected(hunt, t);
        return TUTTI_IN_PROGRESS;
    }

    if (t->phase == CHALLENGED) { /* gone while another address was shown our proof */
        retry(hunt, t, NO_CONNECTION, ECONNRESET);
        return TUTTI_IN_PROGRESS;
    }

    long n = tt_boot_recv_some(t->fd, in + t->n_in, want - t->n_in);

    if (n < 0) { /* pushed out by others, not tutti, or rank 0 has just closed its listener */
        int error = errno ? errno : ECONNRESET;

        retry(hunt, t, is_challenge ? NO_CONNECTION : NOT_TUTTI, error);
        return TUTTI_IN_PROGRESS;
    }
    t->n_in += (size_t)n;
    if (t->n_in < want)
        return TUTTI_IN_PROGRESS;
    if (!is_challenge)
        return welcomed(hunt, t);
    if (tt_wire_parse_challenge(t->challenge, sizeof(t->challenge), &challenge) != 0)
        retry(hunt, t, NOT_TUTTI, 0);
    else
        enter(t, CHALLENGED);
    return TUTTI_IN_PROGRESS;
}

static uint64_t phase_end_ns(const struct try *t)
{
    switch (t->phase) {
    case IDLE: return t->next_ns;
    case CONNECTING: return t->since_ns + CONNECT_MS * MS;
    case WAITING: return t->since_ns + CHALLENGE_MS * MS;
    case PROVING: return t->since_ns + WELCOME_MS * MS;
    case CHALLENGED: break;
    }
    return UINT64_MAX;
}

/* Put `t` off while another try has an answer and is not slow about the next. */
static int hold(const struct hunt *hunt, struct try *t)
{
    for (int i = 0; i < hunt->n; i++) {
        const struct try *other = &hunt->tries[i];
        uint64_t end = other->since_ns + HOLD_MS * MS;

        if (other->phase <= CONNECTING || end <= tt_now_ns())
            continue;
        t->is_held = 1;
        t->next_ns = end;
        return 1;
    }
    t->is_held = 0;
    return 0;
}

/* Start what is due, end what took too long; the time of the next such event. */
static uint64_t turn(struct hunt *hunt)
{
    uint64_t next = UINT64_MAX;
    int is_proving = 0;
    struct try *challenged = NULL;

    for (int i = 0; i < hunt->n; i++) {
        struct try *t = &hunt->tries[i];

        if (phase_end_ns(t) <= tt_now_ns()) {
            if (t->phase == IDLE && !hold(hunt, t))
                begin(hunt, t);
            else if (t->phase != IDLE)
                retry(hunt, t, t->phase == CONNECTING ? NO_CONNECTION : SILENT, ETIMEDOUT);
        }
        if (phase_end_ns(t) < next)
            next = phase_end_ns(t);
        is_proving |= t->phase == PROVING;
        if (t->phase == CHALLENGED && (!challenged || t->backoff_ms < challenged->backoff_ms))
            challenged = t;
    }
    if (challenged && !is_proving) {
        prove(hunt, challenged);
        if (phase_end_ns(challenged) < next)
            next = phase_end_ns(challenged);
    }
    if (hunt->n == 0)
        next = hunt->lookup_ns;
    return next;
}

static tutti_result fail_deadline(const struct hunt *hunt)
{
    const struct tt_boot *boot = hunt->boot;
    const struct try *worst = NULL;
    char why[160] = "its name is not known here";

    for (int i = 0; i < hunt->n; i++) {
        if (!worst || hunt->tries[i].trouble > worst->trouble)
            worst = &hunt->tries[i];
    }
    enum trouble trouble = worst ? worst->trouble : NO_CONNECTION;

    if (trouble == OTHER_SECRET)
        return TT_FAIL(
            TUTTI_E_AUTH,
            "rank %d could not join %s within %.3g s: the tutti process there has another "
            "secret: give all ranks rank 0's id, or the same TUTTI_SECRET",
            boot->rank, boot->where, tt_boot_waited_s(boot));
    if (worst && worst->phase == WAITING)
        trouble = SILENT;
    if (trouble == OTHER_USER)
        snprintf(why, sizeof(why), "the socket belongs to user %d, this rank runs as user %d",
                 worst->error, (int)geteuid());
    else if (trouble == NOT_TUTTI)
        snprintf(why, sizeof(why), "what listens there is not tutti");
    else if (trouble == SILENT)
        snprintf(why, sizeof(why),
                 "connected, but no answer: has rank 0 called tutti_comm_create()?");
    else if (worst) {
        char text[80];

        snprintf(why, sizeof(why), "%s: does rank 0 run, and is this its address?",
                 strerror_r(worst->error, text, sizeof(text)));
    }
    return TT_FAIL(TUTTI_E_TIMEOUT, "rank %d could not join rank 0 at %s within %.3g s: %s",
                   boot->rank, boot->where, tt_boot_waited_s(boot), why);
}

/* Rank 0 listened before it gave its id away and will not listen again: refused everywhere, it is
 * gone. An id made from an address promises no such thing, as rank 0 may not have started yet. */
static int root_is_gone(const struct hunt *hunt)
{
    for (int i = 0; i < hunt->n; i++) {
        if (hunt->tries[i].n_refusals < MAX_REFUSALS)
            return 0;
    }
    return hunt->n > 0 && hunt->boot->id.is_listening;
}

static tutti_result wait_round(struct hunt *hunt)
{
    const struct tt_boot *boot = hunt->boot;
    struct pollfd polls[MAX_TRIES];
    uint64_t next = turn(hunt);
    uint64_t end = next < boot->deadline_ns ? next : boot->deadline_ns;

    if (tt_boot_is_aborted(boot->abort))
        return TT_FAIL(TUTTI_E_ABORTED, "rank %d aborted while joining", boot->rank);
    if (tt_now_ns() >= boot->deadline_ns)
        return fail_deadline(hunt);
    if (hunt->shortage) {
        errno = hunt->shortage;
        return TT_FAIL_SYS("rank %d cannot make a connection to rank 0", boot->rank);
    }
    if (root_is_gone(hunt))
        return TT_FAIL(TUTTI_E_PEER,
                       "rank 0 no longer listens at %s: it died, left or failed before rank %d "
                       "joined; see its own error",
                       boot->where, boot->rank);
    for (int i = 0; i < hunt->n; i++) {
        const struct try *t = &hunt->tries[i];
        static const short events[] = {
            [IDLE] = 0,         [CONNECTING] = POLLOUT,
            [WAITING] = POLLIN, [CHALLENGED] = POLLRDHUP,
            [PROVING] = POLLIN,
        };

        polls[i].fd = t->fd; /* -1 when idle, which poll skips */
        polls[i].events = events[t->phase];
        polls[i].revents = 0;
    }
    int n = poll(polls, (nfds_t)hunt->n, tt_boot_poll_ms(end, boot->abort, POLL_MS));

    if (n < 0 && errno != EINTR)
        return TT_FAIL_SYS("rank %d cannot wait for rank 0", boot->rank);
    for (int i = 0; n > 0 && i < hunt->n; i++) {
        if (!polls[i].revents)
            continue;
        tutti_result result = advance(hunt, &hunt->tries[i]);

        if (result != TUTTI_IN_PROGRESS)
            return result;
    }
    return TUTTI_IN_PROGRESS;
}

tutti_result tt_boot_join(struct tt_boot *boot)
{
    struct hunt hunt = {.boot = boot};
    struct tt_wire_header header;
    tutti_result result;

    TT_TRY(tt_random_bytes(&hunt.instance, sizeof(hunt.instance)));
    do {
        if (hunt.n == 0 && tt_now_ns() >= hunt.lookup_ns)
            look_up(&hunt);
        result = wait_round(&hunt);
    } while (result == TUTTI_IN_PROGRESS);
    for (int i = 0; i < hunt.n; i++) {
        if (hunt.tries[i].fd >= 0)
            close(hunt.tries[i].fd);
    }
    if (result != TUTTI_OK)
        return result;
    return tt_boot_joiner_expect(boot, TT_WIRE_START, &header);
}
