/* ctest: ranks=4 */
/*
 * A tensor-parallel MLP layer, y = relu(x W1) W2, as inference engines run it on every layer: each
 * rank holds a slice of the inner dimension of both matrices, computes its part of y, and one
 * all-reduce adds the parts. Then rank 0 computes the layer alone and compares: the bits are equal,
 * because tutti adds in rank order.
 *
 *     tutti run -n 4 -- ./02_tensor_parallel_mlp
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tutti/tutti.h>

enum { TOKENS = 8, HIDDEN = 256, INNER = 1024 };

/* Weights and inputs that every rank can make for itself. */
static float value(size_t i, size_t j, unsigned seed)
{
    const unsigned h = (unsigned)(i * 2654435761u) ^ (unsigned)(j * 40503u) ^ seed * 97u;

    return (float)(h % 2003u) / 1001.0f - 1.0f;
}

/* This rank's part: inner columns [first, last) of W1 and the same rows of W2. */
static void mlp_part(const float *x, float *y, size_t first, size_t last)
{
    memset(y, 0, sizeof(float) * TOKENS * HIDDEN);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t k = first; k < last; k++) {
            float h = 0;

            for (size_t i = 0; i < HIDDEN; i++)
                h += x[t * HIDDEN + i] * value(i, k, 1);
            if (h <= 0)
                continue;
            for (size_t j = 0; j < HIDDEN; j++)
                y[t * HIDDEN + j] += h * value(k, j, 2);
        }
    }
}

/* The whole layer in one process: the parts that n ranks would compute, added in their order. */
static void mlp_alone(const float *x, float *y, float *part, int n)
{
    for (int r = 0; r < n; r++) {
        mlp_part(x, part, (size_t)r * INNER / (size_t)n, (size_t)(r + 1) * INNER / (size_t)n);
        for (size_t i = 0; i < TOKENS * HIDDEN; i++)
            y[i] = r == 0 ? part[i] : y[i] + part[i];
    }
}

static int run(tutti_comm *comm, float *x, float *y, float *alone, float *part)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    size_t n_wrong = 0;

    if (tutti_comm_query(comm, &info) != TUTTI_OK)
        return 1;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        x[i] = value(i, 7, 3);

    mlp_part(x, y, (size_t)info.rank * INNER / (size_t)info.n_ranks,
             (size_t)(info.rank + 1) * INNER / (size_t)info.n_ranks);
    if (tutti_all_reduce(comm, y, y, TOKENS * HIDDEN, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL) !=
        TUTTI_OK)
        return 1;

    if (info.rank != 0)
        return 0;
    mlp_alone(x, alone, part, info.n_ranks);
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        n_wrong += memcmp(&y[i], &alone[i], sizeof(float)) != 0;
    printf("%d ranks, %d x %d outputs: %zu differ from the single-process result\n", info.n_ranks,
           TOKENS, HIDDEN, n_wrong);
    return n_wrong != 0;
}

int main(void)
{
    tutti_comm *comm = NULL;
    float *x = malloc(4 * sizeof(float) * TOKENS * HIDDEN);
    int status = 1;

    if (x && tutti_comm_create_from_env(NULL, &comm) == TUTTI_OK)
        status =
            run(comm, x, x + TOKENS * HIDDEN, x + 2 * TOKENS * HIDDEN, x + 3 * TOKENS * HIDDEN);
    if (status)
        fprintf(stderr, "failed: %s\n", tutti_last_error());
    tutti_comm_destroy(comm);
    free(x);
    return status;
}
