// Whether this build has the NVIDIA backend: `if constexpr (kCuda)` in X.cpp picks the device path of op X. Without it
// what is discarded is never linked, so there are no stubs.
#pragma once

namespace quire {
inline constexpr bool kCuda = QUIRE_WITH_CUDA != 0;
}
