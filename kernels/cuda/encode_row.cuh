// What kernels that encode rows share: ranges of groups, and codes into whole bytes.
#pragma once
#include <cstdint>

#include "kernels/cuda/warp.cuh"

namespace quire::cuda {

// The least and most of a warp's, of values that lie in one group.
__device__ inline void see_range(int* lo, int* hi, int least, int most) {
  const int l = __reduce_min_sync(kWholeWarp, least), m = __reduce_max_sync(kWholeWarp, most);
  if (threadIdx.x % 32 == 0) {
    atomicMin(lo, l);
    atomicMax(hi, m);
  }
}

// min and max of a group's keys (`ordered` values): by warp where its columns lie in one group.
__device__ inline void see(int* lo, int* hi, bool active, bool whole, int key) {
  const int least = active ? key : 0x7fffffff, most = active ? key : -0x7fffffff - 1;
  if (whole) {
    see_range(lo, hi, least, most);
  } else if (active) {
    atomicMin(lo, least);
    atomicMax(hi, most);
  }
}

// Byte b of a plane of Bits a column, which holds the bits from `shift` up of each field.
template <int Bits>
__device__ uint8_t packed(const uint8_t* fields, int64_t cols, int64_t b, int shift) {
  constexpr int kPerByte = 8 / Bits, kMask = (1 << Bits) - 1;
  int byte = 0;
#pragma unroll
  for (int k = 0; k < kPerByte; ++k) {
    const int64_t c = b * kPerByte + k;
    if (c < cols) byte |= ((fields[c] >> shift) & kMask) << (Bits * k);
  }
  return uint8_t(byte);
}

}  // namespace quire::cuda
