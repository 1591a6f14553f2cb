# What `make install` puts where. Everything is relative, so an installed tree can be moved.
include(CMakePackageConfigHelpers)

set(tutti_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tutti)
set(tutti_pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS tutti_shared tutti_static EXPORT tuttiTargets FILE_SET HEADERS)
install(EXPORT tuttiTargets NAMESPACE tutti:: DESTINATION ${tutti_cmake_dir})
if(TARGET tutti_tool)
    install(TARGETS tutti_tool)
endif()
if(TARGET tutti_bench_mpi) # next to the program, which looks there
    install(TARGETS tutti_bench_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(cmake/tuttiConfig.cmake.in ${PROJECT_BINARY_DIR}/tuttiConfig.cmake
                              INSTALL_DESTINATION ${tutti_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tuttiConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tuttiConfig.cmake
              ${PROJECT_BINARY_DIR}/tuttiConfigVersion.cmake DESTINATION ${tutti_cmake_dir})

# From the .pc file's folder up to the prefix: "../..", or one more where libraries are in lib/<arch>.
file(RELATIVE_PATH tutti_pc_to_prefix /prefix/${tutti_pkgconfig_dir} /prefix)
string(REGEX REPLACE "/$" "" tutti_pc_to_prefix "${tutti_pc_to_prefix}")
configure_file(cmake/tutti.pc.in ${PROJECT_BINARY_DIR}/tutti.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tutti.pc DESTINATION ${tutti_pkgconfig_dir})
