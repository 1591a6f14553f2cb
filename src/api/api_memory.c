/* Public functions: memory and windows. */
#include "base/error.h"
#include "coll/comm.h"

tutti_result tutti_mem_alloc(tutti_comm *comm, size_t bytes, void **ptr_out)
{
    if (!comm || !ptr_out)
        return TT_FAIL(TUTTI_E_ARG, "mem_alloc: a pointer is NULL");
    return comm->ops->mem_alloc(comm->engine, bytes, ptr_out);
}

tutti_result tutti_mem_free(tutti_comm *comm, void *ptr)
{
    if (!comm)
        return TT_FAIL(TUTTI_E_ARG, "mem_free: comm is NULL");
    return ptr ? comm->ops->mem_free(comm->engine, ptr) : TUTTI_OK;
}

tutti_result tutti_window_register(tutti_comm *comm, void *ptr, size_t bytes,
                                   tutti_window **window_out)
{
    if (!comm || !window_out)
        return TT_FAIL(TUTTI_E_ARG, "window_register: a pointer is NULL");
    if (comm->group)
        return TT_FAIL(TUTTI_E_ARG, "window_register inside a group");
    return comm->ops->window_register(comm->engine, ptr, bytes, window_out);
}

tutti_result tutti_window_deregister(tutti_comm *comm, tutti_window *window)
{
    if (!comm)
        return TT_FAIL(TUTTI_E_ARG, "window_deregister: comm is NULL");
    if (comm->group)
        return TT_FAIL(TUTTI_E_ARG, "window_deregister inside a group");
    return comm->ops->window_deregister(comm->engine, window);
}

tutti_window *tutti_window_find(tutti_comm *comm, const void *ptr, size_t bytes)
{
    return comm ? comm->ops->window_find(comm->engine, ptr, bytes) : NULL;
}
