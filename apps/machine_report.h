// `quire --version` and `quire inspect --machine`: what this machine and this build can do.
#pragma once
#include <string>

#include <nlohmann/json.hpp>

namespace quire {

std::string version_text();

// Measures the read bandwidth, on one thread and on `threads` (0: all cores this process may use).
nlohmann::ordered_json machine_json(int threads);
std::string machine_text(const nlohmann::ordered_json& report);

}  // namespace quire
