// What the tensor-core attention kernels share: loads, fragments, one warp's online softmax over tokens of one kv head.
#pragma once
#include <cuda_fp16.h>

#include "kernels/cuda/attention_args.h"
#include "kernels/cuda/kv_fields.h"

namespace quire::cuda {

constexpr float kNothing = -__builtin_huge_valf();
constexpr int kWeightShift = 12;  // weights p * scale lie in [0, 2^12] as f16: far above its subnormals

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float power_of_two(int e) { return __uint_as_float(uint32_t(127 + e) << 23); }

__device__ inline uint32_t pack_half2(float lo, float hi) {
  const __half2 h = __floats2half2_rn(lo, hi);
  return *reinterpret_cast<const uint32_t*>(&h);
}
__device__ inline __half2 as_half2(uint32_t u) { return *reinterpret_cast<const __half2*>(&u); }
__device__ inline uint32_t as_word(__half2 h) { return *reinterpret_cast<const uint32_t*>(&h); }

__device__ inline void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                           uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// 8 x 8 f16, a pair of a row in each lane: its transpose, likewise.
__device__ inline uint32_t transpose8(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// Bytes of the cache, read once: around L1. zero: nothing is read and the words are 0.
template <int Bytes>
__device__ inline void load(const std::byte* p, bool valid, uint32_t* out) {
  constexpr int kWords = (Bytes + 3) / 4;
#pragma unroll
  for (int i = 0; i < kWords; ++i) out[i] = 0;
  if (!valid) return;
  if constexpr (Bytes == 16) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "l"(p));
  } else if constexpr (Bytes == 8) {
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "l"(p));
  } else if constexpr (Bytes == 4) {
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(out[0]) : "l"(p));
  } else if constexpr (Bytes == 2) {
    uint16_t x;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(x) : "l"(p));
    out[0] = x;
  } else {
    static_assert(Bytes == 1, "a load of a size that no format needs");
    uint32_t x;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(x) : "l"(p));
    out[0] = x;
  }
}
// A lane's part of a row, in pieces.
template <class Lane>
__device__ inline void load_row(const std::byte* row, int lane, bool valid, uint32_t* out) {
#pragma unroll
  for (int p = 0; p < Lane::kPieces; ++p) {
    load<Lane::kPiece>(row + Lane::row_byte(p * Lane::kPiece, lane), valid, out + p * (Lane::kPiece / 4));
  }
}

// The prefix sums of `n` counts, prefix[n + 1], by all threads of a block of 128. count(i) is asked once.
template <class Count>
__device__ void prefix_sums(int n, int* prefix, Count count) {
  __shared__ int warp_total[4];
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  int before = 0;
  if (thread == 0) prefix[0] = 0;
  for (int base = 0; base < n; base += 128) {
    int x = base + thread < n ? count(base + thread) : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int y = __shfl_up_sync(~0u, x, step);
      if (lane >= step) x += y;
    }
    if (lane == 31) warp_total[warp] = x;
    __syncthreads();
    for (int w = 0; w < warp; ++w) x += warp_total[w];
    if (base + thread < n) prefix[base + thread + 1] = before + x;
    before += warp_total[0] + warp_total[1] + warp_total[2] + warp_total[3];
    __syncthreads();
  }
}
// The i with prefix[i] <= x < prefix[i + 1].
__device__ inline int find_interval(const int* prefix, int n, int x) {
  int lo = 0, hi = n;
  while (hi - lo > 1) {
    const int mid = (lo + hi) / 2;
    if (prefix[mid] <= x) {
      lo = mid;
    } else {
      hi = mid;
    }
  }
  return lo;
}

}  // namespace quire::cuda
