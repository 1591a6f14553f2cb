/* When a message is on the wire: the kernel's stamps of the TCP packets that pass a network interface with data in
 * them, by a packet socket, which takes CAP_NET_RAW. What two ranks of one machine send each other passes `lo`. */
#ifndef TUTTI_BENCH_WIRE_TAP_H
#define TUTTI_BENCH_WIRE_TAP_H

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t wire_now_ns(void) /* the clock of the stamps */
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A socket, or -1: not permitted. */
static inline int wire_tap_open(const char *interface)
{
    const int fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL)), on = 1;
    struct sockaddr_ll at;

    memset(&at, 0, sizeof(at));
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_ALL);
    at.sll_ifindex = (int)if_nametoindex(interface);
    if (fd >= 0 && (at.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) ||
                    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)))) {
        close(fd);
        return -1;
    }
    return fd;
}

/* TCP and not only an acknowledgement: from the header of IP. */
static inline int wire_has_data(const unsigned char *ip, size_t bytes)
{
    const int is_v4 = ip[0] >> 4 == 4;
    const size_t header = is_v4 ? (size_t)(ip[0] & 15) * 4 : 40;
    const size_t room =
        is_v4 ? (size_t)(ip[2] << 8 | ip[3]) - header : (size_t)(ip[4] << 8 | ip[5]);

    return ip[is_v4 ? 9 : 6] == 6 && bytes > header + 12 &&
           room > (size_t)(ip[header + 12] >> 4) * 4;
}

/* The stamp of the next packet with data that is there, sent or received; 0: none. */
static inline uint64_t wire_tap_next(int fd)
{
    unsigned char bytes[128];
    ssize_t n;

    do {
        union {
            struct cmsghdr align;
            char bytes[128];
        } control;
        struct iovec part;
        struct msghdr message;

        memset(&message, 0, sizeof(message));
        part.iov_base = bytes;
        part.iov_len = sizeof(bytes);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control);
        n = recvmsg(fd, &message, MSG_DONTWAIT);
        if (n < 40 || !wire_has_data(bytes, (size_t)n))
            continue;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;

                memcpy(&t, CMSG_DATA(c), sizeof(t));
                return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
            }
    } while (n >= 0);
    return 0;
}

/* Of all that have passed since the last call the first that is not before `from_ns`; 0: none. */
static inline uint64_t wire_tap_first(int fd, uint64_t from_ns)
{
    uint64_t first = 0, stamp;

    while ((stamp = wire_tap_next(fd)) != 0)
        if (stamp >= from_ns && !first)
            first = stamp;
    return first;
}

#endif
