#include "gpu_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int gpu_symbol(void *library, const char *symbol, void *function_out)
{
    void *found = dlsym(library, symbol);

    memcpy(function_out, &found, sizeof(found));
    return found ? 0 : -1;
}

const struct gpu_driver *gpu_driver_load(char *text, size_t size)
{
    static struct gpu_driver driver;
    static int loaded;
    const char *named = getenv("TUTTI_CUDA_LIBRARY");
    const char *path = named && *named ? named : "libcuda.so.1";
    void *library;

    if (loaded)
        return &driver;
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(text, size, "no CUDA driver on this machine (%s)", dlerror());
        return NULL;
    }
#define GPU_DRIVER_FIND_(name, suffix, arguments)                                                  \
    if (gpu_symbol(library, #name suffix, &driver.name) != 0) {                                    \
        snprintf(text, size, "%s has no %s: the driver is too old; CUDA 12 or later is needed",    \
                 path, #name suffix);                                                              \
        return NULL;                                                                               \
    }
    GPU_DRIVER_FUNCTIONS(GPU_DRIVER_FIND_)
#undef GPU_DRIVER_FIND_
    loaded = 1;
    return &driver;
}
