// How the library talks: through callbacks the caller gives. It never prints itself.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace quire {

// Called now and then during long work: what is done, how far, of how much (total 0 = unknown). Returning false
// cancels.
using Progress = std::function<bool(const std::string& what, int64_t done, int64_t total)>;

// Messages a user should see once ("quantizing at load by round-to-nearest ...").
using Log = std::function<void(const std::string& message)>;

}  // namespace quire
