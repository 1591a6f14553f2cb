/* Rank 0's side of the all-gather: collect a record of every rank, then send all to all. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.h"
#include "boot/boot_parts.h"
#include "boot/boot_socket.h"

#define EVENTS_PER_ROUND 256
#define POLL_MS          1000
#define SENDING_AT_ONCE  64 /* bounds the kernel's memory for answers that nobody has read yet */

struct gather {
    struct tt_boot *boot;
    unsigned char *answer; /* header and all records */
    size_t answer_bytes;
    size_t bytes; /* of a record */
    int n_left;
};

static tutti_result lost(const struct gather *gather, int rank)
{
    return tt_boot_root_lost(gather->boot, rank, "while ranks were wiring up");
}

static int is_late(const struct tt_boot_peer *peer)
{
    return peer->step == TT_BOOT_COLLECTING || peer->step == TT_BOOT_SENDING;
}

static tutti_result fail_late(const struct gather *gather)
{
    const struct tt_boot *boot = gather->boot;
    char list[TT_BOOT_LIST_BYTES];

    tt_boot_rank_list(boot, is_late, list, sizeof(list));
    return TT_FAIL(
        TUTTI_E_TIMEOUT,
        "%s of %d joined but did not take part in exchange %u of wiring up within %.3g s", list,
        boot->n_ranks, boot->sequence, tt_boot_waited_s(boot));
}

static tutti_result check_header(const struct gather *gather, int rank)
{
    const struct tt_boot *boot = gather->boot;
    const struct tt_boot_peer *peer = &boot->peers[rank];
    struct tt_wire_header header;

    if (tt_wire_parse_header(peer->header, sizeof(peer->header), 0, 1, &header) != 0 ||
        (header.type != TT_WIRE_DATA && header.type != TT_WIRE_GIVE_UP))
        return TT_FAIL(TUTTI_E_INTERNAL, "rank %d sent what is no message of this exchange", rank);
    if (header.type == TT_WIRE_GIVE_UP) {
        tutti_result result = tt_boot_root_gave_up(gather->boot, rank, &header);

        return result == TUTTI_IN_PROGRESS ? fail_late(gather) : result;
    }
    if (peer->step == TT_BOOT_COLLECTED)
        return TT_FAIL(TUTTI_E_INTERNAL, "rank %d sent a second record for exchange %u", rank,
                       boot->sequence);
    if (header.sequence != boot->sequence || header.bytes != gather->bytes)
        return TT_FAIL(TUTTI_E_MISMATCH,
                       "rank %d is at exchange %u with %u bytes, rank 0 at exchange %u with %zu: "
                       "do all ranks give the same settings?",
                       rank, header.sequence, header.bytes, boot->sequence, gather->bytes);
    return TUTTI_OK;
}

static tutti_result collect_from(struct gather *gather, int rank)
{
    struct tt_boot_peer *peer = &gather->boot->peers[rank];
    unsigned char *record = gather->answer + TT_WIRE_HEADER_BYTES + (size_t)rank * gather->bytes;
    long n;

    if (peer->n_header < sizeof(peer->header)) {
        n = tt_boot_recv_some(peer->fd, peer->header + peer->n_header,
                              sizeof(peer->header) - peer->n_header);
        if (n < 0)
            return lost(gather, rank);
        peer->n_header += (size_t)n;
        if (peer->n_header < sizeof(peer->header))
            return TUTTI_OK;
        TT_TRY(check_header(gather, rank));
    }
    if (peer->n_data < gather->bytes) {
        n = tt_boot_recv_some(peer->fd, record + peer->n_data, gather->bytes - peer->n_data);
        if (n < 0)
            return lost(gather, rank);
        peer->n_data += (size_t)n;
    }
    if (peer->n_data == gather->bytes) {
        peer->step = TT_BOOT_COLLECTED;
        peer->n_header = 0; /* before the answer it can only give up now, or go */
        gather->n_left--;
    }
    return TUTTI_OK;
}

static tutti_result collect(struct gather *gather)
{
    struct epoll_event events[EVENTS_PER_ROUND];
    struct tt_boot *boot = gather->boot;

    gather->n_left = boot->n_ranks - 1;
    while (gather->n_left > 0) {
        int ms = tt_boot_poll_ms(boot->deadline_ns, boot->abort, POLL_MS);

        if (tt_boot_is_aborted(boot->abort))
            return TT_FAIL(TUTTI_E_ABORTED, "rank 0 aborted while wiring up");
        if (ms == 0)
            return fail_late(gather);
        int n = epoll_wait(boot->epoll_fd, events, EVENTS_PER_ROUND, ms);

        if (n < 0 && errno != EINTR)
            return TT_FAIL_SYS("rank 0 cannot wait for the ranks");
        for (int i = 0; i < n; i++)
            TT_TRY(collect_from(gather, (int)(uint32_t)events[i].data.u64));
    }
    return TUTTI_OK;
}

static tutti_result send_to(struct gather *gather, int rank)
{
    struct tt_boot_peer *peer = &gather->boot->peers[rank];

    while (peer->n_data < gather->answer_bytes) {
        long n = tt_boot_send_some(peer->fd, gather->answer + peer->n_data,
                                   gather->answer_bytes - peer->n_data);

        if (n < 0)
            return lost(gather, rank);
        if (n == 0)
            return TUTTI_OK;
        peer->n_data += (size_t)n;
    }
    peer->step = TT_BOOT_SENT;
    gather->n_left--;
    return TUTTI_OK;
}

/* Answers go to SENDING_AT_ONCE ranks at a time; the next rank starts when one has all. */
static tutti_result scatter(struct gather *gather)
{
    struct tt_boot *boot = gather->boot;
    struct pollfd polls[SENDING_AT_ONCE];
    int ranks[SENDING_AT_ONCE];
    int n = 0;
    int next = 1;

    gather->n_left = boot->n_ranks - 1;
    while (gather->n_left > 0) {
        while (n < SENDING_AT_ONCE && next < boot->n_ranks) {
            boot->peers[next].step = TT_BOOT_SENDING;
            boot->peers[next].n_data = 0;
            TT_TRY(send_to(gather, next));
            if (boot->peers[next].step == TT_BOOT_SENDING) {
                ranks[n] = next;
                polls[n++] = (struct pollfd){.fd = boot->peers[next].fd, .events = POLLOUT};
            }
            next++;
        }
        if (gather->n_left == 0)
            break;

        int ms = tt_boot_poll_ms(boot->deadline_ns, boot->abort, POLL_MS);

        if (tt_boot_is_aborted(boot->abort))
            return TT_FAIL(TUTTI_E_ABORTED, "rank 0 aborted while wiring up");
        if (ms == 0)
            return fail_late(gather);
        if (poll(polls, (nfds_t)n, ms) < 0 && errno != EINTR)
            return TT_FAIL_SYS("rank 0 cannot wait for the ranks");
        for (int i = n - 1; i >= 0; i--) {
            if (polls[i].revents)
                TT_TRY(send_to(gather, ranks[i]));
            if (boot->peers[ranks[i]].step == TT_BOOT_SENT) {
                n--;
                polls[i] = polls[n];
                ranks[i] = ranks[n];
            }
        }
    }
    return TUTTI_OK;
}

tutti_result tt_boot_root_gather(struct tt_boot *boot, const void *send, void *recv, size_t bytes)
{
    struct gather gather = {.boot = boot, .bytes = bytes};
    struct tt_wire_header header = {.type = TT_WIRE_DATA, .sequence = boot->sequence};
    size_t all = bytes * (size_t)boot->n_ranks;
    tutti_result result;

    gather.answer_bytes = TT_WIRE_HEADER_BYTES + all;
    gather.answer = malloc(gather.answer_bytes);
    if (!gather.answer) {
        TT_FAIL(TUTTI_E_MEMORY, "no memory to gather %zu bytes", all);
        return tt_boot_root_fail(boot, TUTTI_E_MEMORY);
    }
    header.bytes = (uint32_t)all;
    tt_wire_pack_header(&header, gather.answer);
    if (bytes > 0)
        memcpy(gather.answer + TT_WIRE_HEADER_BYTES, send, bytes);
    for (int i = 0; i < boot->n_ranks; i++) {
        boot->peers[i].n_data = 0;
        boot->peers[i].step = TT_BOOT_COLLECTING;
    }
    result = collect(&gather);
    if (result == TUTTI_OK)
        result = scatter(&gather);
    if (result == TUTTI_OK && bytes > 0)
        memcpy(recv, gather.answer + TT_WIRE_HEADER_BYTES, all);
    free(gather.answer);
    return result == TUTTI_OK ? TUTTI_OK : tt_boot_root_fail(boot, result);
}
