/* libucp as it was found at run time: its functions, and what it is. */
#ifndef TT_NET_UCX_H
#define TT_NET_UCX_H

#include <tutti/tutti.h>
#include <ucp/api/ucp.h>

#define TT_UCX_MIN_MAJOR 1
#define TT_UCX_MIN_MINOR 13

/* X(name): all there since 1.13. ucs_status_string is libucs's, which libucp brings along. */
#define TT_UCX_FUNCTIONS(X)                                                                        \
    X(ucp_get_version)                                                                             \
    X(ucp_config_read)                                                                             \
    X(ucp_config_modify)                                                                           \
    X(ucp_config_release)                                                                          \
    X(ucp_init_version)                                                                            \
    X(ucp_cleanup)                                                                                 \
    X(ucp_context_query)                                                                           \
    X(ucp_worker_create)                                                                           \
    X(ucp_worker_destroy)                                                                          \
    X(ucp_worker_get_address)                                                                      \
    X(ucp_worker_release_address)                                                                  \
    X(ucp_worker_progress)                                                                         \
    X(ucp_worker_get_efd)                                                                          \
    X(ucp_worker_arm)                                                                              \
    X(ucp_worker_fence)                                                                            \
    X(ucp_worker_set_am_recv_handler)                                                              \
    X(ucp_ep_create)                                                                               \
    X(ucp_ep_close_nbx)                                                                            \
    X(ucp_ep_flush_nbx)                                                                            \
    X(ucp_ep_rkey_unpack)                                                                          \
    X(ucp_rkey_destroy)                                                                            \
    X(ucp_mem_map)                                                                                 \
    X(ucp_mem_unmap)                                                                               \
    X(ucp_rkey_pack)                                                                               \
    X(ucp_rkey_buffer_release)                                                                     \
    X(ucp_put_nbx)                                                                                 \
    X(ucp_am_send_nbx)                                                                             \
    X(ucp_request_check_status)                                                                    \
    X(ucp_request_free)                                                                            \
    X(ucs_status_string)

struct tt_ucx {
#define TT_UCX_MEMBER_(name) __typeof__(&(name)) name;
    TT_UCX_FUNCTIONS(TT_UCX_MEMBER_)
#undef TT_UCX_MEMBER_
    unsigned major, minor, release;
    char path[512];
};

/* The library, loaded when first asked for and never unloaded; NULL with the reason in *why_out. */
const struct tt_ucx *tt_ucx_get(const char **why_out);

/* 1 from version major.minor on. */
int tt_ucx_is_at_least(const struct tt_ucx *ucx, unsigned minor);

/* UCX's own settings that a net needs: those that the user has not set. */
struct tt_provider_config;
tutti_result tt_ucx_configure(const struct tt_ucx *ucx, const struct tt_provider_config *config,
                              ucp_config_t *settings);

/* The path of `stem` ("libucs", "libucp") in a text like /proc/self/maps, pip's libucs-1a2b.so.0
 * included. 1 if there is one. Pure. */
int tt_ucx_find_mapped(const char *maps, const char *stem, char *path_out, size_t bytes);

#endif
