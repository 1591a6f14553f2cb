# Tests. A new file is a new test; nothing here needs to change:
#   tests/unit/test_X.c   unit.X    one room from inside (src/ is visible), cmocka
#   tests/coll/test_X.c   coll.X    collectives between real processes, with tests/support/
#   tests/hier/test_X.c   hier.X    ranks as if on several hosts, a fake network between them
#                                   (test_gpus_X.c: simulated GPUs; over UCX as well)
#   tests/fault/test_X.c  fault.X   what must survive: kills, stalls, timeouts; with tests/support/
#   tests/tools/test_X.c  tools.X   the program `tutti` and the examples as their users run them
#   tests/net/test_X.c    net.X     the network between processes, over the real provider or a fake
#   tests/cuda/test_X.c   cuda.X    the CUDA engine on a simulated GPU (tests/support/sim); run by hand
#                                   without TUTTI_CUDA_LIBRARY, the same program takes real GPUs
#   tests/fuzz/fuzz_X.c   fuzz.X    a parser, on every file of tests/fuzz/corpus/X/
#   examples/X.c          example.X
#
# How ctest runs a file is said in the file, in comments of this form among its first lines, one test
# for each (none: one test with the defaults):
#       /* ctest: long serial timeout=120 */
#       /* ctest: as=big args=--big,--seed=3 */
#   quick | long      label; `make test` runs quick (the default), `make check-long` long
#   serial            no other test at the same time: it measures, or uses the whole machine
#   timeout=SECONDS   default 60
#   processors=N      ranks it keeps busy; default 1 for unit and fuzz, 2 for the others
#   tsan              also worth running under ThreadSanitizer (label)
#   no-asan, no-tsan  not under that sanitizer
#   as=NAME           the test is called <kind>.<X>.NAME
#   args=A,B          arguments of the program
#   ranks=N           run N of it under `tutti run`
# Exit status 77 means skipped; the program prints why.

find_package(Python3 COMPONENTS Interpreter)
find_path(CMOCKA_INCLUDE_DIR cmocka.h)
find_library(CMOCKA_LIBRARY cmocka)
if(NOT Python3_FOUND OR NOT CMOCKA_INCLUDE_DIR OR NOT CMOCKA_LIBRARY)
    message(FATAL_ERROR "the tests need cmocka and python3; get them with: scripts/setup.sh test\n"
                        "(or build without tests: -DTUTTI_TESTS=OFF)")
endif()

set(tutti_test_words quick long serial tsan no-asan no-tsan)
set(tutti_test_keys timeout processors as args ranks)

add_custom_target(tsan_tests COMMENT "What ThreadSanitizer runs")

# One ctest entry. `words` is the text after "ctest:".
function(tutti_add_one_test name target default_processors words)
    set(labels quick)
    set(serial OFF)
    set(no_asan OFF)
    set(no_tsan OFF)
    set(timeout 60)
    set(processors ${default_processors})
    set(args)
    set(launcher)
    separate_arguments(words UNIX_COMMAND "${words}")
    foreach(word ${words})
        if(word MATCHES "^([a-z]+)=(.+)$" AND CMAKE_MATCH_1 IN_LIST tutti_test_keys)
            set(key ${CMAKE_MATCH_1})
            set(value ${CMAKE_MATCH_2})
            if(key STREQUAL "as")
                string(APPEND name ".${value}")
            elseif(key STREQUAL "args")
                string(REPLACE "," ";" args "${value}")
            elseif(key STREQUAL "ranks")
                set(launcher $<TARGET_FILE:tutti_tool> run -n ${value} --)
                set(processors ${value})
            else()
                set(${key} ${value})
            endif()
        elseif(NOT word IN_LIST tutti_test_words)
            message(FATAL_ERROR "${name}: unknown word \"${word}\" after \"ctest:\"; there are: "
                                "${tutti_test_words} and, with =, ${tutti_test_keys}")
        elseif(word STREQUAL "long")
            list(REMOVE_ITEM labels quick)
            list(APPEND labels long)
        elseif(word STREQUAL "serial")
            set(serial ON)
        elseif(word STREQUAL "tsan")
            list(APPEND labels tsan)
        elseif(word STREQUAL "no-asan")
            set(no_asan ON)
        elseif(word STREQUAL "no-tsan")
            set(no_tsan ON)
        endif()
    endforeach()
    if((no_asan AND TUTTI_SANITIZE MATCHES "address") OR (no_tsan AND TUTTI_SANITIZE MATCHES "thread"))
        return()
    endif()
    if(launcher AND NOT TARGET tutti_tool)
        return()
    endif()
    math(EXPR timeout "${timeout} * ${TUTTI_TEST_TIMEOUT_SCALE}")
    add_test(NAME ${name} COMMAND ${TUTTI_TEST_LAUNCHER} ${launcher} $<TARGET_FILE:${target}> ${args})
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${timeout}
        SKIP_RETURN_CODE 77 RUN_SERIAL ${serial} PROCESSORS ${processors}
        ENVIRONMENT "T_TIMEOUT_SCALE=${TUTTI_TEST_TIMEOUT_SCALE};${tutti_test_environment}")
    if("tsan" IN_LIST labels)
        add_dependencies(tsan_tests ${target})
    endif()
endfunction()

# All entries of one source file.
function(tutti_add_tests name target source default_processors)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    file(STRINGS ${source} lines REGEX "^/\\* ctest:.*\\*/$" LIMIT_INPUT 4096)
    if(NOT lines)
        set(lines "/* ctest: quick */")
    endif()
    foreach(line ${lines})
        string(REGEX REPLACE "^/\\* ctest:(.*)\\*/$" "\\1" words "${line}")
        tutti_add_one_test(${name} ${target} ${default_processors} "${words}")
    endforeach()
endfunction()

function(tutti_test_program target source)
    add_executable(${target} ${source})
    target_include_directories(${target} PRIVATE src tests ${ARGN})
    target_link_libraries(${target} PRIVATE tutti_flags tutti_static)
    target_compile_definitions(${target} PRIVATE $<$<BOOL:${TUTTI_STALL}>:TUTTI_STALL=1>)
    if(tutti_have_ucx)
        target_include_directories(${target} SYSTEM PRIVATE ${UCX_INCLUDE_DIR})
        target_compile_definitions(${target} PRIVATE TUTTI_HAVE_UCX=1)
    endif()
    set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
endfunction()

# ------------------------------------------------------------------------------ C programs -----
file(GLOB sources CONFIGURE_DEPENDS tests/unit/test_*.c)
foreach(source ${sources})
    string(REGEX REPLACE ".*/test_(.*)\\.c$" "\\1" name ${source})
    tutti_test_program(unit_${name} ${source} ${CMOCKA_INCLUDE_DIR})
    target_link_libraries(unit_${name} PRIVATE ${CMOCKA_LIBRARY} m)
    tutti_add_tests(unit.${name} unit_${name} ${source} 1)
endforeach()

target_sources(unit_tune_search PRIVATE tools/tune_search.c tools/bench_plan.c tools/cli.c
               tools/cli_text.c)

if(tutti_have_nvcc) # our declarations of libcuda against NVIDIA's; without its header it is skipped
    get_filename_component(folder ${TUTTI_NVCC} REALPATH)
    get_filename_component(folder ${folder} DIRECTORY)
    find_path(CUDA_INCLUDE_DIR cuda.h HINTS ${folder}/../include)
    if(CUDA_INCLUDE_DIR)
        target_include_directories(unit_cuda_abi SYSTEM PRIVATE ${CUDA_INCLUDE_DIR})
    endif()
endif()

file(GLOB support_sources CONFIGURE_DEPENDS tests/support/*.c)
if(support_sources)
    add_library(tutti_test_support OBJECT ${support_sources})
    target_include_directories(tutti_test_support PRIVATE src tests ${CMOCKA_INCLUDE_DIR})
    target_link_libraries(tutti_test_support PRIVATE tutti_flags tutti_static)
    target_compile_definitions(tutti_test_support PRIVATE $<$<BOOL:${TUTTI_STALL}>:TUTTI_STALL=1>)
    foreach(kind coll fault net tools)
        file(GLOB sources CONFIGURE_DEPENDS tests/${kind}/test_*.c)
        foreach(source ${sources})
            string(REGEX REPLACE ".*/test_(.*)\\.c$" "\\1" name ${source})
            tutti_test_program(${kind}_${name} ${source} ${CMOCKA_INCLUDE_DIR})
            target_link_libraries(${kind}_${name} PRIVATE tutti_test_support ${CMOCKA_LIBRARY} m)
            if(TARGET tutti_tool) # some tests start the program
                add_dependencies(${kind}_${name} tutti_tool)
            endif()
            tutti_add_tests(${kind}.${name} ${kind}_${name} ${source} 2)
        endforeach()
    endforeach()
    add_library(tutti_old_ucp SHARED tests/net/old_ucp.c)
    set_target_properties(tutti_old_ucp PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_dependencies(net_absent tutti_old_ucp)
endif()

# Ranks as if on several hosts (TUTTI_HOST). hier.X with a network of tests/support/net in place of
# src/net, which delivers late and in disorder, and with some tests of collectives besides; ucx.X over
# UCX: among ranks of this machine, and in network namespaces.
if(support_sources)
    set(hier_support "$<FILTER:$<TARGET_OBJECTS:tutti_test_support>,EXCLUDE,/(nets|fake_net)[^/]*$>")
    file(GLOB net_sources CONFIGURE_DEPENDS tests/support/net/*.c)
    file(GLOB hier_sources CONFIGURE_DEPENDS tests/hier/test_hosts_*.c tests/hier/test_run_*.c)
    set(on_hosts groups rooted rows send_recv v_counts counts)
    list(TRANSFORM on_hosts REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/tests/coll/test_\\1.c" OUTPUT_VARIABLE
         on_hosts_sources)
    foreach(source ${hier_sources} ${on_hosts_sources})
        string(REGEX REPLACE ".*/test_(.*)\\.c$" "\\1" name ${source})
        if(name IN_LIST on_hosts)
            set(tutti_test_environment "T_HOSTS=01101")
        endif()
        tutti_test_program(hier_${name} ${source} ${CMOCKA_INCLUDE_DIR})
        target_sources(hier_${name} PRIVATE ${net_sources} ${hier_support})
        target_link_libraries(hier_${name} PRIVATE ${CMOCKA_LIBRARY} m)
        target_link_options(hier_${name} PRIVATE LINKER:--allow-multiple-definition)
        if(TARGET tutti_tool)
            add_dependencies(hier_${name} tutti_tool)
        endif()
        tutti_add_tests(hier.${name} hier_${name} ${source} 2)
        unset(tutti_test_environment)
    endforeach()
    set(hier_sources)
    if(tutti_have_ucx) # else there is no network in this build
        file(GLOB hier_sources CONFIGURE_DEPENDS tests/hier/test_hosts_*.c tests/hier/test_netns_*.c
             tests/hier/test_ucx_*.c)
    endif()
    foreach(source ${hier_sources})
        string(REGEX REPLACE ".*/test_(ucx_)?(.*)\\.c$" "\\2" name ${source})
        set(tutti_test_environment "T_NET=ucx")
        tutti_test_program(ucx_${name} ${source} ${CMOCKA_INCLUDE_DIR})
        target_link_libraries(ucx_${name} PRIVATE tutti_test_support ${CMOCKA_LIBRARY} m)
        if(TARGET tutti_tool)
            add_dependencies(ucx_${name} tutti_tool)
        endif()
        tutti_add_tests(ucx.${name} ucx_${name} ${source} 2)
        unset(tutti_test_environment)
    endforeach()
endif()

# The CUDA engine runs on a simulated GPU: the kernels compiled as C, and a libcuda that runs them.
if(support_sources)
    file(GLOB sim_sources CONFIGURE_DEPENDS tests/support/sim/*.c src/cuda/kernels/*.cu)
    set(sim_kernels ${sim_sources})
    list(FILTER sim_kernels INCLUDE REGEX "\\.cu$")
    set_source_files_properties(${sim_kernels} PROPERTIES LANGUAGE C)
    add_library(tutti_fake_cuda SHARED ${sim_sources})
    set_target_properties(tutti_fake_cuda PROPERTIES LINKER_LANGUAGE C
                          LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    target_include_directories(tutti_fake_cuda PRIVATE include src tests)
    target_compile_options(tutti_fake_cuda PRIVATE -fno-strict-aliasing -ftls-model=initial-exec)
    target_link_libraries(tutti_fake_cuda PRIVATE tutti_flags)
    set(tutti_test_environment "TUTTI_CUDA_LIBRARY=$<TARGET_FILE:tutti_fake_cuda>")
    file(GLOB sources CONFIGURE_DEPENDS tests/cuda/test_*.c)
    foreach(source ${sources})
        string(REGEX REPLACE ".*/test_(.*)\\.c$" "\\1" name ${source})
        tutti_test_program(cuda_${name} ${source} ${CMOCKA_INCLUDE_DIR})
        target_link_libraries(cuda_${name} PRIVATE tutti_test_support ${CMOCKA_LIBRARY} m)
        add_dependencies(cuda_${name} tutti_fake_cuda)
        if(TARGET tutti_tool)
            add_dependencies(cuda_${name} tutti_tool)
        endif()
        tutti_add_tests(cuda.${name} cuda_${name} ${source} 2)
    endforeach()
    unset(tutti_test_environment)
    # GPUs on several hosts: over the network of tests/support/net, and as ucx.X over UCX.
    file(GLOB sources CONFIGURE_DEPENDS tests/hier/test_gpus_*.c)
    set(on_hosts device_groups device_counts graphs)
    list(TRANSFORM on_hosts REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/tests/cuda/test_\\1.c" OUTPUT_VARIABLE
         on_hosts_sources)
    foreach(source ${sources} ${on_hosts_sources})
        string(REGEX REPLACE ".*/test_(.*)\\.c$" "\\1" name ${source})
        set(tutti_test_environment "TUTTI_CUDA_LIBRARY=$<TARGET_FILE:tutti_fake_cuda>")
        if(name IN_LIST on_hosts)
            list(APPEND tutti_test_environment "T_HOSTS=010" "T_RANKS=2,3")
        endif()
        tutti_test_program(hier_${name} ${source} ${CMOCKA_INCLUDE_DIR})
        target_sources(hier_${name} PRIVATE ${net_sources} ${hier_support})
        target_link_libraries(hier_${name} PRIVATE ${CMOCKA_LIBRARY} m)
        target_link_options(hier_${name} PRIVATE LINKER:--allow-multiple-definition)
        add_dependencies(hier_${name} tutti_fake_cuda)
        tutti_add_tests(hier.${name} hier_${name} ${source} 2)
        if(tutti_have_ucx AND NOT name IN_LIST on_hosts)
            list(APPEND tutti_test_environment "T_NET=ucx")
            tutti_test_program(ucx_${name} ${source} ${CMOCKA_INCLUDE_DIR})
            target_link_libraries(ucx_${name} PRIVATE tutti_test_support ${CMOCKA_LIBRARY} m)
            add_dependencies(ucx_${name} tutti_fake_cuda)
            tutti_add_tests(ucx.${name} ucx_${name} ${source} 2)
        endif()
    endforeach()
    unset(tutti_test_environment)
    # Runs kernels without an engine around them.
    foreach(name cuda_move_kernels cuda_rail_kernel)
        target_sources(${name} PRIVATE tests/support/sim/sim_fibres.c
                       tests/support/sim/sim_stores.c tests/support/sim/sim_switch.c)
        target_compile_options(${name} PRIVATE -fno-strict-aliasing)
    endforeach()
    # Run kernels of their own, over the network that delivers in disorder.
    foreach(name cuda_device_channels cuda_device_channel_failure)
        target_sources(${name} PRIVATE tests/cuda/channel_scene.c tests/support/sim/sim_fibres.c
                       tests/support/sim/sim_stores.c tests/support/sim/sim_switch.c ${net_sources})
        target_compile_options(${name} PRIVATE -fno-strict-aliasing)
        target_link_options(${name} PRIVATE LINKER:--allow-multiple-definition)
    endforeach()
endif()

# Each fuzz target is built twice: with replay_main.c, which feeds it the corpus (any compiler, part
# of `make test`), and with libFuzzer behind TUTTI_FUZZ.
file(GLOB sources CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(source ${sources})
    string(REGEX REPLACE ".*/fuzz_(.*)\\.c$" "\\1" name ${source})
    set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    tutti_test_program(replay_${name} ${source})
    target_sources(replay_${name} PRIVATE tests/fuzz/replay_main.c)
    add_test(NAME fuzz.${name} COMMAND ${TUTTI_TEST_LAUNCHER} $<TARGET_FILE:replay_${name}>
             --mutate 200 ${corpus})
    math(EXPR timeout "60 * ${TUTTI_TEST_TIMEOUT_SCALE}")
    set_tests_properties(fuzz.${name} PROPERTIES LABELS "quick" TIMEOUT ${timeout}
                         SKIP_RETURN_CODE 77)
    if(TUTTI_FUZZ) # run: build/fuzz/tests/fuzz_X tests/fuzz/corpus/X
        tutti_test_program(fuzz_${name} ${source})
        target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
        target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    endif()
endforeach()

if(TUTTI_EXAMPLES)
    foreach(source ${example_sources})
        get_filename_component(name ${source} NAME_WE)
        if(name MATCHES "port" AND NOT tutti_have_ucx)
            continue() # there is no network in this build
        endif()
        tutti_add_tests(example.${name} ${name} ${source} 2)
    endforeach()
endif()

# ------------------------------------------------------------------------------ the house ------
# Rules that the source must keep, and proof that each rule's check can fail.
function(tutti_script_test name)
    add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES LABELS quick TIMEOUT 120 SKIP_RETURN_CODE 77
        ENVIRONMENT "CC=${CMAKE_C_COMPILER};PYTHONDONTWRITEBYTECODE=1")
endfunction()

foreach(check layers docs style)
    tutti_script_test(house.${check} ${Python3_EXECUTABLE} scripts/check_${check}.py)
endforeach()
if(tutti_have_nvcc)
    tutti_script_test(house.kernels ${Python3_EXECUTABLE} scripts/check_kernels.py
                      ${PROJECT_BINARY_DIR})
endif()
tutti_script_test(house.generated_docs ${Python3_EXECUTABLE} scripts/gen_docs.py --check)
tutti_script_test(house.checks_can_fail ${Python3_EXECUTABLE} scripts/test_checks.py)
tutti_script_test(install.headers sh tests/install/check_headers.sh)
if(NOT TUTTI_SANITIZE) # a sanitizer adds its own symbols, bytes and libraries
    tutti_script_test(house.symbols sh scripts/check_symbols.sh $<TARGET_FILE:tutti_shared>)
    tutti_script_test(install.consumers sh tests/install/run.sh ${CMAKE_COMMAND}
                      ${PROJECT_BINARY_DIR})
endif()
