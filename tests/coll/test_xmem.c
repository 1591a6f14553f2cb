/* Copies across memories where the system forbids them: one refusal on one rank, and all ranks go through
 * shared memory instead. */
/* ctest: timeout=60 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "support/cases.h"
#include "support/job.h"

enum { MOST = 200000, ROOM = 4 << 20 };

/* From now on this process gets EPERM from system call `number`, as in a container without ptrace. */
static void forbid(unsigned number)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {T_LEN(code), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        t_skip("no filters for system calls here: %s", strerror(errno));
}

static void messages(struct t_rank *t, tutti_comm *comm)
{
    const int next = (t->rank + 1) % t->n_ranks, before = (t->rank + t->n_ranks - 1) % t->n_ranks;
    int *out = malloc(MOST * sizeof(*out)), *in = calloc(MOST, sizeof(*in));

    for (int i = 0; i < MOST; i++)
        out[i] = i * 7 + t->rank;
    T_OK(tutti_group_begin(comm));
    T_OK(tutti_send(comm, out, MOST, TUTTI_DTYPE_I32, next, NULL));
    T_OK(tutti_recv(comm, in, MOST, TUTTI_DTYPE_I32, before, NULL));
    T_OK(tutti_group_end(comm));
    for (int i = 0; i < MOST; i++)
        T_CHECK(in[i] == i * 7 + before, "element %d is %d", i, in[i]);
    free(out);
    free(in);
}

static unsigned forbidden; /* to rank 1 */

static void refused(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    struct t_rng rng = {forbidden};
    struct t_stage stage;
    tutti_comm *comm;

    if (t->rank == 1)
        forbid(forbidden);
    T_OK(t_comm_create(t, 2, NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CONTAINS(info.details, "cross-memory copies no");
    t_stage_open(&stage, t, comm, ROOM, 0);
    for (int i = 0; i < 60; i++) {
        const struct t_case c = t_case_random_on(&stage, &rng, MOST);

        t_case_run(&stage, &c);
    }
    t_stage_close(&stage);
    messages(t, comm);
    tutti_comm_destroy(comm);
    setenv("TUTTI_CPU_XMEM", "on", 1);
    T_IS(TUTTI_E_UNSUPPORTED, t_comm_create(t, 3, NULL, &comm));
    T_CONTAINS(tutti_last_error(), "--cap-add SYS_PTRACE");
}

static void run_without(unsigned number, int n_ranks)
{
    const struct t_job job = {.n_ranks = n_ranks, .no_comm = 1, .body = refused};

    forbidden = number;
    t_run(&job);
}

static void reads_are_refused(void **state)
{
    (void)state;
    run_without(SYS_process_vm_readv, 2);
}

static void writes_are_refused(void **state)
{
    (void)state;
    run_without(SYS_process_vm_writev, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_are_refused),
        cmocka_unit_test(writes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
