/* Which provider this build and its environment have. */
#include "net/provider.h"

#include <stddef.h>

#include "base/env.h"
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
