/* UCX's own settings, as a net needs them: given to this net's context only, not to the process. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/env.h"
#include "base/error.h"
#include "base/log.h"
#include "net/provider.h"
#include "net/ucx.h"

struct setting {
    const char *name, *value;
    unsigned from, to; /* minor versions of UCX that know it so */
};

#define ANY      999
#define PREFIXED 17 /* first version that wants a transport's settings with its name before them */

static const char *name_of(const struct tt_ucx *ucx, const char *name)
{
    const int is_prefixed = strncmp(name, "TCP_", 4) == 0;

    return is_prefixed && !tt_ucx_is_at_least(ucx, PREFIXED) ? name + 4 : name;
}

tutti_result tt_ucx_configure(const struct tt_ucx *ucx, const struct tt_provider_config *config,
                              ucp_config_t *settings)
{
    char timeout[32];
    const struct setting table[] = {
        /* Where UCX listens: it opens a socket on every device it may use. */
        {"NET_DEVICES", config->devices, 0, ANY},
        {"TCP_AF_PRIO", config->family == AF_INET6 ? "inet6" : "inet", 0, ANY},
        /* Segments of 8 KiB, the default, cost four fifths of the bandwidth. */
        {"TCP_TX_SEG_SIZE", "256k", 0, ANY},
        {"TCP_RX_SEG_SIZE", "256k", 0, ANY},
        {"TCP_MAX_NUM_EPS", "inf", 0, ANY},
        /* Shared memory is never the way, but takes 4 MiB of /dev/shm for every net (containers have 64). */
        {"TLS", "^sm", 0, ANY},
        /* Whether a message has left is known of those that are not copied (queued_bytes). */
        {"ZCOPY_THRESH", "32k", 0, ANY},
        {"TCP_USER_TIMEOUT", timeout, 22, ANY},
        /* A fence that orders and does not wait; 1.13 has no other. All puts take one way. */
        {"FENCE_MODE", "weak", 14, 18},
        {"FENCE_MODE", "ep_based", 19, ANY},
        {"MAX_RMA_RAILS", "1", 14, ANY},
    };

    snprintf(timeout, sizeof(timeout), "%llums", (unsigned long long)config->lost_ns / 1000000);
    for (size_t i = 0; i < TT_LEN(table); i++) {
        const struct setting *s = &table[i];
        char variable[48];
        ucs_status_t status;

        snprintf(variable, sizeof(variable), "UCX_%s", s->name);
        if (!tt_ucx_is_at_least(ucx, s->from) || tt_ucx_is_at_least(ucx, s->to + 1) ||
            (i > 0 && tt_env_foreign(variable)))
            continue;
        status = ucx->ucp_config_modify(settings, name_of(ucx, s->name), s->value);
        if (status == UCS_OK)
            continue;
        if (i < 2) /* rather no network than one that listens everywhere */
            return TT_FAIL(TUTTI_E_UNSUPPORTED, "UCX %u.%u does not take %s=%s: %s", ucx->major,
                           ucx->minor, s->name, s->value, ucx->ucs_status_string(status));
        TT_LOG(TUTTI_LOG_DEBUG, config->rank, config->n_ranks, "UCX %u.%u does not take %s=%s: %s",
               ucx->major, ucx->minor, s->name, s->value, ucx->ucs_status_string(status));
    }
    return TUTTI_OK;
}
