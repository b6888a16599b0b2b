# find_package(edgewise) for other projects: one imported target per layer and edgewise::edgewise
# for all of them.
include(CMakePackageConfigHelpers)
get_property(modules GLOBAL PROPERTY EDGEWISE_MODULES)
# The program alone uses these.
list(REMOVE_ITEM modules edgewise_cli edgewise_bench)
add_library(edgewise_all INTERFACE)
set_target_properties(edgewise_all PROPERTIES EXPORT_NAME edgewise)
target_link_libraries(edgewise_all INTERFACE ${modules})
add_library(edgewise::edgewise ALIAS edgewise_all)

install(TARGETS ${modules} edgewise_all EXPORT edgewiseTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/edgewise
        FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE
        PATTERN "bench" EXCLUDE)
install(EXPORT edgewiseTargets NAMESPACE edgewise::
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/edgewise)
configure_package_config_file(cmake/edgewiseConfig.cmake.in edgewiseConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/edgewise)
write_basic_package_version_file(edgewiseConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/edgewiseConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/edgewiseConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/edgewise)
if(TARGET edgewise)
  install(TARGETS edgewise RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
