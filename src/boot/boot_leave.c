/* Rank 0's side of leaving: why a rank gave up, whose fault a death really was, and telling all. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "boot/boot_parts.h"
#include "boot/boot_socket.h"

#define REST_MS   200 /* for the text behind a header, which was sent with it */
#define REASON_MS 100 /* for a rank that is said to be gone to say why */
#define MS        UINT64_C(1000000)

enum heard { NOTHING, GAVE_UP, ANYTHING_ELSE };

/* Peers are told in one short frame each, which fits unless a longer one is still under way. */
tutti_result tt_boot_root_fail(struct tt_boot *boot, tutti_result code)
{
    unsigned char out[TT_WIRE_HEADER_BYTES + TT_WIRE_MAX_TEXT];
    size_t n_out = tt_wire_pack_reason(TT_WIRE_ERROR, boot->sequence, code, tt_error_text(), out);

    for (int i = 1; i < boot->n_ranks; i++) {
        struct tt_boot_peer *peer = &boot->peers[i];

        if (peer->fd < 0 || peer->state == TT_BOOT_ABSENT)
            continue;
        if (peer->step != TT_BOOT_SENDING || peer->n_data == 0)
            (void)tt_boot_send_some(peer->fd, out, n_out);
        shutdown(peer->fd, SHUT_WR);
    }
    return code;
}

/* What of `bytes` arrives soon; less only from a rank that died in the middle, or is not one of ours. */
static size_t read_rest(int fd, unsigned char *out, size_t bytes)
{
    uint64_t end = tt_now_ns() + REST_MS * MS;
    size_t done = 0;

    while (done < bytes) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        long n = tt_boot_recv_some(fd, out + done, bytes - done);

        if (n < 0 || tt_now_ns() >= end)
            break;
        done += (size_t)n;
        if (n == 0)
            (void)poll(&wait, 1, tt_boot_poll_ms(end, NULL, REST_MS));
    }
    return done;
}

/* IN_PROGRESS: it gave no reason, but asks who is missing. */
static tutti_result reason_of(struct tt_boot *boot, int rank, const struct tt_wire_header *header)
{
    struct tt_boot_peer *peer = &boot->peers[rank];
    tutti_result code = tt_wire_parse_result(header->value);
    unsigned char raw[TT_WIRE_MAX_TEXT];
    char text[TT_WIRE_MAX_TEXT + 1];

    peer->has_left = 1;
    tt_wire_parse_text(raw, read_rest(peer->fd, raw, header->bytes), text, sizeof(text));
    if (code == TUTTI_E_ABORTED)
        return TT_FAIL(code, "rank %d (process %u) aborted while ranks were wiring up", rank,
                       peer->pid);
    if (header->bytes == 0)
        return TUTTI_IN_PROGRESS;
    return TT_FAIL(code, "rank %d (process %u) gave up: %s", rank, peer->pid, text);
}

/* Whether the rank's next frame, as far as it is here, is that it gives up. */
static enum heard hear(struct tt_boot_peer *peer, struct tt_wire_header *header_out)
{
    size_t n_left = sizeof(peer->header) - peer->n_header;
    long n = n_left > 0 ? tt_boot_recv_some(peer->fd, peer->header + peer->n_header, n_left) : -1;

    if (n < 0)
        return ANYTHING_ELSE;
    peer->n_header += (size_t)n;
    if (peer->n_header < sizeof(peer->header))
        return NOTHING;
    return tt_wire_parse_header(peer->header, sizeof(peer->header), 0, 1, header_out) == 0 &&
                   header_out->type == TT_WIRE_GIVE_UP
               ? GAVE_UP
               : ANYTHING_ELSE;
}

/* Somebody found a rank gone (this thread's error text says so). It may have left for a reason of its
 * own, which is then on its way to us and is worth more. */
static tutti_result look_behind(struct tt_boot *boot)
{
    uint64_t end = tt_now_ns() + REASON_MS * MS;
    char found[TT_WIRE_MAX_TEXT + 1];
    int n_silent;

    snprintf(found, sizeof(found), "%s", tt_error_text());
    do {
        n_silent = 0;
        for (int rank = 1; rank < boot->n_ranks; rank++) {
            struct tt_boot_peer *peer = &boot->peers[rank];
            struct tt_wire_header header;
            tutti_result result = TUTTI_IN_PROGRESS;

            if (peer->fd < 0 || peer->state != TT_BOOT_JOINED || peer->has_left)
                continue;
            enum heard heard = hear(peer, &header);

            /* Who waits for the answer of an exchange has no failure of its own. */
            n_silent += heard == NOTHING && peer->step != TT_BOOT_COLLECTED;
            peer->has_left = heard == ANYTHING_ELSE;
            if (heard == GAVE_UP)
                result = reason_of(boot, rank, &header);
            if (result != TUTTI_IN_PROGRESS && result != TUTTI_E_PEER)
                return result;
        }
    } while (n_silent > 0 && tt_now_ns() < end && poll(NULL, 0, 1) == 0);
    return TT_FAIL(TUTTI_E_PEER, "%s", found);
}

tutti_result tt_boot_root_gave_up(struct tt_boot *boot, int rank,
                                  const struct tt_wire_header *header)
{
    tutti_result result = reason_of(boot, rank, header);

    return result == TUTTI_E_PEER ? look_behind(boot) : result;
}

tutti_result tt_boot_root_lost(struct tt_boot *boot, int rank, const char *when)
{
    struct tt_boot_peer *peer = &boot->peers[rank];
    struct tt_wire_header header;

    if (hear(peer, &header) == GAVE_UP) {
        tutti_result result = tt_boot_root_gave_up(boot, rank, &header);

        if (result != TUTTI_IN_PROGRESS)
            return result;
    }
    return TT_FAIL(TUTTI_E_PEER, "rank %d (process %u) died or left %s", rank, peer->pid, when);
}

tutti_result tt_boot_root_give_up(struct tt_boot *boot, tutti_result why)
{
    char own[TT_WIRE_MAX_TEXT + 1];

    if (why == TUTTI_E_PEER)
        return tt_boot_root_fail(boot, look_behind(boot));
    snprintf(own, sizeof(own), "%s", tt_error_text());
    TT_FAIL(why, "rank 0 (process %d) gave up: %s", (int)getpid(), own);
    tt_boot_root_fail(boot, why);
    return TT_FAIL(why, "%s", own);
}
