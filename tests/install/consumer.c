/* What a user's first program does; built here against an installed tutti. */
#include <stdio.h>
#include <tutti/tutti.h>

int main(void)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm;
    float x[4] = {1, 2, 3, 4};

    if (tutti_version() >> 16 != TUTTI_VERSION_MAJOR) {
        fprintf(stderr, "header and library differ in version\n");
        return 1;
    }
    if (tutti_comm_create(&config, &comm) != TUTTI_OK ||
        tutti_all_reduce(comm, x, x, 4, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL) != TUTTI_OK) {
        fprintf(stderr, "%s\n", tutti_last_error());
        return 1;
    }
    tutti_comm_destroy(comm);
    if (x[0] != 1 || x[3] != 4) {
        fprintf(stderr, "one rank's sum is not its own\n");
        return 1;
    }
    printf("ok\n");
    return 0;
}
