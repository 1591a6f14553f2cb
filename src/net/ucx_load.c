/* Finding and loading libucp, once for the process. */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "net/ucx.h"

#define LIBRARY   "libucp.so.0"
#define WHY_BYTES 600
#define REMEDY                                                                                     \
    "; install UCX 1.13 or newer (Debian and Ubuntu: libucx0), or name its libucp in "             \
    "TUTTI_NET_LIBRARY"

static struct {
    pthread_mutex_t lock;
    int is_tried;
    int is_good;
    char why[WHY_BYTES]; /* it is not */
    struct tt_ucx ucx;
} loaded = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int fail(const char *text, const char *a, const char *b)
{
    snprintf(loaded.why, sizeof(loaded.why), text, a, b);
    return -1;
}

/* ---- what is there already ---- */

int tt_ucx_find_mapped(const char *maps, const char *stem, char *path_out, size_t bytes)
{
    const size_t n_stem = strlen(stem);

    for (const char *line = maps; line && *line;) {
        const size_t n_line = strcspn(line, "\n");
        const char *path = memchr(line, '/', n_line);
        const char *name = path ? memrchr(line, '/', n_line) : NULL;
        const size_t n_path = path ? (size_t)(line + n_line - path) : 0;

        if (name && (size_t)(line + n_line - name) > n_stem + 1 &&
            strncmp(name + 1, stem, n_stem) == 0 && strchr(".-", name[1 + n_stem]) &&
            memmem(name, (size_t)(line + n_line - name), ".so", 3) && n_path < bytes) {
            memcpy(path_out, path, n_path);
            path_out[n_path] = 0;
            return 1;
        }
        line = line[n_line] ? line + n_line + 1 : NULL;
    }
    return 0;
}

/* All of a file of /proc, zero-ended; the caller frees it. */
static char *read_all(const char *path)
{
    FILE *file = fopen(path, "re");
    size_t n = 0, most = 1 << 16;
    char *text = file ? malloc(most) : NULL;

    while (text) {
        const size_t got = fread(text + n, 1, most - n - 1, file);
        char *more;

        n += got;
        text[n] = 0;
        if (got == 0)
            break;
        if (n + 1 < most)
            continue;
        more = realloc(text, most *= 2);
        if (!more)
            free(text);
        text = more;
    }
    if (file)
        fclose(file);
    return text;
}

static int find_in_process(const char *stem, char *path_out, size_t bytes)
{
    char *maps = read_all("/proc/self/maps");
    const int found = maps && tt_ucx_find_mapped(maps, stem, path_out, bytes);

    free(maps);
    return found;
}

static int same_folder(const char *a, const char *b)
{
    const char *end_a = strrchr(a, '/');
    const char *end_b = strrchr(b, '/');

    return end_a && end_b && end_a - a == end_b - b && memcmp(a, b, (size_t)(end_a - a)) == 0;
}

/* Two copies of UCX in one process take each other's memory and signals: where there is one already,
 * it is that one or none. */
static int choose(char *name_out, size_t bytes)
{
    char other[PATH_MAX], real[PATH_MAX];
    const int is_set = tt_env_is_set(TT_ENV_TUTTI_NET_LIBRARY);
    const char *wanted = is_set ? tt_env_text(TT_ENV_TUTTI_NET_LIBRARY) : LIBRARY;

    snprintf(name_out, bytes, "%s", wanted);
    if (!find_in_process("libucs", other, sizeof(other)))
        return 0;
    if (!is_set) {
        if (find_in_process("libucp", name_out, bytes))
            return 0;
        *strrchr(other, '/') = 0;
        snprintf(name_out, bytes, "%.400s/%s", other, LIBRARY);
        return 0;
    }
    if (realpath(wanted, real) && same_folder(real, other))
        return 0;
    return fail(
        "TUTTI_NET_LIBRARY is %s, but this process has already loaded the UCX of %s, and two "
        "of them do not work together: set TUTTI_NET_LIBRARY to the libucp beside that, or "
        "unset it",
        wanted, other);
}

/* ---- loading ---- */

/* What UCX reads while it is being loaded, and no function can tell it: no handlers of SIGSEGV and its
 * like, no patched malloc and mmap (memory is registered explicitly), no talk on standard output. */
static void prepare_environment(void)
{
    static const char *const settings[][2] = {
        {"UCX_HANDLE_ERRORS", "none"},      {"UCX_ERROR_SIGNALS", ""},
        {"UCX_MEM_MMAP_HOOK_MODE", "none"}, {"UCX_MEM_CUDA_HOOK_MODE", "none"},
        {"UCX_MEM_MALLOC_HOOKS", "n"},      {"UCX_WARN_UNUSED_ENV_VARS", "n"},
        {"UCX_LOG_FILE", "stderr"},
    };

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        (void)setenv(settings[i][0], settings[i][1], 0);
}

/* Signals that this process has handlers for. */
static unsigned long long caught_signals(void)
{
    char *status = read_all("/proc/self/status");
    const char *line = status ? strstr(status, "SigCgt:") : NULL;
    const unsigned long long mask = line ? strtoull(line + 7, NULL, 16) : 0;

    free(status);
    return mask;
}

static void warn_of_handlers(unsigned long long before)
{
    const unsigned long long fatal = 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1);

    if (caught_signals() & ~before & fatal)
        TT_LOG(
            TUTTI_LOG_WARN, -1, 0,
            "UCX has installed handlers of SIGSEGV or SIGBUS, which other libraries may need: "
            "set UCX_HANDLE_ERRORS=none and UCX_ERROR_SIGNALS= (empty) before the process starts");
}

static int find_functions(void *library, struct tt_ucx *ucx, const char **missing_out)
{
    void *at;

#define FIND(name)                                                                                 \
    at = dlsym(library, #name);                                                                    \
    if (!at) {                                                                                     \
        *missing_out = #name;                                                                      \
        return -1;                                                                                 \
    }                                                                                              \
    memcpy(&ucx->name, &at, sizeof(at));
    TT_UCX_FUNCTIONS(FIND)
#undef FIND
    return 0;
}

static int check_version(void *library, struct tt_ucx *ucx)
{
    void (*version)(unsigned *, unsigned *, unsigned *) = NULL;
    void *at = dlsym(library, "ucp_get_version");
    char text[48];

    memcpy(&version, &at, sizeof(at));
    if (!version)
        return fail("no UCX: %s%s", ucx->path, " is no libucp: it lacks ucp_get_version" REMEDY);
    version(&ucx->major, &ucx->minor, &ucx->release);
    if (ucx->major == TT_UCX_MIN_MAJOR && ucx->minor >= TT_UCX_MIN_MINOR)
        return 0;
    snprintf(text, sizeof(text), "%u.%u.%u", ucx->major, ucx->minor, ucx->release);
    return fail("UCX is %s (%s), and tutti needs 1.13 or a newer 1.x" REMEDY, text, ucx->path);
}

static int load(void)
{
    struct tt_ucx *ucx = &loaded.ucx;
    const unsigned long long caught = caught_signals();
    const char *missing = NULL;
    char name[sizeof(ucx->path)];
    Dl_info where;
    void *library;

    if (choose(name, sizeof(name)) != 0)
        return -1;
    prepare_environment();
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();

        return fail("no UCX: %s%s", why ? why : name, REMEDY);
    }
    snprintf(ucx->path, sizeof(ucx->path), "%s", name);
    if (dladdr(dlsym(library, "ucp_get_version"), &where) && where.dli_fname)
        snprintf(ucx->path, sizeof(ucx->path), "%s", where.dli_fname);
    if (check_version(library, ucx) != 0)
        return -1;
    if (find_functions(library, ucx, &missing) != 0)
        return fail("no UCX: %s lacks the function %s" REMEDY, ucx->path, missing);
    warn_of_handlers(caught);
    return 0;
}

const struct tt_ucx *tt_ucx_get(const char **why_out)
{
    pthread_mutex_lock(&loaded.lock);
    if (!loaded.is_tried) {
        loaded.is_good = load() == 0;
        loaded.is_tried = 1;
    }
    pthread_mutex_unlock(&loaded.lock);
    *why_out = loaded.why;
    return loaded.is_good ? &loaded.ucx : NULL;
}

int tt_ucx_is_at_least(const struct tt_ucx *ucx, unsigned minor)
{
    return ucx->major > TT_UCX_MIN_MAJOR || ucx->minor >= minor;
}
