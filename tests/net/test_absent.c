/* Without a network (switched off, no library, one that is too old, that is none, that lacks something; a build without)
 * everything on one host works, ranks on several get one line that says what to do, and so does `tutti info`. */
/* ctest: timeout=120 */
#include <sys/wait.h>
#include <unistd.h>

#include "net/net.h"
#include "support/hosts.h"
#include "support/job.h"

static char folder[4096 - 64], old_library[4096]; /* of this program; the fake beside it */

struct absence {
    const char *what;
    const char *net, *library, *minor; /* variables; NULL: not set */
    const char *says, *remedy;         /* parts of the line */
};

static void set(const char *name, const char *value)
{
    T_SYS(value ? setenv(name, value, 1) : unsetenv(name));
}

static void enter(const struct absence *a)
{
    set("TUTTI_NET", a->net);
    set("TUTTI_NET_LIBRARY", a->library);
    set("T_UCP_MINOR", a->minor);
}

static void check_line(const struct absence *a, const char *text)
{
    T_CHECK(text[0] && !strchr(text, '\n'), "%s: not one line: %s", a->what, text);
    T_CONTAINS(text, a->says);
    T_CONTAINS(text, a->remedy);
}

/* ---- ranks ---- */

static void on_one_host(struct t_rank *t)
{
    static float x[100000];
    tutti_comm *half = NULL;

    check_line(t->arg, tt_net_missing());
    for (size_t i = 0; i < T_LEN(x); i++)
        x[i] = (float)(t->rank + 1);
    T_OK(tutti_all_reduce(t->comm, x, x, T_LEN(x), TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    for (size_t i = 0; i < T_LEN(x); i++)
        T_CHECK(x[i] == 6, "element %zu is %g", i, (double)x[i]);
    T_OK(tutti_comm_split(t->comm, t->rank == 1, 0, &half));
    T_OK(tutti_barrier(half, NULL));
    tutti_comm_destroy(half);
}

static void on_two_hosts(struct t_rank *t)
{
    tutti_comm *comm = NULL;

    T_IS(TUTTI_E_UNSUPPORTED, t_comm_create(t, 7, NULL, &comm));
    check_line(t->arg, tutti_last_error());
    T_CONTAINS(tutti_last_error(), "the ranks run on 2 hosts (rank 0 on host-0, rank 1 on host-1)");
    T_CONTAINS(tutti_last_error(), "has no network");
    T_CHECK(comm == NULL, "there is a communicator all the same");
}

/* ---- the program ---- */

static void run_info(char *text, size_t bytes)
{
    char program[4096];
    int ends[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    snprintf(program, sizeof(program), "%s/../tutti", folder);
    if (access(program, X_OK) != 0)
        t_skip("there is no %s", program);
    T_SYS(pipe(ends));
    pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "info", (char *)NULL);
        _exit(126);
    }
    T_SYS(pid);
    close(ends[1]);
    while (n + 1 < bytes && (got = read(ends[0], text + n, bytes - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
    close(ends[0]);
    T_SYS(waitpid(pid, &status, 0));
    T_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "tutti info: status %#x: %s", status,
            text);
}

/* The line that has `name`, and the one after it; returns 1 if it is marked as good. */
static int find_line(const char *info, const char *name, char *line, size_t bytes)
{
    const char *at = strstr(info, name), *end;

    T_CHECK(at != NULL, "tutti info has no \"%s\": %s", name, info);
    while (at > info && at[-1] != '\n')
        at--;
    end = strchr(at, '\n');
    if (end && strncmp(end + 1, "      ", 6) == 0)
        end = strchr(end + 1, '\n');
    snprintf(line, bytes, "%.*s", end ? (int)(end - at) : (int)strlen(at), at);
    return strncmp(at, "  ok ", 5) == 0;
}

static void check_info(const struct absence *a)
{
    static char info[1 << 16];
    char line[2048];

    run_info(info, sizeof(info));
    T_CHECK(!find_line(info, "network library", line, sizeof(line)), "%s: %s", a->what, line);
    T_CONTAINS(line, "  ! network library");
    T_CONTAINS(line, "-> ranks on several hosts are refused: ");
    T_CONTAINS(line, a->says);
    T_CONTAINS(line, a->remedy);
    (void)find_line(info, "network interface", line, sizeof(line));
}

/* ---- all of it ---- */

static void be_without(const struct absence *a)
{
    struct t_job one = {.n_ranks = 3, .body = on_one_host, .arg = (void *)(uintptr_t)a};
    struct t_job two = {
        .n_ranks = 2, .no_comm = 1, .body = on_two_hosts, .arg = (void *)(uintptr_t)a};

    enter(a);
    t_run(&one);
    t_hosts("01");
    t_run(&two);
    t_hosts(NULL);
    check_info(a);
}

static void test_absent(void **state)
{
    const struct absence off = {"off", "off", NULL, NULL, "is switched off", "by TUTTI_NET"};
#ifdef TUTTI_HAVE_UCX
    static const char remedy[] = "install UCX 1.13 or newer (Debian and Ubuntu: libucx0), or name "
                                 "its libucp in TUTTI_NET_LIBRARY";
    const struct absence all[] = {
        {"no file", NULL, "/nowhere/libucp.so.0", NULL, "no UCX: /nowhere/libucp.so.0", remedy},
        {"1.10", NULL, old_library, NULL, "UCX is 1.10.0 (", remedy},
        {"1.12", NULL, old_library, "12", "tutti needs 1.13 or a newer 1.x", remedy},
        {"no functions", NULL, old_library, "13", "lacks the function ucp_config_read", remedy},
        {"no libucp", NULL, "libm.so.6", NULL, "it lacks ucp_get_version", remedy},
    };
#else
    const struct absence all[] = {
        {"a build without", NULL, NULL, NULL, "this build has no network", "libucx-dev"},
    };
#endif

    (void)state;
    be_without(&off);
    for (size_t i = 0; i < T_LEN(all); i++)
        be_without(&all[i]);
}

/* Where there is one, the two lines say which, and by which way. */
static void test_present(void **state)
{
    const struct absence nothing = {"nothing", NULL, NULL, NULL, "", ""};
    static char info[1 << 16];
    char line[2048], library[512];

    (void)state;
    enter(&nothing);
    if (*tt_net_missing())
        t_skip("%s", tt_net_missing());
    tt_net_library_text(library, sizeof(library));
    run_info(info, sizeof(info));
    T_CHECK(find_line(info, "network library", line, sizeof(line)), "%s", line);
    T_CONTAINS(line, library);
    T_CONTAINS(line, "UCX 1.");
    T_CONTAINS(line, "libucp");
    if (find_line(info, "network interface", line, sizeof(line))) {
        T_CONTAINS(line, ", address ");
        T_CONTAINS(line, "; there are ");
    } else {
        T_CONTAINS(line, "-> ");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent), cmocka_unit_test(test_present), /* which loads the library */
    };
    ssize_t n = readlink("/proc/self/exe", folder, sizeof(folder) - 1);

    T_CHECK(n > 0, "where is this test?");
    folder[n] = 0;
    *strrchr(folder, '/') = 0;
    snprintf(old_library, sizeof(old_library), "%s/libtutti_old_ucp.so", folder);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
