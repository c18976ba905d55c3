# models/configs/*.json inside the program, so that `bench --dummy NAME` needs no file beside it (models/dummy.h).
file(GLOB configs CONFIGURE_DEPENDS models/configs/*.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${configs})
set(entries)
foreach(config ${configs})
  get_filename_component(name ${config} NAME_WLE)
  file(READ ${config} json)
  string(APPEND entries "    {\"${name}\", R\"json(${json})json\"},\n")
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/known_configs.cpp @ONLY CONTENT
[[// Made by cmake/configs.cmake.
#include "models/dummy.h"

namespace quire {
std::span<const KnownConfig> known_configs() {
  static constexpr KnownConfig kConfigs[] = {
@entries@  };
  return kConfigs;
}
}  // namespace quire
]])
target_sources(quire_models PRIVATE ${PROJECT_BINARY_DIR}/generated/known_configs.cpp)
