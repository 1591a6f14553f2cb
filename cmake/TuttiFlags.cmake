# Compiler flags. Targets take them by linking tutti_flags (everything) and tutti_strict_flags
# (library and program: the code that we ship).

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF) # _GNU_SOURCE asks for what we want of libc
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g") # no NDEBUG: assertions count while developing

add_library(tutti_flags INTERFACE)
target_compile_definitions(tutti_flags INTERFACE _GNU_SOURCE)
target_compile_options(tutti_flags INTERFACE
    -Wall -Wextra -Wshadow -Wvla -Wformat=2 -Wundef
    -Wno-missing-field-initializers   # TUTTI_COMM_CONFIG_INIT sets `size` and leaves the rest 0
    $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation> # texts for people are cut on purpose
    -Wno-format-nonliteral            # our printf-like functions carry the attribute
    -ffp-contract=off                 # a * b + c rounds twice everywhere: the same bits everywhere
    -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=) # __FILE__ is "src/...", wherever it was built
if(TUTTI_WERROR)
    target_compile_options(tutti_flags INTERFACE -Werror)
endif()
if(TUTTI_FUZZ) # libFuzzer sees which branches of the library an input takes
    target_compile_options(tutti_flags INTERFACE -fsanitize=fuzzer-no-link)
    target_link_options(tutti_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(TUTTI_SANITIZE)
    target_compile_options(tutti_flags INTERFACE -fsanitize=${TUTTI_SANITIZE}
                           -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(tutti_flags INTERFACE -fsanitize=${TUTTI_SANITIZE})
    if(TUTTI_SANITIZE MATCHES "thread" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
        target_compile_options(tutti_flags INTERFACE -Wno-tsan) # it warns of every fence
    endif()
endif()

add_library(tutti_strict_flags INTERFACE)
target_compile_options(tutti_strict_flags INTERFACE
    -Wpedantic -Wconversion -Wstrict-prototypes -Wmissing-prototypes)

set(tutti_is_x86_64 OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(tutti_is_x86_64 ON)
endif()

# The CPU engine is optimised harder, and the suffix of a kernel's file name is its instruction set.
# Nothing outside those files may use the set: they run only after the processor was asked.
# (*_neon.c is compiled everywhere and is empty elsewhere.)
function(tutti_kernel_flags sources_var)
    set(kept)
    foreach(source ${${sources_var}})
        set(options)
        if(source MATCHES "_(avx2|avx512)\\.c$" AND NOT tutti_is_x86_64)
            continue()
        elseif(source MATCHES "_avx512\\.c$")
            set(options -mavx512f -mavx512bw -mavx512vl -mavx512dq -mf16c -mavx2)
        elseif(source MATCHES "_avx2\\.c$")
            set(options -mavx2 -mf16c)
        endif()
        if(source MATCHES "/src/cpu/" AND NOT TUTTI_SANITIZE)
            list(APPEND options -O3 -fno-math-errno)
        endif()
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${options}")
        list(APPEND kept ${source})
    endforeach()
    set(${sources_var} ${kept} PARENT_SCOPE)
endfunction()
