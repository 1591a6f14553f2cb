/*
 * What channels need of a GPU: memory of the host that kernels reach, words of their own in the GPU's memory,
 * and copies that nobody waits for. src/coll/channel.h
 */
#ifndef TT_CUDA_CHANNEL_MEMORY_H
#define TT_CUDA_CHANNEL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tt_cuda_device; /* device.c */

/* TUTTI_E_ARG if not all of the memory is this GPU's. *device_out is set as soon as there is one to close. */
tutti_result tt_cuda_channel_open(int device_index, const void *memory, size_t bytes,
                                  struct tt_cuda_device **device_out);
void tt_cuda_channel_close(struct tt_cuda_device *device);

/* Zeroed, pinned; *at_device_out is where kernels see it. */
tutti_result tt_cuda_pin(const struct tt_cuda_device *device, size_t bytes, void **host_out,
                         void **at_device_out);
void tt_cuda_unpin(const struct tt_cuda_device *device, void *host);

/* Zeroed, in the GPU's memory; freed when no kernel runs any more. */
tutti_result tt_cuda_words_new(const struct tt_cuda_device *device, size_t bytes, void **out);
void tt_cuda_words_free(const struct tt_cuda_device *device, void *words);

/* Copies on a stream of their own, in order, each with a ticket that says when it is done. For one thread at
 * a time, which enters first and leaves last: its captures and everybody else's go on meanwhile. */
struct tt_cuda_copier;
tutti_result tt_cuda_copier_new(const struct tt_cuda_device *device, struct tt_cuda_copier **out);
void tt_cuda_copier_free(struct tt_cuda_copier *copier);
tutti_result tt_cuda_copier_enter(struct tt_cuda_copier *copier);
void tt_cuda_copier_leave(struct tt_cuda_copier *copier);

#define TT_CUDA_COPIES 64 /* that may be under way */
int tt_cuda_copier_has_room(const struct tt_cuda_copier *copier);
int tt_cuda_copier_is_idle(const struct tt_cuda_copier *copier); /* none is, as last looked at */
/* Tickets rise by one. Never without room. */
tutti_result tt_cuda_copy_in(struct tt_cuda_copier *copier, void *to_gpu, const void *from_host,
                             size_t bytes, uint64_t *ticket_out);
tutti_result tt_cuda_copy_out(struct tt_cuda_copier *copier, void *to_host, const void *from_gpu,
                              size_t bytes, uint64_t *ticket_out);
/* How many copies are done, from the first on: ticket t is once this is above t. */
tutti_result tt_cuda_copies_done(struct tt_cuda_copier *copier, uint64_t *n_out);

/* GPUDirect: may devices of the network read and write this memory themselves? by_dmabuf: only what can be
 * exported as a dma-buf. */
int tt_cuda_is_direct(const struct tt_cuda_device *device, const void *memory, int by_dmabuf);
/* What they have written so far is seen by kernels and copies that look from now on. It waits for none of
 * these. Entered. */
tutti_result tt_cuda_settle(const struct tt_cuda_copier *copier);

#endif
