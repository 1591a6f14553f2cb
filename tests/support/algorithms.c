/* Every algorithm by name: see algorithms.h. */
#include "support/algorithms.h"

#include "support/cases.h"

static int is_known(const char *const names[], size_t n, const char *name)
{
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return 1;
    return 0;
}

size_t t_algorithms(const char *names[T_MAX_ALGORITHMS])
{
    size_t n = 1;
    const char *name;

    names[0] = NULL;
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (size_t i = 0; tutti_algorithm_name(t_colls[coll].name, i, &name) == TUTTI_OK; i++) {
            T_CHECK(i < 100, "%s has no last algorithm", t_colls[coll].name);
            if (n < T_MAX_ALGORITHMS && !is_known(names, n, name))
                names[n++] = name;
        }
    return n;
}

void t_run_algorithms(const struct t_job *job)
{
    const char *names[T_MAX_ALGORITHMS];
    const size_t n = t_algorithms(names);
    static char text[8192];

    for (size_t i = 0; i < n; i++) {
        struct t_job one = *job;

        if (one.config.size == 0)
            one.config.size = sizeof(one.config);
        one.config.algorithm = names[i];
        if (!t_run_quietly(&one, text, sizeof(text)))
            continue;
        if (strstr(text, "TUTTI_E_UNSUPPORTED") != NULL && strstr(text, "comm_create") != NULL)
            printf("passed over: algorithm %s cannot run here with %d ranks\n", names[i],
                   job->n_ranks);
        else
            T_FAIL("algorithm %s: %s", names[i] ? names[i] : "by table", text);
    }
}
