/*
 * Channels (include/tutti/device.h) behind the public functions. A set has a window of the ranks' memory and
 * one of its own words, through which memory channels go, and ports: proxies, each with a network of its own.
 * docs/design/channels.md
 */
#ifndef TT_COLL_CHANNEL_H
#define TT_COLL_CHANNEL_H

#include <tutti/device.h>

tutti_result tt_channel_set_create(tutti_comm *comm, void *memory, size_t bytes,
                                   const tutti_channel_config *config, tutti_channel_set **set_out);
tutti_result tt_channel_set_destroy(tutti_channel_set *set);
tutti_result tt_channel_set_status(tutti_channel_set *set);
void tt_channel_set_query(const tutti_channel_set *set, tutti_channel_info *info);
tutti_result tt_channel_get(tutti_channel_set *set, int peer, uint32_t index,
                            tutti_channel_place place, tutti_channel *channel_out);
tutti_result tt_channel_pause(const tutti_channel *channel, tutti_channel_op op, uint64_t value,
                              uint64_t *since_ns);
void tt_channel_kick(const tutti_channel *channel);
tutti_result tt_channel_refuse(const tutti_channel *channel, tutti_channel_op op, uint64_t at,
                               uint64_t bytes);

/* Of a communicator, which calls these when it is aborted, has failed or is destroyed: before its engines
 * are, and after. */
void tt_channels_abort(const tutti_comm *comm); /* any thread */
void tt_channels_end_kernels(const tutti_comm *comm);
void tt_channels_stop(tutti_comm *comm);
void tt_channels_free(tutti_comm *comm);

#endif
