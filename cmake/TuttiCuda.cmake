# GPU kernels: each src/cuda/kernels/*.cu becomes a fat binary, and all of them become bytes in one C
# file that the library links. Without nvcc that file holds none, and everything else builds the same.
#   TUTTI_CUDA       AUTO: if there is an nvcc; ON: insist; OFF: no kernels
#   TUTTI_CUDA_ARCHS compute capabilities, as "80;90;100"

set(TUTTI_CUDA AUTO CACHE STRING "Build the GPU kernels: AUTO (if there is an nvcc), ON or OFF")
set(TUTTI_CUDA_ARCHS 90 CACHE STRING "Compute capabilities that kernels are built for")

set(tutti_have_nvcc OFF)
if(TUTTI_CUDA)
    find_program(TUTTI_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
    if(TUTTI_NVCC)
        set(tutti_have_nvcc ON)
    elseif(TUTTI_CUDA STREQUAL "ON")
        message(FATAL_ERROR "TUTTI_CUDA=ON, but there is no nvcc; set CUDA_HOME, or -DTUTTI_CUDA=OFF")
    else()
        message(STATUS "nvcc: not found; the library is built without GPU kernels")
    endif()
endif()

set(tutti_nvcc_flags
    -std=c++17 -O3
    -fmad=false                 # a * b + c rounds twice, as on the CPU: the same bits everywhere
    -Werror all-warnings
    -Xptxas -v
    -Xfatbin -compress-all)
if(tutti_have_nvcc) # a fifth smaller, and no driver that runs code of CUDA 13 is too old for it
    execute_process(COMMAND ${TUTTI_NVCC} --version OUTPUT_VARIABLE tutti_nvcc_version)
    if(tutti_nvcc_version MATCHES "release ([0-9]+)" AND CMAKE_MATCH_1 GREATER_EQUAL 13)
        list(APPEND tutti_nvcc_flags --compress-mode=size)
    endif()
endif()
foreach(arch ${TUTTI_CUDA_ARCHS})
    list(APPEND tutti_nvcc_flags -gencode arch=compute_${arch},code=sm_${arch})
endforeach()

# Sets `out` to the C file that holds the images.
function(tutti_cuda_images out)
    set(folder ${PROJECT_BINARY_DIR}/cuda)
    set(TUTTI_IMAGE_BYTES "")
    set(TUTTI_IMAGE_ROWS "")
    set(images)
    file(MAKE_DIRECTORY ${folder})
    if(tutti_have_nvcc)
        file(GLOB kernels CONFIGURE_DEPENDS src/cuda/kernels/*.cu)
        list(SORT kernels)
        foreach(kernel ${kernels})
            get_filename_component(name ${kernel} NAME_WE)
            set(image ${folder}/${name}.fatbin)
            add_custom_command(
                OUTPUT ${image}
                COMMAND ${PROJECT_SOURCE_DIR}/cmake/nvcc.sh ${folder}/${name}.log ${TUTTI_NVCC}
                        ${tutti_nvcc_flags} -I${PROJECT_SOURCE_DIR}/include
                        -I${PROJECT_SOURCE_DIR}/src -MD -MF ${image}.d -fatbin -o ${image} ${kernel}
                DEPENDS ${kernel} DEPFILE ${image}.d
                COMMENT "Building GPU kernels ${name}.cu" VERBATIM)
            string(APPEND TUTTI_IMAGE_BYTES "IMAGE(${name}, \"${image}\")\n")
            string(APPEND TUTTI_IMAGE_ROWS
                   "    {tt_cuda_image_${name}, &tt_cuda_image_${name}_bytes},\n")
            list(APPEND images ${image})
        endforeach()
    endif()
    string(REPLACE ";" " " TUTTI_IMAGE_ARCHS "${TUTTI_CUDA_ARCHS}")
    configure_file(cmake/cuda_images.c.in ${folder}/cuda_images.c @ONLY)
    set_source_files_properties(${folder}/cuda_images.c PROPERTIES OBJECT_DEPENDS "${images}")
    set(${out} ${folder}/cuda_images.c PARENT_SCOPE)
endfunction()

# Programs with kernels of their own, <folder>/*.cu, where there is an nvcc. With the CUDA runtime, which the
# library itself does without.
function(tutti_cuda_programs folder library)
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cu)
    if(NOT tutti_have_nvcc OR TUTTI_SANITIZE)
        return()
    endif()
    foreach(source ${sources})
        get_filename_component(name ${source} NAME_WE)
        set(program ${PROJECT_BINARY_DIR}/${folder}/${name})
        file(GLOB headers CONFIGURE_DEPENDS include/tutti/*.h)
        add_custom_command(
            OUTPUT ${program}
            COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/${folder}
            COMMAND ${TUTTI_NVCC} -std=c++17 -O3 -Werror all-warnings
                    -gencode arch=compute_90,code=sm_90 -I${PROJECT_SOURCE_DIR}/include
                    -o ${program} ${source} $<TARGET_FILE:${library}> -lm -ldl -lpthread
            DEPENDS ${source} ${headers} ${library}
            COMMENT "Building GPU program ${name}" VERBATIM)
        add_custom_target(${name} ALL DEPENDS ${program})
    endforeach()
endfunction()
