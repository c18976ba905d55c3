#pragma once
#include "base/cuda/runtime.h"

namespace quire::cuda {
// d (16, 8) f32 = a (16, 16) b (16, 8), halves, row-major, on the device: one mma.sync.
void mma_probe(const uint16_t* a, const uint16_t* b, float* d, StreamHandle stream);
}  // namespace quire::cuda
