/* Kernels that use channels, and what is around them: a set of channels over memory of a simulated GPU. */
#ifndef TUTTI_TESTS_CHANNEL_SCENE_H
#define TUTTI_TESTS_CHANNEL_SCENE_H

#define TUTTI_DEVICE_WORDS "support/sim/channel_words.h"
#include "support/sim/sim.h"

#include <tutti/device.h>

#include "support/gpus.h"

enum { BLOCKS = 3, THREADS = 32, SLOT = 8192, PARTS = 2, MAX_PEERS = 4, LARGE = 9 << 20 };

struct kernel_args {
    tutti_channel ch[MAX_PEERS][BLOCKS]; /* a channel to each peer for each block */
    int rank, n_ranks;
    uint64_t rounds, value, seed;
    uint64_t *n_wrong, *result; /* in the GPU's memory: [BLOCKS] */
};

/* Their arguments are struct kernel_args; channel_scene.c says what each does. */
void t_talk(const void *args);
void t_packets(const void *args);
void t_add(const void *args);
void t_add_to_one(const void *args);
void t_wait(const void *args);
void t_large(const void *args);
void t_spoil(const void *args);

struct scene {
    struct t_rank *t;
    struct t_device device;
    tutti_channel_set *set;
    unsigned char *memory;
    uint64_t *words; /* n_wrong, result */
    struct kernel_args args;
};

/* Over memory of its own, or over the given. */
void t_scene_open(struct scene *s, struct t_rank *t, int by_port, uint32_t n_slots);
void t_scene_open_over(struct scene *s, struct t_rank *t, int by_port, uint32_t n_slots,
                       unsigned char *memory);
void t_scene_launch(struct scene *s, tt_sim_kernel kernel);
int t_scene_result(const struct scene *s); /* the kernel's, so far */
void t_scene_expect_good(struct scene *s, const char *what);
/* The end of the set; of the memory, too, if it is its own. */
void t_scene_close_over(struct scene *s, tutti_result want);
void t_scene_close(struct scene *s, tutti_result want);

struct plan {
    int by_port;
    uint32_t n_slots;
    uint64_t seeds, rounds;
};

/* Before all tests of a program: 0, with a line that says so, where it has to be skipped. */
int t_channels_begin(void);
/* A job of n ranks with this plan as its argument. */
void t_channels_run(int n, void (*body)(struct t_rank *t), const struct plan *plan);
/* For one: all seeds of messages, and packets with the first. */
void t_talk_body(struct t_rank *t);

#endif
