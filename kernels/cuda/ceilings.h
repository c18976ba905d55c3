// What this GPU can do at most, measured by kernels that do nothing else: what shares of a profile are taken of.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/cuda/runtime.h"

namespace quire::cuda {

struct Ceilings {
  double read = 0.0;                         // bytes a second, from memory
  double f16 = 0.0, int8 = 0.0, e4m3 = 0.0;  // operations a second of the tensor cores, in a burst; 0: it has none
  int64_t read_bytes = 0;                    // the buffer that was read
};
// On the current device; takes some tens of milliseconds, and up to 2 GiB, less where less is free.
Ceilings measure_ceilings(StreamHandle stream);

// Reads `bytes` at p once. sink: 4 bytes that are not written, unless by chance.
void read_all(const std::byte* p, int64_t bytes, int blocks, uint32_t* sink, StreamHandle stream);

// Nothing else runs on the stream for so long: the host can enqueue what should then run without gaps.
void hold(double seconds, StreamHandle stream);

}  // namespace quire::cuda
