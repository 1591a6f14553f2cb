/* Public functions: channels. What one does with a channel is inline, in <tutti/device_channel.h>. */
#include <string.h>

#include "base/error.h"
#include "coll/channel.h"

tutti_result tutti_channel_set_create(tutti_comm *comm, void *memory, size_t bytes,
                                      const tutti_channel_config *config,
                                      tutti_channel_set **set_out)
{
    if (!comm || !set_out)
        return TT_FAIL(TUTTI_E_ARG, "channel_set_create: a pointer is NULL");
    return tt_channel_set_create(comm, memory, bytes, config, set_out);
}

tutti_result tutti_channel_set_destroy(tutti_channel_set *set)
{
    return set ? tt_channel_set_destroy(set) : TUTTI_OK;
}

tutti_result tutti_channel_set_status(tutti_channel_set *set)
{
    if (!set)
        return TT_FAIL(TUTTI_E_ARG, "channel_set_status: set is NULL");
    return tt_channel_set_status(set);
}

tutti_result tutti_channel_set_query(const tutti_channel_set *set, tutti_channel_info *info)
{
    tutti_channel_info own = {.size = sizeof(own)};

    if (!set || !info)
        return TT_FAIL(TUTTI_E_ARG, "channel_set_query: a pointer is NULL");
    if (info->size != sizeof(own))
        return TT_FAIL(TUTTI_E_ARG, "info.size is %u: set it to sizeof(tutti_channel_info)",
                       info->size);
    tt_channel_set_query(set, &own);
    *info = own;
    return TUTTI_OK;
}

tutti_result tutti_channel_get(tutti_channel_set *set, int peer, uint32_t index,
                               tutti_channel_place place, tutti_channel *channel_out)
{
    if (!set || !channel_out)
        return TT_FAIL(TUTTI_E_ARG, "channel_get: a pointer is NULL");
    return tt_channel_get(set, peer, index, place, channel_out);
}

tutti_result tutti_channel_pause(const tutti_channel *channel, tutti_channel_op op, uint64_t value,
                                 uint64_t *since_ns)
{
    if (!channel->set)
        return TT_FAIL(TUTTI_E_ARG, "host code uses the channel of a kernel: TUTTI_CHANNEL_HOST");
    return tt_channel_pause(channel, op, value, since_ns);
}

void tutti_channel_kick(const tutti_channel *channel)
{
    if (channel->set)
        tt_channel_kick(channel);
}

tutti_result tutti_channel_refuse(const tutti_channel *channel, tutti_channel_op op, uint64_t at,
                                  uint64_t bytes)
{
    return tt_channel_refuse(channel, op, at, bytes);
}
