/* A slow, lossy or narrow link between two network namespaces: two TAPs and a process that carries their
 * packets. For kernels without netem. */
#ifndef TUTTI_TESTS_RELAY_H
#define TUTTI_TESTS_RELAY_H

struct relay {
    const char *net[2]; /* files of the two namespaces: "/proc/<pid>/ns/net", "/run/netns/<name>" */
    const char *name;   /* of the interface in both */
    unsigned delay_us;  /* one way */
    double loss;        /* share of the packets */
    double mbit;        /* a second, each way; 0: as fast as it gets */
    const volatile int *is_cut; /* in shared memory: while it is 1, every packet is lost; or NULL */
};

/* Makes both TAPs; a descriptor for each, or -1 (errno). The caller ends up in the second namespace. */
int relay_open(const struct relay *relay, int fds_out[2]);

/* Carries packets until one of the TAPs is gone. */
void relay_run(const struct relay *relay, const int fds[2]);

#endif
