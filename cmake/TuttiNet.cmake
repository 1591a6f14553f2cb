# The network provider over UCX: its headers are needed to build, its library only to run (it is loaded
# when ranks are on several hosts). Without the headers everything else builds the same.
#   TUTTI_NET   AUTO: if there are UCX's headers, 1.13 or newer; ON: insist; OFF: no network

set(TUTTI_NET AUTO CACHE STRING "Build the network over UCX: AUTO (if there are its headers), ON or OFF")

set(tutti_have_ucx OFF)
if(TUTTI_NET)
    find_path(UCX_INCLUDE_DIR ucp/api/ucp.h HINTS $ENV{UCX_HOME}/include)
    if(UCX_INCLUDE_DIR)
        file(STRINGS ${UCX_INCLUDE_DIR}/ucp/api/ucp_version.h ucx_version
             REGEX "^#define UCP_API_(MAJOR|MINOR) ")
        string(REGEX REPLACE "[^0-9;]" "" ucx_version "${ucx_version}")
        string(REPLACE ";" "." ucx_version "${ucx_version}")
        if(ucx_version VERSION_GREATER_EQUAL 1.13)
            set(tutti_have_ucx ON)
        endif()
    endif()
    if(NOT tutti_have_ucx AND TUTTI_NET STREQUAL "ON")
        message(FATAL_ERROR "TUTTI_NET=ON, but there are no headers of UCX 1.13 or newer (Debian: "
                            "libucx-dev); set UCX_HOME, or -DTUTTI_NET=OFF")
    elseif(NOT tutti_have_ucx)
        message(STATUS "UCX: no headers of 1.13 or newer; the library is built without a network")
    endif()
endif()

# Takes UCX's files out of a list of sources where its headers are not.
function(tutti_net_sources sources_var)
    if(NOT tutti_have_ucx)
        list(FILTER ${sources_var} EXCLUDE REGEX "/src/net/ucx[^/]*\\.c$")
        set(${sources_var} ${${sources_var}} PARENT_SCOPE)
    endif()
endfunction()
