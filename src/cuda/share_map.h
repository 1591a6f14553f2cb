/*
 * Inside share*.c and cuda_window.c: GPU memory of this process that others can map, and theirs mapped
 * here. Nothing in it talks to other ranks; share.c carries offers and descriptors between them.
 *
 * VMM: made by cuMemCreate, in pieces with a handle each; a descriptor for each piece is passed, and
 * the pieces are mapped side by side. IPC: made by cuMemAlloc or cudaMalloc; its handle is plain
 * data, means the whole allocation, and cannot be opened in the process that it comes from.
 */
#ifndef TT_CUDA_SHARE_MAP_H
#define TT_CUDA_SHARE_MAP_H

#include "cuda/cuda.h"

#define TT_CUDA_MAX_PIECES 64

enum tt_cuda_sharing { TT_CUDA_NOT_SHARED, TT_CUDA_VMM, TT_CUDA_IPC };

/* What a rank tells the others of the memory that it shares. */
struct tt_cuda_offer {
    int32_t result; /* why it has none to share ... */
    char why[192];  /* ... in words */
    uint32_t sharing;
    uint64_t bytes;            /* of the memory ... */
    uint64_t offset;           /* ... that begins here in the pieces or in the allocation */
    uint64_t span;             /* of all pieces or of the allocation */
    uint64_t base, context;    /* where it is, for ranks of the same process */
    unsigned char process[24]; /* which that is */
    CUipcMemHandle ipc;
    uint32_t n_pieces;
    uint64_t piece_bytes[TT_CUDA_MAX_PIECES];
};

/* Memory of our own making. */
struct tt_cuda_memory {
    enum tt_cuda_sharing sharing;
    unsigned char *ptr; /* NULL: none */
    size_t bytes;       /* whole pages */
};

/* A rank's memory, as it is mapped here. */
struct tt_cuda_mapping {
    enum tt_cuda_sharing sharing;
    int is_opened;       /* IPC: it is of another process ... */
    int is_borrowed;     /* ... or of this one */
    unsigned char *base; /* NULL: nothing */
    size_t reserved;     /* VMM: addresses */
    uint32_t n_pieces;   /* mapped, from the first on */
    uint64_t piece_bytes[TT_CUDA_MAX_PIECES];
    struct tt_cuda_memory made; /* the own one, if it was made for this */
};

/* The device's context, in a mode in which allocating does not break a capture of this thread. */
struct tt_cuda_scope {
    int entered;
    CUstreamCaptureMode mode;
};
tutti_result tt_cuda_scope_enter(const struct tt_cuda_device *device, struct tt_cuda_scope *scope);
void tt_cuda_scope_leave(const struct tt_cuda_scope *scope);

/* All that follows is called in the scope of the device. */

/* Until the GPU has done all that this process gave it. */
tutti_result tt_cuda_wait_for_kernels(void);

/* Zeroed, on a granularity's boundary. */
tutti_result tt_cuda_memory_new(const struct tt_cuda_device *device, size_t bytes,
                                enum tt_cuda_sharing sharing, struct tt_cuda_memory *memory_out);
void tt_cuda_memory_free(struct tt_cuda_memory *memory);

/* Copies and fills on a stream of their own, so that they wait for no other work; complete on return. */
tutti_result tt_cuda_fill(void *ptr, unsigned char byte, size_t bytes);
tutti_result tt_cuda_write(void *to, const void *host, size_t bytes);
tutti_result tt_cuda_read(void *host, const void *from, size_t bytes);

/* Is ptr[0 .. bytes) memory of this GPU, in whatever pieces? TUTTI_E_ARG if it is not. */
tutti_result tt_cuda_memory_check(const struct tt_cuda_device *device, const void *ptr,
                                  size_t bytes);

/* How can ptr[0 .. bytes) be shared? TUTTI_E_UNSUPPORTED or TUTTI_E_ARG if it cannot. */
tutti_result tt_cuda_offer_make(const struct tt_cuda_device *device, void *ptr, size_t bytes,
                                struct tt_cuda_offer *offer);
int tt_cuda_offer_is_sane(const struct tt_cuda_offer *offer);
tutti_result tt_cuda_piece_export(const struct tt_cuda_offer *offer, uint32_t piece, int *fd_out);

/* Map their offer: VMM by a reservation, then its pieces in order; IPC at once. What was mapped when one
 * of them fails is undone by tt_cuda_unmap. */
tutti_result tt_cuda_map_begin(const struct tt_cuda_offer *own, const struct tt_cuda_offer *theirs,
                               struct tt_cuda_mapping *mapping);
tutti_result tt_cuda_map_piece(const struct tt_cuda_device *device,
                               const struct tt_cuda_offer *theirs, struct tt_cuda_mapping *mapping,
                               int fd);
void tt_cuda_unmap(struct tt_cuda_mapping *mapping);
/* By the owner of an allocation that was offered by IPC: 1 if others of this process have it mapped, of whom the
 * last will free it. */
int tt_cuda_give_up(CUdeviceptr at);

#endif
