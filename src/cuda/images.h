/* The GPU kernels that were built into this library (cmake/TuttiCuda.cmake). */
#ifndef TT_CUDA_IMAGES_H
#define TT_CUDA_IMAGES_H

#include <stdint.h>

struct tt_cuda_image {
    const unsigned char *data;
    const uint64_t *bytes;
};

/* One for each .cu file, ended by a NULL; only that one in a build without nvcc. */
extern const struct tt_cuda_image tt_cuda_images[];

/* The compute capabilities that they are for: "80 90". */
extern const char tt_cuda_archs[];

#endif
