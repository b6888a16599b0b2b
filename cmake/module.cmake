# edgewise_module(NAME [DEPS target...] [TEST_DEPS target...])
#
# A layer: src/NAME/**/*.cc becomes the static library edgewise_NAME. Tests lie beside the code and
# are sorted by their file names:
#   *_test.cc         unit tests                            -> NAME_test
#   *_golden_test.cc  read $EDGEWISE_GOLDEN (label golden)  -> NAME_golden_test
#   *_data_test.cc    read $EDGEWISE_DATA   (label data)    -> NAME_data_test
add_library(edgewise_flags INTERFACE)
target_compile_options(edgewise_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                       $<$<BOOL:${EDGEWISE_WERROR}>:-Werror>
                       # GCC 12 reports moved-from std::optional members at -O3.
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
                       # Contracting a*b+c differently per compiler would make results differ.
                       -ffp-contract=off)
if(EDGEWISE_SANITIZE)
  target_compile_options(edgewise_flags INTERFACE -fsanitize=${EDGEWISE_SANITIZE}
                         -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(edgewise_flags INTERFACE -fsanitize=${EDGEWISE_SANITIZE})
endif()

function(edgewise_add_test target label)
  add_executable(${target} ${ARGN})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE edgewise_flags GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST TEST_PREFIX ${target}.
                       WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                       PROPERTIES LABELS ${label} TIMEOUT 600)
endfunction()

function(edgewise_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;TEST_DEPS" ${ARGN})
  set(dir ${CMAKE_CURRENT_SOURCE_DIR})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${dir}/*.cc)
  file(GLOB_RECURSE tests CONFIGURE_DEPENDS ${dir}/*_test.cc)
  set(sources ${all})
  if(tests)
    list(REMOVE_ITEM sources ${tests})
  endif()
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")

  if(sources)
    add_library(edgewise_${name} STATIC ${sources})
    set(scope PUBLIC)
    target_link_libraries(edgewise_${name} PRIVATE $<BUILD_INTERFACE:edgewise_flags>)
  else()
    add_library(edgewise_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(edgewise::${name} ALIAS edgewise_${name})
  target_include_directories(edgewise_${name} ${scope}
                             $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                             $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/edgewise>)
  target_compile_features(edgewise_${name} ${scope} cxx_std_20)
  target_link_libraries(edgewise_${name} ${scope} ${ARG_DEPS})
  set_target_properties(edgewise_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY EDGEWISE_MODULES edgewise_${name})

  if(NOT EDGEWISE_BUILD_TESTS OR NOT tests)
    return()
  endif()
  set(golden ${tests})
  list(FILTER golden INCLUDE REGEX "_golden_test\\.cc$")
  set(data ${tests})
  list(FILTER data INCLUDE REGEX "_data_test\\.cc$")
  set(unit ${tests})
  list(FILTER unit EXCLUDE REGEX "_(golden|data)_test\\.cc$")
  foreach(kind IN ITEMS unit golden data)
    if(${kind})
      set(target ${name}_${kind}_test)
      if("${kind}" STREQUAL "unit")
        set(target ${name}_test)
      endif()
      edgewise_add_test(${target} ${kind} ${${kind}})
      target_link_libraries(${target} PRIVATE edgewise_${name} ${ARG_TEST_DEPS})
    endif()
  endforeach()
endfunction()
