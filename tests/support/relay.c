#include "support/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 2048, MOST_KEPT = 4096, BATCH = 64 };

struct packet {
    uint64_t due_ns;
    ssize_t bytes;
    struct packet *next;
    unsigned char data[];
};

/* One way: what has come in at one TAP and is to go out at the other. */
struct lane {
    int from, to, n;
    uint64_t free_ns; /* when the wire is through with what it has */
    struct packet *first, **last;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int open_tap(const char *net, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    const int ns = open(net, O_RDONLY | O_CLOEXEC);
    int tap;

    if (ns < 0 || setns(ns, CLONE_NEWNET) != 0)
        return -1;
    close(ns);
    tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (tap >= 0 && ioctl(tap, TUNSETIFF, &request) == 0)
        return tap;
    return -1;
}

int relay_open(const struct relay *relay, int fds_out[2])
{
    for (int i = 0; i < 2; i++) {
        fds_out[i] = open_tap(relay->net[i], relay->name);
        if (fds_out[i] < 0)
            return -1;
    }
    return 0;
}

static int is_lost(const struct relay *relay)
{
    return (relay->is_cut && *relay->is_cut) || (relay->loss > 0 && drand48() < relay->loss);
}

/* 1 if a packet was there, -1 if the TAP is gone. */
static int take_in(struct lane *lane, const struct relay *relay, uint64_t now)
{
    unsigned char data[LONGEST];
    const ssize_t bytes = lane->n < MOST_KEPT ? read(lane->from, data, sizeof(data)) : 0;
    struct packet *p;

    if (bytes <= 0)
        return bytes < 0 && errno != EAGAIN && errno != EINTR ? -1 : 0;
    if (is_lost(relay))
        return 1;
    p = malloc(sizeof(*p) + (size_t)bytes);
    if (!p)
        return 1; /* lost */
    memcpy(p->data, data, (size_t)bytes);
    p->bytes = bytes;
    p->next = NULL;
    if (lane->free_ns < now)
        lane->free_ns = now;
    if (relay->mbit > 0)
        lane->free_ns += (uint64_t)((double)bytes * 8e3 / relay->mbit);
    p->due_ns = lane->free_ns + UINT64_C(1000) * relay->delay_us;
    *lane->last = p;
    lane->last = &p->next;
    lane->n++;
    return 1;
}

/* 1 if a packet went out. */
static int put_out(struct lane *lane, uint64_t now)
{
    struct packet *p = lane->first;

    if (!p || p->due_ns > now ||
        (write(lane->to, p->data, (size_t)p->bytes) < 0 && errno == EAGAIN))
        return 0;
    lane->first = p->next;
    if (!lane->first)
        lane->last = &lane->first;
    lane->n--;
    free(p);
    return 1;
}

/* Asleep until there is a packet, or the next one is due. */
static void rest(const struct lane lanes[2], uint64_t now)
{
    struct pollfd fds[2] = {{.fd = lanes[0].from, .events = POLLIN},
                            {.fd = lanes[1].from, .events = POLLIN}};
    struct timespec limit = {.tv_nsec = 100000000};

    for (int i = 0; i < 2; i++) {
        const struct packet *p = lanes[i].first;
        const uint64_t ns = !p ? 100000000 : p->due_ns > now ? p->due_ns - now : 1000;

        if (ns < (uint64_t)limit.tv_nsec)
            limit.tv_nsec = (long)ns;
    }
    (void)ppoll(fds, 2, &limit, NULL);
}

void relay_run(const struct relay *relay, const int fds[2])
{
    struct lane lanes[2] = {{.from = fds[0], .to = fds[1]}, {.from = fds[1], .to = fds[0]}};

    for (int i = 0; i < 2; i++)
        lanes[i].last = &lanes[i].first;
    srand48(1);
    for (;;) {
        int moved = 0;

        for (int i = 0; i < 2; i++) {
            for (int k = 0; k < BATCH; k++) {
                const int in = take_in(&lanes[i], relay, now_ns());

                if (in < 0)
                    return;
                if (!in)
                    break;
                moved = 1;
            }
            while (put_out(&lanes[i], now_ns()))
                moved = 1;
        }
        if (!moved)
            rest(lanes, now_ns());
    }
}
