/* A joined rank's side of the all-gather, and of waiting for rank 0's word in general. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "boot/boot_parts.h"
#include "boot/boot_socket.h"

#define POLL_MS      1000
#define LAST_WORD_MS 500 /* for rank 0 to say who is missing, after our own deadline */

static tutti_result root_left(struct tt_boot *boot)
{
    boot->is_over = 1;
    return TT_FAIL(TUTTI_E_PEER, "rank 0 at %s died or left while ranks were wiring up",
                   boot->where);
}

/* TUTTI_OK when all is here, IN_PROGRESS at the deadline. */
static tutti_result transfer(struct tt_boot *boot, void *data, size_t bytes, int is_send,
                             uint64_t deadline_ns)
{
    unsigned char *p = data;
    size_t done = 0;

    while (done < bytes) {
        long n = is_send ? tt_boot_send_some(boot->fd, p + done, bytes - done)
                         : tt_boot_recv_some(boot->fd, p + done, bytes - done);

        if (n < 0)
            return root_left(boot);
        done += (size_t)n;
        if (n > 0)
            continue;

        struct pollfd wait = {.fd = boot->fd, .events = is_send ? POLLOUT : POLLIN};
        int ms = tt_boot_poll_ms(deadline_ns, boot->abort, POLL_MS);

        if (tt_boot_is_aborted(boot->abort))
            return TT_FAIL(TUTTI_E_ABORTED, "rank %d aborted while wiring up", boot->rank);
        if (ms == 0)
            return TUTTI_IN_PROGRESS;
        if (poll(&wait, 1, ms) < 0 && errno != EINTR)
            return TT_FAIL_SYS("cannot wait for rank 0");
    }
    return TUTTI_OK;
}

static void give_up(struct tt_boot *boot, tutti_result code, const char *text)
{
    unsigned char out[TT_WIRE_HEADER_BYTES + TT_WIRE_MAX_TEXT];
    size_t n_out = tt_wire_pack_reason(TT_WIRE_GIVE_UP, boot->sequence, code, text, out);

    if (!boot->is_over)
        (void)tt_boot_send_some(boot->fd, out, n_out);
    boot->is_over = 1;
}

static tutti_result read_error(struct tt_boot *boot, const struct tt_wire_header *header,
                               uint64_t deadline_ns)
{
    unsigned char raw[TT_WIRE_MAX_TEXT];
    char text[TT_WIRE_MAX_TEXT + 1];
    tutti_result result = transfer(boot, raw, header->bytes, 0, deadline_ns);

    boot->is_over = 1;
    if (result < TUTTI_OK)
        return result;
    tt_wire_parse_text(raw, result == TUTTI_OK ? header->bytes : 0, text, sizeof(text));
    return TT_FAIL(tt_wire_parse_result(header->value), "%s", text);
}

tutti_result tt_boot_joiner_expect(struct tt_boot *boot, enum tt_wire_type type,
                                   struct tt_wire_header *header_out)
{
    unsigned char in[TT_WIRE_HEADER_BYTES];
    uint64_t last_word_ns = boot->deadline_ns + LAST_WORD_MS * UINT64_C(1000000);
    tutti_result result = transfer(boot, in, sizeof(in), 0, boot->deadline_ns);

    if (result == TUTTI_IN_PROGRESS) { /* rank 0 knows who is missing: let it say so */
        give_up(boot, TUTTI_E_TIMEOUT, "");
        result = transfer(boot, in, sizeof(in), 0, last_word_ns);
    }
    if (result == TUTTI_E_ABORTED)
        give_up(boot, TUTTI_E_ABORTED, "");
    if (result == TUTTI_IN_PROGRESS)
        return TT_FAIL(TUTTI_E_TIMEOUT, "rank 0 at %s did not answer within %.3g s", boot->where,
                       tt_boot_waited_s(boot));
    if (result != TUTTI_OK)
        return result;
    if (tt_wire_parse_header(in, sizeof(in), 1, boot->n_ranks, header_out) != 0)
        return TT_FAIL(TUTTI_E_INTERNAL, "rank 0 at %s sent what is no message", boot->where);
    if (header_out->type == TT_WIRE_ERROR)
        return read_error(boot, header_out, last_word_ns);
    if (header_out->type != (uint32_t)type)
        return TT_FAIL(TUTTI_E_INTERNAL, "rank 0 sent message %u instead of %d", header_out->type,
                       (int)type);
    return TUTTI_OK;
}

tutti_result tt_boot_joiner_give_up(struct tt_boot *boot, tutti_result why)
{
    uint64_t last_word_ns = tt_now_ns() + LAST_WORD_MS * UINT64_C(1000000);
    char own[TT_WIRE_MAX_TEXT + 1];
    unsigned char in[TT_WIRE_HEADER_BYTES];
    struct tt_wire_header header;

    if (boot->is_over)
        return why;
    give_up(boot, why, tt_error_text());
    if (why != TUTTI_E_PEER)
        return why;
    /* The rank that is gone may have told rank 0 more than we can see from here. */
    snprintf(own, sizeof(own), "%s", tt_error_text());
    if (transfer(boot, in, sizeof(in), 0, last_word_ns) == TUTTI_OK &&
        tt_wire_parse_header(in, sizeof(in), 1, boot->n_ranks, &header) == 0 &&
        header.type == TT_WIRE_ERROR) {
        tutti_result verdict = read_error(boot, &header, last_word_ns);

        if (verdict != TUTTI_E_PEER && verdict != TUTTI_E_ABORTED)
            return verdict;
    }
    return TT_FAIL(why, "%s", own);
}

tutti_result tt_boot_joiner_gather(struct tt_boot *boot, const void *send, void *recv, size_t bytes)
{
    unsigned char out[TT_WIRE_HEADER_BYTES + TT_BOOT_MAX_RECORD];
    size_t all = bytes * (size_t)boot->n_ranks;
    struct tt_wire_header header = {.type = TT_WIRE_DATA, .sequence = boot->sequence};
    tutti_result result;

    header.bytes = (uint32_t)bytes;
    tt_wire_pack_header(&header, out);
    if (bytes > 0)
        memcpy(out + TT_WIRE_HEADER_BYTES, send, bytes);
    /* If rank 0 has closed on us, its last message, which says why, is still here to be read. */
    result = transfer(boot, out, TT_WIRE_HEADER_BYTES + bytes, 1, boot->deadline_ns);
    if (result != TUTTI_OK)
        boot->is_over = 1; /* nothing can follow a part of a record */
    if (result < TUTTI_OK && result != TUTTI_E_PEER)
        return result;
    TT_TRY(tt_boot_joiner_expect(boot, TT_WIRE_DATA, &header));
    if (header.sequence != boot->sequence || header.bytes != all)
        return TT_FAIL(TUTTI_E_INTERNAL,
                       "rank 0 answered exchange %u with %u bytes, not %u with %zu",
                       header.sequence, header.bytes, boot->sequence, all);
    result = transfer(boot, recv, all, 0, boot->deadline_ns);
    if (result == TUTTI_IN_PROGRESS)
        return TT_FAIL(TUTTI_E_TIMEOUT, "rank 0 at %s sent only a part of exchange %u", boot->where,
                       boot->sequence);
    return result;
}
