/* The rendezvous as its callers see it. */
#include "boot/boot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "boot/boot_parts.h"

void tt_boot_rank_list(const struct tt_boot *boot, int (*is_absent)(const struct tt_boot_peer *),
                       char *out, size_t bytes)
{
    int n_listed = 0;
    size_t n = 0;

    out[0] = 0;
    for (int first = 1; first < boot->n_ranks; first++) {
        int last = first;

        if (!is_absent(&boot->peers[first]))
            continue;
        while (last + 1 < boot->n_ranks && is_absent(&boot->peers[last + 1]))
            last++;
        if (n + 40 > bytes) {
            snprintf(out + n, bytes - n, ", ...");
            break;
        }
        n += (size_t)snprintf(out + n, bytes - n, "%s%d", n_listed++ ? ", " : "", first);
        if (last > first)
            n += (size_t)snprintf(out + n, bytes - n, "-%d", last);
        n_listed += last > first;
        first = last;
    }

    char list[TT_BOOT_LIST_BYTES];

    snprintf(list, sizeof(list), "%s", out);
    snprintf(out, bytes, "%s %s", n_listed == 1 ? "rank" : "ranks", list);
}

double tt_boot_waited_s(const struct tt_boot *boot)
{
    const uint64_t now = tt_now_ns();
    const uint64_t end = now < boot->deadline_ns ? now : boot->deadline_ns;

    /* Not how late the scheduler let us notice: the time that the user gave, which began a little
     * before start_ns. So it is rounded; if to nothing, then up. */
    const uint64_t hundredths = (end - boot->start_ns + 5000000) / 10000000;
    const uint64_t ms = (end - boot->start_ns) / 1000000 + 1;

    return hundredths ? (double)hundredths / 100 : (double)ms / 1000;
}

static tutti_result check_args(const struct tt_boot_args *args, struct tt_boot *boot)
{
    if (args->n_ranks < 1 || args->n_ranks > TT_WIRE_MAX_RANKS)
        return TT_FAIL(TUTTI_E_ARG, "n_ranks %d is not in 1 .. %d", args->n_ranks,
                       TT_WIRE_MAX_RANKS);
    if (args->rank < 0 || args->rank >= args->n_ranks)
        return TT_FAIL(TUTTI_E_ARG, "rank %d is not in 0 .. %d", args->rank, args->n_ranks - 1);
    if (tt_boot_id_parse(&args->id, &boot->id) != 0)
        return TT_FAIL(TUTTI_E_ARG, "the unique id is damaged or was never filled in");
    return TUTTI_OK;
}

static tutti_result open_root(struct tt_boot *boot)
{
    boot->peers = calloc((size_t)boot->n_ranks, sizeof(*boot->peers));
    if (!boot->peers)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the rendezvous of %d ranks", boot->n_ranks);
    for (int i = 0; i < boot->n_ranks; i++)
        boot->peers[i].fd = -1;
    return tt_boot_root_join(boot);
}

static tutti_result open_rank(const struct tt_boot_args *args, struct tt_boot **boot_out)
{
    struct tt_boot *boot = calloc(1, sizeof(*boot));

    if (!boot)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the rendezvous");
    boot->fd = -1;
    boot->epoll_fd = -1;
    boot->rank = args->rank;
    boot->n_ranks = args->n_ranks;
    boot->deadline_ns = args->deadline_ns;
    boot->start_ns = tt_now_ns();
    boot->abort = args->abort;

    tutti_result result = check_args(args, boot);

    if (result == TUTTI_OK) {
        tt_boot_derive_key(&args->id, "tutti join", boot->join_key);
        tt_boot_derive_key(&args->id, "tutti root", boot->root_key);
        tt_boot_id_where(&boot->id, boot->where, sizeof(boot->where));
        result = boot->rank == 0 ? open_root(boot) : tt_boot_join(boot);
    }
    if (result != TUTTI_OK) {
        if (boot->fd >= 0)
            result = tt_boot_joiner_give_up(boot, result);
        tt_boot_close(boot);
        return result;
    }
    *boot_out = boot;
    return TUTTI_OK;
}

tutti_result tt_boot_open(const struct tt_boot_args *args, struct tt_boot **boot_out)
{
    const tutti_result result = open_rank(args, boot_out);

    if (result != TUTTI_OK && args->rank == 0) /* it may have failed before it came to listen */
        tt_boot_id_discard(&args->id);
    return result;
}

static tutti_result keep_failure(struct tt_boot *boot, tutti_result result)
{
    boot->failed = result;
    snprintf(boot->failed_text, sizeof(boot->failed_text), "%s", tt_error_text());
    return result;
}

tutti_result tt_boot_all_gather(struct tt_boot *boot, const void *send, void *recv, size_t bytes)
{
    tutti_result result;

    if (boot->failed != TUTTI_OK)
        return TT_FAIL(boot->failed, "%s", boot->failed_text);
    if (bytes > TT_BOOT_MAX_RECORD)
        return TT_FAIL(TUTTI_E_ARG, "a record of %zu bytes is longer than %d", bytes,
                       TT_BOOT_MAX_RECORD);
    boot->sequence++;
    if (boot->rank == 0)
        result = tt_boot_root_gather(boot, send, recv, bytes);
    else
        result = tt_boot_joiner_gather(boot, send, recv, bytes);
    if (result != TUTTI_OK && boot->rank > 0)
        result = tt_boot_joiner_give_up(boot, result);
    return result == TUTTI_OK ? TUTTI_OK : keep_failure(boot, result);
}

tutti_result tt_boot_give_up(struct tt_boot *boot, tutti_result why)
{
    if (boot->failed != TUTTI_OK) /* all know it */
        return why;
    return keep_failure(boot, boot->rank == 0 ? tt_boot_root_give_up(boot, why)
                                              : tt_boot_joiner_give_up(boot, why));
}

unsigned tt_boot_refused(const struct tt_boot *boot)
{
    return boot->n_bad_secret + boot->n_stranger;
}

void tt_boot_close(struct tt_boot *boot)
{
    if (!boot)
        return;
    for (int i = 0; boot->peers && i < boot->n_ranks; i++) {
        if (boot->peers[i].fd >= 0)
            close(boot->peers[i].fd);
    }
    if (boot->fd >= 0)
        close(boot->fd);
    if (boot->epoll_fd >= 0)
        close(boot->epoll_fd);
    free(boot->peers);
    explicit_bzero(boot, sizeof(*boot)); /* it held the secret */
    free(boot);
}
