/* Which GPUs there are. A process that has started CUDA cannot fork ranks that use it, so a child
 * looks, and the answer is left in memory that both share. */
#include "gpu_bench.h"

#include <string.h>
#include <sys/mman.h>

static int look(void *context, int rank)
{
    struct gpu_facts *facts = context;
    const struct gpu_driver *cu = gpu_driver_load(facts->error, sizeof(facts->error));
    const char *why = "an unknown error";
    int result, device, n_processors;

    (void)rank;
    if (!cu)
        return 0;
    result = cu->cuInit(0);
    if (result == 0)
        result = cu->cuDeviceGetCount(&facts->n_gpus);
    for (int i = 0; result == 0 && i < facts->n_gpus; i++) {
        char name[sizeof(facts->name)] = "";

        result = cu->cuDeviceGet(&device, i);
        if (result == 0)
            result = cu->cuDeviceGetName(name, (int)sizeof(name), device);
        if (result == 0)
            result = cu->cuDeviceGetAttribute(&n_processors, GPU_ATTRIBUTE_MULTIPLIERS, device);
        if (result != 0)
            break;
        if (i == 0 || n_processors < facts->n_processors)
            facts->n_processors = n_processors;
        if (i == 0)
            memcpy(facts->name, name, sizeof(name));
    }
    if (result == 0)
        return 0;
    cu->cuGetErrorString(result, &why);
    snprintf(facts->error, sizeof(facts->error), "the CUDA driver does not start: %s (%d)", why,
             result);
    return 0;
}

int gpu_probe(struct gpu_facts *facts_out)
{
    struct gpu_facts *facts =
        mmap(NULL, sizeof(*facts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct ranks ranks = {0};

    if (facts == MAP_FAILED)
        return cli_error("no memory to look for GPUs with");
    if (ranks_start(&ranks, 1, look, facts) != 0)
        return 1;
    ranks_finish(&ranks, 60);
    if (ranks.status[0] != 0)
        snprintf(facts->error, sizeof(facts->error),
                 "the CUDA driver ended the process that asked "
                 "it for its GPUs");
    *facts_out = *facts;
    ranks_free(&ranks);
    munmap(facts, sizeof(*facts));
    if (facts_out->error[0])
        return cli_error("%s", facts_out->error);
    return facts_out->n_gpus > 0 ? 0 : cli_error("there is no GPU; see CUDA_VISIBLE_DEVICES");
}
