/* Loading libcuda, and what its failures mean. */
#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/error.h"

#define LIBRARY     "libcuda.so.1"
#define WHY_BYTES   400
#define MIN_VERSION "12.0"

/* Loaded once and for all: a driver that was initialised must not be unloaded again. */
static struct {
    pthread_mutex_t lock;
    int is_tried;
    atomic_int is_good;
    char why[WHY_BYTES]; /* it is not */
    struct tt_cuda_driver driver;
} loaded = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int is_stand_in(void)
{
    return tt_env_is_set(TT_ENV_TUTTI_CUDA_LIBRARY);
}

static const char *library_name(void)
{
    return is_stand_in() ? tt_env_text(TT_ENV_TUTTI_CUDA_LIBRARY) : LIBRARY;
}

/* 0, or -1 with the name of the function that the library lacks. */
static int find_functions(void *library, struct tt_cuda_driver *cu, const char **missing_out)
{
    void *at;

#define FIND(name, arguments)                                                                      \
    at = dlsym(library, #name);                                                                    \
    memcpy(&cu->name, &at, sizeof(at));
#define FIND_OR_FAIL(name, arguments)                                                              \
    FIND(name, arguments)                                                                          \
    if (!at) {                                                                                     \
        *missing_out = #name;                                                                      \
        return -1;                                                                                 \
    }
    TT_CUDA_FUNCTIONS(FIND_OR_FAIL)
    TT_CUDA_OPTIONAL_FUNCTIONS(FIND)
#undef FIND
#undef FIND_OR_FAIL
    return 0;
}

static const char *error_name(const struct tt_cuda_driver *cu, CUresult result)
{
    const char *name = NULL;

    return cu->cuGetErrorName(result, &name) == CUDA_SUCCESS && name ? name : "an unknown error";
}

static const char *error_string(const struct tt_cuda_driver *cu, CUresult result)
{
    const char *text = NULL;

    return cu->cuGetErrorString(result, &text) == CUDA_SUCCESS && text ? text : "no description";
}

static void why_not(const char *text, const char *more)
{
    snprintf(loaded.why, sizeof(loaded.why), "no CUDA driver: %s: %s", library_name(), text);
    snprintf(loaded.why + strlen(loaded.why), sizeof(loaded.why) - strlen(loaded.why), "%s", more);
}

/* A driver that is too old lacks functions that have been named since, so that comes first. */
static int check_version(void *library, struct tt_cuda_driver *cu)
{
    CUresult (*version)(int *) = NULL;
    void *at = dlsym(library, "cuDriverGetVersion");
    char text[96];

    memcpy(&version, &at, sizeof(at));
    if (!version || version(&cu->version) != CUDA_SUCCESS) {
        why_not("cannot tell its version: it is no CUDA driver", "");
        return -1;
    }
    if (cu->version < TT_CUDA_MIN_VERSION) {
        snprintf(text, sizeof(text), "supports CUDA %d.%d, and %s is needed", cu->version / 1000,
                 cu->version % 1000 / 10, MIN_VERSION);
        why_not(text, ": install a newer driver (525 or later)");
        return -1;
    }
    return 0;
}

static int load(void)
{
    struct tt_cuda_driver *cu = &loaded.driver;
    void *library = dlopen(library_name(), RTLD_NOW | RTLD_LOCAL);
    const char *missing = NULL;
    char text[WHY_BYTES / 2];
    CUresult result;

    if (!library) {
        const char *why = dlerror();

        why_not(why ? why : "cannot be loaded",
                "; on a machine with NVIDIA GPUs install its driver, in a container start it with "
                "access to the GPUs (--gpus all)");
        return -1;
    }
    if (check_version(library, cu) != 0)
        return -1;
    if (find_functions(library, cu, &missing) != 0) {
        why_not("lacks the function ", missing);
        return -1;
    }
    result = cu->cuInit(0);
    if (result != CUDA_SUCCESS) {
        snprintf(text, sizeof(text), "cuInit: %s (%s)", error_name(cu, result),
                 error_string(cu, result));
        why_not(text, result == CUDA_ERROR_NO_DEVICE ? ": see CUDA_VISIBLE_DEVICES and nvidia-smi"
                                                     : ": see nvidia-smi");
        return -1;
    }
    cu->is_stand_in = is_stand_in();
    return 0;
}

const struct tt_cuda_driver *tt_cuda_driver(void)
{
    if (atomic_load_explicit(&loaded.is_good, memory_order_acquire))
        return &loaded.driver;
    pthread_mutex_lock(&loaded.lock);
    if (!loaded.is_tried)
        atomic_store_explicit(&loaded.is_good, load() == 0, memory_order_release);
    loaded.is_tried = 1;
    pthread_mutex_unlock(&loaded.lock);
    if (atomic_load_explicit(&loaded.is_good, memory_order_acquire))
        return &loaded.driver;
    (void)TT_FAIL(TUTTI_E_UNSUPPORTED, "%s", loaded.why);
    return NULL;
}

static const char *what_to_do(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_NOT_INITIALIZED:
        return ": CUDA does not survive a fork(): start processes afresh (spawn), or use no GPU "
               "before the fork";
    case CUDA_ERROR_DEINITIALIZED: return ": the process is ending";
    case CUDA_ERROR_OUT_OF_MEMORY:
        return ": free memory of this GPU (nvidia-smi shows who holds it) or ask for less";
    case CUDA_ERROR_PEER_ACCESS_UNSUPPORTED:
        return ": these GPUs cannot reach each other's memory (nvidia-smi topo -p2p rw)";
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
        return ": this build has no kernels for this GPU: build with its capability in "
               "TUTTI_CUDA_ARCHS";
    default: return "";
    }
}

tutti_result tt_cuda_result(const char *file, int line, const char *call, CUresult result)
{
    const struct tt_cuda_driver *cu;
    const char *name;

    if (result == CUDA_SUCCESS)
        return TUTTI_OK;
    cu = &loaded.driver; /* it was loaded, or there would be no result */
    name = strstr(call, "->");
    name = name ? name + 2 : call;
    return tt_fail(file, line, result == CUDA_ERROR_OUT_OF_MEMORY ? TUTTI_E_MEMORY : TUTTI_E_SYSTEM,
                   "%.*s: %s (%s)%s", (int)strcspn(name, "("), name, error_name(cu, result),
                   error_string(cu, result), what_to_do(result));
}
