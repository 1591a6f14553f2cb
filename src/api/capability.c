#include "api/capability.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/env.h"
#include "base/error.h"
#include "coll/tune_rows.h"
#include "cpu/kernels.h"
#ifdef TUTTI_HAVE_CUDA
#include "cuda/cuda_engine.h"
#endif
#include "net/net.h"

static _Thread_local char value[160];
static _Thread_local char remedy[700];

static void say(tutti_capability *c, const char *name, int good, const char *what_to_do)
{
    c->name = name;
    c->good = good;
    c->value = value;
    c->remedy = good == 1 ? NULL : what_to_do;
}

static void kernels(tutti_capability *c)
{
    const char *best = tt_kernels_get("auto")->isa;

    snprintf(value, sizeof(value), "%s", best);
    say(c, "reduction kernels", strcmp(best, "scalar") != 0,
        "this processor has no vector instructions that tutti knows (AVX2, AVX-512, NEON)");
}

static void memfd(tutti_capability *c)
{
    const int fd = memfd_create("tutti-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    snprintf(value, sizeof(value), "%s", fd >= 0 ? "available" : strerror(errno));
    say(c, "anonymous shared memory (memfd)", fd >= 0 ? 1 : -1,
        "Linux 3.17 or newer is needed, and a seccomp profile that allows memfd_create");
    if (fd >= 0)
        close(fd);
}

static void proc(tutti_capability *c)
{
    const int fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    snprintf(value, sizeof(value), "%s", fd >= 0 ? "mounted" : strerror(errno));
    say(c, "/proc", fd >= 0 ? 1 : -1, "mount /proc: tutti notices dead ranks through it");
    if (fd >= 0)
        close(fd);
}

/* Can a parent read its child's memory? What ranks of one user can do to each other. */
static void xmem(tutti_capability *c)
{
    static const uint64_t token = UINT64_C(0x7475747469);
    uint64_t seen = 0;
    const struct iovec l = {&seen, sizeof(seen)};
    const struct iovec p = {(void *)(uintptr_t)&token, sizeof(seen)};
    const pid_t child = fork();
    int good, err;

    if (child == 0) {
        pause();
        _exit(0);
    }
    good = child > 0 && process_vm_readv(child, &l, 1, &p, 1, 0) == (ssize_t)sizeof(seen) &&
           seen == token;
    err = errno;
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    snprintf(value, sizeof(value), "%s", good ? "available" : strerror(err));
    say(c, "cross-memory copies", good,
        "large calls on unregistered buffers are slower: in a container add --cap-add SYS_PTRACE, "
        "or "
        "register the buffers");
}

static void shm_size(tutti_capability *c)
{
    struct statvfs v;

    if (statvfs("/dev/shm", &v) == 0)
        snprintf(value, sizeof(value), "%llu MiB; tutti does not use it",
                 (unsigned long long)v.f_blocks * v.f_frsize >> 20);
    else
        snprintf(value, sizeof(value), "not mounted; tutti does not use it");
    say(c, "/dev/shm", 1, NULL);
}

static void huge_pages(tutti_capability *c)
{
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
    char line[128] = "unknown";
    int good;

    if (f) {
        if (!fgets(line, sizeof(line), f))
            line[0] = 0;
        fclose(f);
    }
    line[strcspn(line, "\n")] = 0;
    good = strstr(line, "[advise]") || strstr(line, "[always]") || strstr(line, "[within_size]");
    snprintf(value, sizeof(value), "%s", line);
    say(c, "huge pages for shared memory", good,
        "windows of many MiB are about 1.4 times slower: as root, echo advise > "
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

#ifdef TUTTI_HAVE_CUDA
static void cuda_kernels(tutti_capability *c)
{
    const char *archs = tt_cuda_kernel_archs();

    snprintf(value, sizeof(value), "%s%s", archs[0] ? "for compute capability " : "none", archs);
    say(c, "CUDA kernels in this build", archs[0] != 0,
        "ranks on GPUs are refused: build where nvcc is (a CUDA toolkit)");
}

static void cuda_driver(tutti_capability *c)
{
    char version[16];

    tt_cuda_driver_text(version, sizeof(version));
    snprintf(value, sizeof(value), "%s", version[0] ? version : "missing");
    say(c, "CUDA driver", version[0] != 0,
        "ranks on GPUs are refused: install an NVIDIA driver, 12.0 or newer (in a container: run "
        "it "
        "with the GPUs)");
}

static void gpus(tutti_capability *c)
{
    tt_cuda_gpus_text(value, sizeof(value));
    if (!value[0])
        snprintf(value, sizeof(value), "none");
    say(c, "GPUs", strcmp(value, "none") != 0, "see CUDA_VISIBLE_DEVICES and nvidia-smi");
}

static void gpu_memory(tutti_capability *c)
{
    uint64_t bytes;
    const int good = tt_env_number(TT_ENV_TUTTI_CUDA_SCRATCH, &bytes) == TUTTI_OK;

    if (good)
        snprintf(value, sizeof(value), "%.4g MiB a rank", (double)bytes / (1 << 20));
    else
        snprintf(value, sizeof(value), "%s", tt_error_text());
    say(c, "GPU memory per communicator", good ? 1 : -1,
        "communicators of GPUs are refused: correct TUTTI_CUDA_SCRATCH");
}

/* Which table a communicator of GPUs would have that is created in this environment. */
static void gpu_table(tutti_capability *c)
{
    const char *path = tt_env_text(TT_ENV_TUTTI_TUNE_FILE);
    const char *what_to_do =
        "`tutti tune --gpus N` measures this machine; TUTTI_TUNE_FILE names its file";
    int n_rows = 0, n_others = 0, good;
    char name[64];

    tt_cuda_gpu_name(name, sizeof(name));
    if (!path[0]) {
        good = !name[0] || strstr(name, "H200");
        snprintf(value, sizeof(value), "built in, measured on H200");
    } else if (tt_tune_count(path, name, &n_rows, &n_others) != TUTTI_OK) {
        good = -1;
        what_to_do = "communicators are refused: correct TUTTI_TUNE_FILE, or the file";
        snprintf(value, sizeof(value), "%s", tt_error_text());
    } else if (n_rows == 0) {
        good = !name[0];
        snprintf(value, sizeof(value), "built in; no rows for %s in %s",
                 name[0] ? name : "a GPU (there is none)", path);
    } else {
        good = 1;
        snprintf(value, sizeof(value), "%d rows of %s (%d of other GPUs)", n_rows, path, n_others);
    }
    say(c, "algorithms on GPUs", good, what_to_do);
}
#else
static void cuda(tutti_capability *c)
{
    snprintf(value, sizeof(value), "not in this build");
    say(c, "CUDA engine", 0, "ranks on GPUs are refused: build tutti with src/cuda");
}
#endif

static void net_library(tutti_capability *c)
{
    const char *missing = tt_net_missing();

    tt_net_library_text(value, sizeof(value));
    snprintf(remedy, sizeof(remedy), "ranks on several hosts are refused: %s", missing);
    say(c, "network library", missing[0] == 0, remedy);
}

static void net_interface(tutti_capability *c)
{
    const int good = tt_net_place_text(value, sizeof(value)) == TUTTI_OK;

    snprintf(remedy, sizeof(remedy), "ranks on several hosts are refused: %s",
             good ? "" : tt_error_text());
    say(c, "network interface", good, remedy);
}

tutti_result tt_capability_describe(size_t index, tutti_capability *capability)
{
    static void (*const facts[])(tutti_capability *) = {
        kernels,      memfd,        proc, xmem,       shm_size,  huge_pages,
#ifdef TUTTI_HAVE_CUDA
        cuda_kernels, cuda_driver,  gpus, gpu_memory, gpu_table,
#else
        cuda,
#endif
        net_library,  net_interface};

    if (index >= TT_LEN(facts))
        return TT_FAIL(TUTTI_E_ARG, "there is no capability %zu", index);
    facts[index](capability);
    return TUTTI_OK;
}
