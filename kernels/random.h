// Normal numbers that follow from a seed and their place alone, so that any part of a matrix can be made anywhere, with
// the same bits on every device. Not for secrets; the tails end at 3.46 deviations.
#pragma once
#include "kernels/context.h"

namespace quire {

// Number i of a stream: the sum of four uniform 16-bit integers, made to mean 0 and deviation 1.
QUIRE_HD inline float normal_at(uint64_t seed, uint64_t i) {
  uint64_t x = seed + (i + 1) * 0x9E3779B97F4A7C15u;  // splitmix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  const int sum = int(x & 0xFFFF) + int(x >> 16 & 0xFFFF) + int(x >> 32 & 0xFFFF) + int(x >> 48);
  constexpr float kDeviation = 37837.2265f;  // sqrt(4 (2^32 - 1) / 12)
  return float(sum - 2 * 0xFFFF) * (1.0f / kDeviation);
}

// out (R, N) f32 on whole floats: values first, first + 1, ... of the stream, times `deviation`, row after row.
void fill_normal(const Context& ctx, uint64_t seed, int64_t first, float deviation, const Tensor& out);

}  // namespace quire
