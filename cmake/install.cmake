# What `cmake --install` puts in place: the program, the library for C++ (static, quire::engine) and for C (shared, quire::c),
# the headers that an embedder needs, shell completion, and a package for find_package(quire).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(quire_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quire)

install(TARGETS quire RUNTIME) # links the static libraries: it may be moved anywhere
install(TARGETS quire_base quire_quant quire_kernels quire_kvcache quire_models quire_engine quire_c EXPORT quireTargets)
install(EXPORT quireTargets NAMESPACE quire:: DESTINATION ${quire_package_dir})
configure_package_config_file(cmake/quireConfig.cmake.in ${PROJECT_BINARY_DIR}/quireConfig.cmake
  INSTALL_DESTINATION ${quire_package_dir})
# Below 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quireConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quireConfig.cmake ${PROJECT_BINARY_DIR}/quireConfigVersion.cmake
  cmake/sentencepiece.cmake DESTINATION ${quire_package_dir})
install(FILES README.md LICENSE TYPE DOC)

# The two interfaces and what they include; the other headers are nobody's business.
set(headers engine/engine.h engine/quire.h)
set(unread ${headers})
while(unread)
  list(POP_FRONT unread header)
  file(STRINGS ${header} lines REGEX "^#include \"")
  foreach(line ${lines})
    string(REGEX REPLACE "^#include \"([^\"]+)\".*" "\\1" included "${line}")
    if(NOT included IN_LIST headers)
      list(APPEND headers ${included})
      list(APPEND unread ${included})
    endif()
  endforeach()
endwhile()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${headers})
foreach(header ${headers})
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quire/${folder})
endforeach()

# Written by the program itself from its flags, so it cannot be out of date.
if(NOT CMAKE_CROSSCOMPILING)
  set(completion ${PROJECT_BINARY_DIR}/completion)
  set(outputs ${completion}/quire.bash ${completion}/quire.zsh ${completion}/quire.fish)
  add_custom_command(OUTPUT ${outputs}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${completion}
    COMMAND quire completion bash > ${completion}/quire.bash
    COMMAND quire completion zsh > ${completion}/quire.zsh
    COMMAND quire completion fish > ${completion}/quire.fish
    DEPENDS quire VERBATIM)
  add_custom_target(quire_completion ALL DEPENDS ${outputs})
  install(FILES ${completion}/quire.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME quire)
  install(FILES ${completion}/quire.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _quire)
  install(FILES ${completion}/quire.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()
