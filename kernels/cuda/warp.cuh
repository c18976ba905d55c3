// Reductions in the written order of the house: lane i mod 16 takes its terms in order, then l += l + 8, 4, 2, 1.
#pragma once
#include <cstdint>

namespace quire::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

// The tree over 16 lanes held by threads 0..15 of a warp; the result is in thread 0. All 32 threads take part.
__device__ inline float lane_tree(float lane) {
#pragma unroll
  for (int width = 8; width > 0; width /= 2) lane += __shfl_down_sync(kWholeWarp, lane, width);
  return lane;
}

// sum of x[i]^2 as rmsnorm.h writes it, by the first warp; every thread of the block gets it. `shared`: one float.
__device__ inline float sum_of_squares_block(const float* x, int64_t n, float* shared) {
  if (threadIdx.x < 32) {
    float lane = 0.0f;
    if (threadIdx.x < 16) {
#pragma unroll 8
      for (int64_t i = threadIdx.x; i < n; i += 16) lane += x[i] * x[i];
    }
    lane = lane_tree(lane);
    if (threadIdx.x == 0) *shared = lane;
  }
  __syncthreads();
  return *shared;
}

}  // namespace quire::cuda
