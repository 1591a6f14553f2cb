/* Sockets of the rendezvous: all non-blocking, close-on-exec, without signals. */
#ifndef TT_BOOT_SOCKET_H
#define TT_BOOT_SOCKET_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/boot_address.h"

/* Listen on a port that the kernel chooses, at `address` or (NULL) on all interfaces. */
tutti_result tt_boot_listen_ephemeral(const struct tt_boot_address *address, int *fd_out,
                                      uint16_t *port_out);

/* Rank 0's listener: the one that the id names, or a new one on the id's address; waits until the
 * deadline for an address that is in use. */
tutti_result tt_boot_listen(const struct tt_boot_id *id, uint64_t deadline_ns,
                            const atomic_int *abort, int *fd_out);

/* The descriptor that listens for an id that tutti_unique_id_create() made in this process; -1: there is none. */
int tt_boot_listener_of(const struct tt_boot_id *id);

/* For a text about ranks that did not come: " (...)" if the id's address is none of this host as far as it knows,
 * else "". Where addresses are translated that may be right. Looks up names. */
const char *tt_boot_listen_doubt(const struct tt_boot_id *id);

/* Stop listening even if a forked child still holds the descriptor, and close. -1 is fine. */
void tt_boot_listener_close(int fd);

/* 0 once connected, EINPROGRESS, or another errno; *fd_out is -1 for the latter. */
int tt_boot_connect(const struct tt_boot_endpoint *endpoint, int *fd_out);

/* Outcome of a connect that was in progress: 0 or an errno. */
int tt_boot_connect_finish(int fd);

/* 0, or -1 if the other end of a local socket is another user (always 0 for TCP). */
int tt_boot_check_user(int fd, int *uid_out);

/* One send or receive. Bytes done; 0 for "not now"; -1 for an error or the end, with errno (0: end). */
long tt_boot_send_some(int fd, const void *data, size_t bytes);
long tt_boot_recv_some(int fd, void *data, size_t bytes);

/* Milliseconds that a poll may last: until the deadline, never more than `most`, and no longer than
 * the abort flag may go unread. */
int tt_boot_poll_ms(uint64_t deadline_ns, const atomic_int *abort, int most);

int tt_boot_is_aborted(const atomic_int *abort);

#endif
