/* ctest: as=alone */
/* ctest: ranks=3 */
/*
 * The smallest tutti program: every rank brings a number, every rank gets the sum.
 *
 *     tutti run -n 4 -- ./01_hello        (torchrun, mpirun and srun work as well)
 */
#include <stdio.h>
#include <tutti/tutti.h>

/* tutti never ends your program; this example does, with the reason. */
static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, tutti_last_error());
    return 1;
}

int main(void)
{
    tutti_comm *comm;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    float x[4];

    /* Who am I, who are the others? The launcher's variables tell. Alone, this is rank 0 of 1. */
    if (tutti_comm_create_from_env(NULL, &comm) != TUTTI_OK)
        return failed("create");
    if (tutti_comm_query(comm, &info) != TUTTI_OK)
        return failed("query");

    for (int i = 0; i < 4; i++)
        x[i] = (float)(info.rank + 1) * (float)(i + 1);

    /* All ranks make the same call; x is input and output. */
    if (tutti_all_reduce(comm, x, x, 4, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL) != TUTTI_OK)
        return failed("all_reduce");

    printf("rank %d of %d: sum %g %g %g %g\n", info.rank, info.n_ranks, (double)x[0], (double)x[1],
           (double)x[2], (double)x[3]);
    tutti_comm_destroy(comm);
    return 0;
}
