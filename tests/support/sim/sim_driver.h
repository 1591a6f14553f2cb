/* The simulated libcuda: what its files know of one another. Its functions are those of
 * src/cuda/driver.h, and some more that tests and the benchmark call themselves. */
#ifndef TUTTI_TESTS_SIM_DRIVER_H
#define TUTTI_TESTS_SIM_DRIVER_H

#include "cuda/driver.h"

#define SIM_API __attribute__((visibility("default")))

#define TT_CUDA_DECLARE_(name, arguments) SIM_API CUresult name arguments;
TT_CUDA_FUNCTIONS(TT_CUDA_DECLARE_)
TT_CUDA_OPTIONAL_FUNCTIONS(TT_CUDA_DECLARE_)
#undef TT_CUDA_DECLARE_

/* Errors that only the simulation gives names to. */
enum {
    SIM_ERROR_INVALID_HANDLE = 400,
    SIM_ERROR_ILLEGAL_STATE = 401,
    SIM_ERROR_NOT_READY = 600,
    SIM_ERROR_LAUNCH_OUT_OF_RESOURCES = 701,
    SIM_ERROR_CAPTURE_UNSUPPORTED = 900,
    SIM_ERROR_CAPTURE_INVALIDATED = 901,
    SIM_ERROR_CAPTURE_UNJOINED = 904,
};

#define SIM_GRANULARITY ((size_t)2 << 20)
#define SIM_MAX_DEVICES 16

struct CUctx_st {
    int device;
    int n_users;
};

/* ---- sim_device.c ---- */

int sim_n_devices(void);
int sim_n_sms(void);
int sim_is_listed(const char *variable, int device); /* "all", or numbers with commas */
CUresult sim_device(int *device_out);                /* of the current context */

/* ---- sim_launch.c ---- */

CUresult sim_not_in_capture(void); /* an error where this thread may not make such a call now */
void sim_memset(void *p, int byte, size_t bytes);

/* ---- sim_memory.c ---- */

/* Everything that was made and not given back: for tests of leaks. */
SIM_API int tt_sim_n_objects(void);
void sim_count_object(int change);

/* CUDA_SUCCESS if all of p[0 .. bytes) is device memory that may be used. */
CUresult sim_check_range(CUdeviceptr p, size_t bytes);

/* ---- sim_network.c ---- */

/* A device of the network writes this GPU's memory: to be seen for certain after cuFlushGPUDirectRDMAWrites only. */
SIM_API void tt_sim_write_later(void *to, const void *data, size_t bytes);

#endif
