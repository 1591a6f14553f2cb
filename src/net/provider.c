/* Which provider this build and its environment have, and what it would use. */
#include "net/provider.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/error.h"
#include "net/interface.h"
#include "net/net.h"

enum choice { AUTO, UCX, OFF };

static enum choice wanted(void)
{
    int choice = AUTO;

    /* A word that is none of these has been refused by tt_net_missing() before it matters here. */
    return tt_env_choice(TT_ENV_TUTTI_NET, &choice) == TUTTI_OK ? (enum choice)choice : OFF;
}

const struct tt_net_provider *tt_provider_default(void)
{
#ifdef TUTTI_HAVE_UCX
    return wanted() == OFF ? NULL : &tt_ucx_provider;
#else
    return NULL;
#endif
}

const char *tt_net_missing(void)
{
    const struct tt_net_provider *provider = tt_provider_default();

    if (provider)
        return provider->missing();
    return wanted() == OFF ? "the network is switched off by TUTTI_NET"
                           : "this build has no network: build tutti where UCX's headers are "
                             "(Debian: libucx-dev)";
}

void tt_net_library_text(char *out, size_t bytes)
{
    const struct tt_net_provider *provider = tt_provider_default();

    if (provider && provider->missing()[0] == 0)
        provider->describe(out, bytes);
    else
        snprintf(out, bytes, "none");
}

tutti_result tt_net_place_text(char *out, size_t bytes)
{
    struct tt_net_subnet mine[TT_NET_MAX_SUBNETS];
    char devices[TT_NET_DEVICES_BYTES];
    const struct tt_net_near near = {0};
    struct tt_net_place place;
    tutti_result result;

    tt_net_list_devices(devices, sizeof(devices));
    snprintf(out, bytes, "none of %s", devices);
    if (tt_net_subnets(mine) == 0)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "no interface is up but the loopback");
    result = tt_net_choose(NULL, mine, 1, &near, &place);
    if (result == TUTTI_OK)
        snprintf(out, bytes, "%s, address %s; there are %s%s", place.devices, place.text, devices,
                 strchr(devices, ':') ? ", of whose ports each rank takes the nearest" : "");
    return result;
}
