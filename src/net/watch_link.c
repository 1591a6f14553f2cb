#include "net/watch_link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot_socket.h"

#define VERSION     1
#define PROBE_S     1  /* between two probes of a silent connection */
#define MOST_FRAMES 16 /* in one step, so that nobody can keep us in it */

static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

struct tt_link *tt_link_new(int fd, int is_mine, int rank, uint64_t lost_ns)
{
    struct tt_link *link = calloc(1, sizeof(*link));

    if (!link) {
        close(fd);
        return NULL;
    }
    link->fd = fd;
    link->is_mine = is_mine;
    link->rank = rank;
    link->state = is_mine ? TT_LINK_CONNECTING : TT_LINK_WANTS_PROOF;
    link->since_ns = tt_now_ns();
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 120);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)(lost_ns / 1000000));
    return link;
}

void tt_link_free(struct tt_link *link)
{
    unsigned char rest[TT_NOTICE_BYTES];

    /* Closing over unread bytes resets the connection, which may overtake our last notice. */
    for (int i = 0; i < MOST_FRAMES && tt_boot_recv_some(link->fd, rest, sizeof(rest)) > 0; i++)
        ;
    close(link->fd);
    explicit_bzero(link, sizeof(*link)); /* it held keys */
    free(link);
}

uint64_t tt_link_silent_ns(const struct tt_link *link, uint64_t now_ns)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);

    if (link->state == TT_LINK_CONNECTING)
        return now_ns > link->since_ns ? now_ns - link->since_ns : 0;
    if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        return 0;
    return (uint64_t)info.tcpi_last_ack_recv * 1000000;
}

/* ---- sending ---- */

int tt_link_is_through(const struct tt_link *link)
{
    int bytes = 0;

    return link->n_out == 0 && (ioctl(link->fd, SIOCOUTQ, &bytes) != 0 || bytes == 0);
}

static enum tt_link_result send_rest(struct tt_link *link)
{
    long n = link->n_out ? tt_boot_send_some(link->fd, link->out, link->n_out) : 0;

    if (n < 0)
        return TT_LINK_CLOSED;
    link->n_out -= (size_t)n;
    memmove(link->out, link->out + n, link->n_out);
    return TT_LINK_FINE;
}

static enum tt_link_result send_frame(struct tt_link *link, const void *frame, size_t bytes)
{
    if (link->n_out + bytes > sizeof(link->out))
        return TT_LINK_CLOSED; /* takes nothing, though there is so little to take */
    memcpy(link->out + link->n_out, frame, bytes);
    link->n_out += bytes;
    return send_rest(link);
}

enum tt_link_result tt_link_tell(struct tt_link *link, const struct tt_notice *notice)
{
    unsigned char frame[TT_NOTICE_BYTES];

    if (link->state != TT_LINK_READY)
        return TT_LINK_FINE;
    tt_notice_pack(link->key_out, link->n_sent++, notice, frame);
    return send_frame(link, frame, sizeof(frame));
}

/* ---- handshake ---- */

enum tt_link_result tt_link_greet(struct tt_link *link)
{
    struct tt_wire_challenge challenge = {.version = VERSION};

    if (tt_random_bytes(challenge.nonce, sizeof(challenge.nonce)) != TUTTI_OK)
        return TT_LINK_CLOSED;
    tt_wire_pack_challenge(&challenge, link->shaken);
    return send_frame(link, link->shaken, TT_WIRE_CHALLENGE_BYTES);
}

static void make_ready(struct tt_link *link, const struct tt_link_self *self)
{
    tt_notice_key(self->key_connector, 1, link->shaken, sizeof(link->shaken),
                  link->is_mine ? link->key_out : link->key_in);
    tt_notice_key(self->key_acceptor, 0, link->shaken, sizeof(link->shaken),
                  link->is_mine ? link->key_in : link->key_out);
    link->state = TT_LINK_READY;
}

static enum tt_link_result on_challenge(struct tt_link *link, const struct tt_link_self *self)
{
    unsigned char *frame = link->shaken + TT_WIRE_CHALLENGE_BYTES;
    struct tt_wire_challenge challenge;
    struct tt_wire_proof proof = {.version = VERSION,
                                  .rank = (uint32_t)self->rank,
                                  .n_ranks = (uint32_t)self->n_ranks,
                                  .pid = (uint32_t)getpid(),
                                  .instance = (uint64_t)link->rank}; /* for nobody else */

    if (tt_wire_parse_challenge(link->in, link->n_in, &challenge) != 0 ||
        challenge.version != VERSION)
        return TT_LINK_LIES;
    memcpy(link->shaken, link->in, TT_WIRE_CHALLENGE_BYTES);
    if (tt_random_bytes(proof.nonce, sizeof(proof.nonce)) != TUTTI_OK)
        return TT_LINK_CLOSED;
    tt_wire_pack_proof(&proof, frame);
    tt_wire_tag_proof(self->key_connector, link->shaken, frame, proof.tag);
    tt_wire_pack_proof(&proof, frame);
    link->state = TT_LINK_WANTS_WELCOME;
    return send_frame(link, frame, TT_WIRE_PROOF_BYTES);
}

static enum tt_link_result on_proof(struct tt_link *link, const struct tt_link_self *self)
{
    unsigned char *frame = link->shaken + TT_WIRE_CHALLENGE_BYTES;
    struct tt_wire_welcome welcome = {.version = VERSION,
                                      .status = TT_WIRE_JOINED,
                                      .n_ranks = (uint32_t)self->n_ranks,
                                      .pid = (uint32_t)getpid()};
    unsigned char out[TT_WIRE_WELCOME_BYTES];
    unsigned char tag[TT_WIRE_TAG_BYTES];
    struct tt_wire_proof proof;

    if (tt_wire_parse_proof(link->in, link->n_in, &proof) != 0)
        return TT_LINK_LIES;
    memcpy(frame, link->in, TT_WIRE_PROOF_BYTES);
    tt_wire_tag_proof(self->key_connector, link->shaken, frame, tag);
    if (!tt_equal_secret(tag, proof.tag, sizeof(tag)) || proof.version != VERSION ||
        proof.n_ranks != (uint32_t)self->n_ranks || proof.rank >= proof.n_ranks ||
        proof.rank == (uint32_t)self->rank || proof.instance != (uint64_t)self->rank)
        return TT_LINK_LIES;
    link->rank = (int)proof.rank;
    link->pid = proof.pid;
    tt_wire_pack_welcome(&welcome, out);
    tt_wire_tag_welcome(self->key_acceptor, link->shaken, frame, out, welcome.tag);
    tt_wire_pack_welcome(&welcome, out);
    make_ready(link, self);
    return send_frame(link, out, sizeof(out));
}

static enum tt_link_result on_welcome(struct tt_link *link, const struct tt_link_self *self)
{
    struct tt_wire_welcome welcome;
    unsigned char tag[TT_WIRE_TAG_BYTES];

    if (tt_wire_parse_welcome(link->in, link->n_in, &welcome) != 0)
        return TT_LINK_LIES;
    tt_wire_tag_welcome(self->key_acceptor, link->shaken, link->shaken + TT_WIRE_CHALLENGE_BYTES,
                        link->in, tag);
    if (!tt_equal_secret(tag, welcome.tag, sizeof(tag)) || welcome.status != TT_WIRE_JOINED)
        return TT_LINK_LIES;
    link->pid = welcome.pid;
    make_ready(link, self);
    return TT_LINK_FINE;
}

/* ---- receiving ---- */

static size_t wanted(const struct tt_link *link)
{
    switch (link->state) {
    case TT_LINK_WANTS_CHALLENGE: return TT_WIRE_CHALLENGE_BYTES;
    case TT_LINK_WANTS_WELCOME: return TT_WIRE_WELCOME_BYTES;
    case TT_LINK_WANTS_PROOF: return TT_WIRE_PROOF_BYTES;
    case TT_LINK_READY: return TT_NOTICE_BYTES;
    case TT_LINK_CONNECTING: break;
    }
    return 0;
}

static enum tt_link_result on_frame(struct tt_link *link, const struct tt_link_self *self,
                                    tt_link_notice_fn notice, void *context)
{
    struct tt_notice said;

    switch (link->state) {
    case TT_LINK_WANTS_CHALLENGE: return on_challenge(link, self);
    case TT_LINK_WANTS_WELCOME: return on_welcome(link, self);
    case TT_LINK_WANTS_PROOF: return on_proof(link, self);
    case TT_LINK_CONNECTING: return TT_LINK_FINE;
    case TT_LINK_READY: break;
    }
    if (tt_notice_parse(link->key_in, link->n_read, link->in, link->n_in, self->n_ranks, &said) !=
        0)
        return TT_LINK_LIES;
    link->n_read++;
    notice(context, link->rank, &said);
    return TT_LINK_FINE;
}

static enum tt_link_result finish_connect(struct tt_link *link)
{
    errno = tt_boot_connect_finish(link->fd);
    if (errno)
        return TT_LINK_CLOSED;
    link->state = TT_LINK_WANTS_CHALLENGE;
    return TT_LINK_FINE;
}

static enum tt_link_result receive(struct tt_link *link, const struct tt_link_self *self,
                                   tt_link_notice_fn notice, void *context)
{
    enum tt_link_result result = TT_LINK_FINE;

    for (int i = 0; i < MOST_FRAMES && result == TT_LINK_FINE; i++) {
        const size_t want = wanted(link);
        long n = tt_boot_recv_some(link->fd, link->in + link->n_in, want - link->n_in);

        if (n < 0)
            return TT_LINK_CLOSED;
        link->n_in += (size_t)n;
        /* Other protocols are dropped at the first byte that is wrong. */
        if (link->state == TT_LINK_WANTS_PROOF && !tt_wire_is_proof_prefix(link->in, link->n_in))
            return TT_LINK_LIES;
        if (link->n_in < want)
            break;
        result = on_frame(link, self, notice, context);
        link->n_in = 0;
    }
    return result;
}

enum tt_link_result tt_link_step(struct tt_link *link, const struct tt_link_self *self,
                                 tt_link_notice_fn notice, void *context)
{
    enum tt_link_result result = TT_LINK_FINE, sent;
    int error;

    if (link->state == TT_LINK_CONNECTING)
        result = finish_connect(link);
    if (result != TT_LINK_FINE)
        return result;
    sent = send_rest(link);
    error = errno;
    result =
        receive(link, self, notice, context); /* who takes nothing any more may have said why */
    if (sent == TT_LINK_FINE || result == TT_LINK_LIES)
        return result;
    errno = error;
    return sent;
}
