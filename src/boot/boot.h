/*
 * The rendezvous: ranks that know the id's secret find each other over TCP (or a local socket) and
 * exchange small records until the engines have their own ways. A star: rank 0 listens, everybody
 * else connects to it. Used at creation only, then closed.
 *
 * This is the only room that parses bytes from strangers: every connection proves, by HMAC over
 * fresh nonces of both sides, that it knows the secret before anything else of it is believed; every
 * length is bounded before it is used; a stranger that connects, stalls, floods or sends garbage can
 * not join, crash or hold up the job (docs/design/rendezvous.md).
 */
#ifndef TT_BOOT_BOOT_H
#define TT_BOOT_BOOT_H

#include <stdatomic.h>
#include <tutti/tutti.h>

struct tt_boot;

struct tt_boot_args {
    int rank;
    int n_ranks;
    tutti_unique_id id;
    uint64_t deadline_ns;    /* tt_now_ns() at which creation gives up */
    const atomic_int *abort; /* non-zero: give up with TUTTI_E_ABORTED; may be NULL */
};

/* Wire up. On timeout the text names the missing ranks ("ranks 3, 5-7 of 8 did not join"), on every
 * rank that can still be told. Two processes that claim one rank, a different n_ranks or another wire
 * version are told so (TUTTI_E_ARG, TUTTI_E_VERSION) on both sides where possible. */
tutti_result tt_boot_open(const struct tt_boot_args *args, struct tt_boot **boot_out);

/* `bytes` of every rank, in rank order, to every rank. At most TT_BOOT_MAX_RECORD bytes a rank. A
 * rank that disconnects is TUTTI_E_PEER naming it, on all ranks. Signature of tutti_exchange_fn's
 * cousin below so that engines do not care where their exchange comes from. */
tutti_result tt_boot_all_gather(struct tt_boot *boot, const void *send, void *recv, size_t bytes);
#define TT_BOOT_MAX_RECORD 4096

/* This rank cannot go on, for the reason in its error text. The others are told, so that they do not
 * take its leaving for its death. Returns what to report: `why`, or, where that is TUTTI_E_PEER and the
 * rank that is gone had told rank 0 a reason of its own, that reason, which is then the error text. */
tutti_result tt_boot_give_up(struct tt_boot *boot, tutti_result why);

/* This host's address on the way between rank 0 and this rank (of rank 0: and another host's rank, where
 * there is one). 1: it leads to another host; 0: only to this one; -1: there is none, since they met on a
 * local socket, or rank 0 is alone. Before tt_boot_close(). */
struct tt_boot_address;
int tt_boot_route(const struct tt_boot *boot, struct tt_boot_address *address_out);

/* Rank 0: how many connections were turned away, of strangers and with another secret. Others: 0. */
unsigned tt_boot_refused(const struct tt_boot *boot);

void tt_boot_close(struct tt_boot *boot); /* NULL is fine */

/* --- ids (boot_id.c) --- */

/* Behind the public functions of these names. */
tutti_result tt_boot_id_create(tutti_unique_id *id_out);
tutti_result tt_boot_id_to_text(const tutti_unique_id *id, char *text_out, size_t bytes);
tutti_result tt_boot_id_from_text(const char *text, tutti_unique_id *id_out);

/* Stop listening for an id that this process has made and nobody will use; nothing if it does not (any more). */
void tt_boot_id_discard(const tutti_unique_id *id);

/* An id for an address that is known beforehand (host:port, [v6]:port, unix:name): rank 0 binds it,
 * the others connect. The secret is derived from `secret_text`. */
tutti_result tt_boot_id_from_address(const char *address, const char *secret_text,
                                     tutti_unique_id *id_out);

/* 32 bytes for other rooms to authenticate with (fd passing), derived from the id's secret. */
void tt_boot_derive_key(const tutti_unique_id *id, const char *purpose, unsigned char key_out[32]);

/* --- rank, n_ranks and id from launchers (boot_env.c) --- */

struct tt_boot_env {
    int rank;
    int n_ranks;
    int have_id; /* 0 only if n_ranks is 1 */
    tutti_unique_id id;
    const char *launcher; /* "tutti run", "torchrun" ..., "none" */
};
tutti_result tt_boot_env_read(struct tt_boot_env *env_out);

/* --- passing file descriptors between ranks of one host (boot_fd.c) --- */

/* An exchange among the ranks that make up a group (all of a communicator, or those of a split). */
struct tt_exchange {
    int rank;    /* mine in the group */
    int n_ranks; /* of the group */
    tutti_result (*all_gather)(void *context, const void *send, void *recv, size_t bytes);
    void *context;
    uint64_t deadline_ns;
};

struct tt_fd_mesh;

struct tt_peer_credentials {
    int pid; /* in this process's pid namespace; 0 if it has no name there */
    int uid;
};

/* One bound Unix datagram socket per rank (abstract, random name) whose name is exchanged. Verifies
 * with a round of credentials that the ranks can reach each other: a peer in another network
 * namespace is TUTTI_E_UNSUPPORTED, one of another user TUTTI_E_AUTH, both naming the rank. */
tutti_result tt_fd_mesh_open(const struct tt_exchange *exchange, const unsigned char key[32],
                             struct tt_fd_mesh **mesh_out);

/* Collective over the mesh: every rank offers fd (or -1: none), and gets in fds_out[n_ranks] a new
 * descriptor for each rank's offer (-1 where none or where it is its own). The caller closes them.
 * `round` is a number that all ranks agree on and never use twice. Handles full queues and the
 * kernel's limit on descriptors in flight; never deadlocks; gives up at deadline_ns naming the rank. */
tutti_result tt_fd_mesh_exchange(struct tt_fd_mesh *mesh, uint64_t round, int fd, int fds_out[],
                                 uint64_t deadline_ns);

/* 1 if an exchange that ended so was the last one: a rank is gone, or did not come in time. After any
 * other failure this rank has done its part, and the others wait for it in the next one. */
static inline int tt_fd_mesh_is_over(tutti_result result)
{
    return result == TUTTI_E_PEER || result == TUTTI_E_TIMEOUT || result == TUTTI_E_ABORTED;
}

const struct tt_peer_credentials *tt_fd_mesh_peer(const struct tt_fd_mesh *mesh, int rank);
void tt_fd_mesh_close(struct tt_fd_mesh *mesh); /* NULL is fine */

#endif
