// The fastest that this GPU reads its memory, bytes a second, over `bytes` at p (more than its caches hold).
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/cuda/runtime.h"

namespace quire::cuda {
void read_all(const std::byte* p, int64_t bytes, int blocks, uint32_t* sink, StreamHandle stream);
}
