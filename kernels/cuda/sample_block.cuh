// Sampling of one row by a block, where the logits are. Weights are fixed-point, so every sum is exact in any order,
// and the choice depends on the row alone.
#pragma once
#include <cmath>

#include "kernels/sample.h"
#include "quant/bits.h"

namespace quire::cuda {

constexpr int kSampleThreads = 1024;
using SampleCount = unsigned long long;

// Greater is likelier: the logit, then the lower id. NaN counts as the least.
__device__ inline SampleCount key_of(float logit, int64_t id) {
  const float x = logit == logit ? logit : -INFINITY;
  return SampleCount(uint32_t(ordered(x)) ^ 0x80000000u) << 32 | (0xffffffffu - uint32_t(id));
}
__device__ inline int64_t id_of(SampleCount key) { return int64_t(0xffffffffu - uint32_t(key)); }

struct SampleOf {
  const float* logits;
  int64_t n;
  double peak, temperature, floor;
  // 1 for the likeliest is 2^44: 2^18 tokens fit 63 bits.
  __device__ inline SampleCount weight(int64_t i) const {
    const double x = double(logits[i]);
    if (!(x > -INFINITY)) return 0;
    return SampleCount(exp((x - peak) / temperature) * double(1ull << 44));
  }
  __device__ bool ruled_out(int64_t i) const { return !(logits[i] > -INFINITY) || double(logits[i]) < floor; }
};

struct SampleShared {
  SampleCount digits[256];
  SampleCount scan[kSampleThreads / 32];
  SampleCount key, left, best;
  int32_t chosen;
};

// Sum over the block, in every thread.
__device__ inline SampleCount block_sum(SampleCount v, SampleShared& s) {
  for (int width = 16; width > 0; width /= 2) v += __shfl_xor_sync(0xffffffffu, v, width);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.scan[threadIdx.x / 32] = v;
  __syncthreads();
  SampleCount total = 0;
  for (int i = 0; i < kSampleThreads / 32; ++i) total += s.scan[i];
  return total;
}

// The largest key for which the weights of all keys from it up reach `target`, digit by digit from the top. Only keys
// from `least` up count. weight(i) is 1 for a count.
template <class Weight>
__device__ SampleCount select_key(const SampleOf& row, SampleCount least, SampleCount target, SampleShared& s,
                                  Weight&& weight) {
  if (threadIdx.x == 0) {
    s.key = 0;
    s.left = target;
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int d = threadIdx.x; d < 256; d += kSampleThreads) s.digits[d] = 0;
    __syncthreads();
    const SampleCount prefix = s.key;
    for (int64_t i = threadIdx.x; i < row.n; i += kSampleThreads) {
      const SampleCount key = key_of(row.logits[i], i);
      const bool inside = shift == 56 || key >> (shift + 8) == prefix >> (shift + 8);
      if (key >= least && inside) atomicAdd(&s.digits[key >> shift & 255], weight(i));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int d = 255;
      while (d > 0 && s.digits[d] < s.left) s.left -= s.digits[d--];
      s.key |= SampleCount(d) << shift;
    }
    __syncthreads();
  }
  return s.key;
}

__device__ inline SampleCount likeliest(const float* logits, int64_t n, SampleShared& s) {
  SampleCount best = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < n; i += kSampleThreads) {
    const SampleCount key = key_of(logits[i], i);
    best = key > best ? key : best;
  }
  for (int width = 16; width > 0; width /= 2) {
    const SampleCount other = __shfl_xor_sync(0xffffffffu, best, width);
    best = other > best ? other : best;
  }
  if (threadIdx.x == 0) s.best = 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) atomicMax(&s.best, best);
  __syncthreads();
  return s.best;
}

// The first kept token, by id, at which the running sum of weights passes `target`.
template <class Kept>
__device__ void walk(const SampleOf& row, SampleCount target, SampleShared& s, int32_t fallback, Kept&& kept) {
  const int64_t share = (row.n + kSampleThreads - 1) / kSampleThreads, begin = threadIdx.x * share;
  const int64_t end = begin + share < row.n ? begin + share : row.n;
  SampleCount own = 0;
  for (int64_t i = begin; i < end; ++i) own += kept(i) ? row.weight(i) : 0;
  SampleCount before = own;  // becomes the sum of the threads up to this one
  for (int width = 1; width < 32; width *= 2) {
    const SampleCount left = __shfl_up_sync(0xffffffffu, before, width);
    if (threadIdx.x % 32 >= width) before += left;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 31) s.scan[threadIdx.x / 32] = before;
  if (threadIdx.x == 0) s.chosen = fallback;
  __syncthreads();
  for (int w = 0; w < int(threadIdx.x / 32); ++w) before += s.scan[w];
  before -= own;
  if (target < before || target >= before + own) return;
  for (int64_t i = begin; i < end; ++i) {
    const SampleCount w = kept(i) ? row.weight(i) : 0;
    if (target < before + w) {
      s.chosen = int32_t(i);
      return;
    }
    before += w;
  }
}

// The row's token, in every thread of the block; -1 if the largest logit is not finite. logits (n), already biased and
// penalised.
__device__ inline int32_t sample_block(const float* logits, int64_t n, const SampleParams& params, double uniform,
                                       SampleShared& s) {
  const SampleCount best = likeliest(logits, n, s);
  const float peak = logits[id_of(best)];
  if (!(peak > -INFINITY && peak < INFINITY) || params.temperature <= 0.0f) {
    return peak > -INFINITY && peak < INFINITY ? int32_t(id_of(best)) : -1;
  }
  SampleOf row{logits, n, double(peak), double(params.temperature), -INFINITY};
  if (params.min_p > 0.0f) {
    const double share = log(double(params.min_p));
    row.floor = row.peak + row.temperature * (share < 0.0 ? share : 0.0);
  }
  SampleCount least = 0;
  if (params.top_k > 0 && params.top_k < n) {
    least = select_key(row, 0, SampleCount(params.top_k), s, [](int64_t) { return SampleCount(1); });
    __syncthreads();
  }
  if (params.top_p < 1.0f) {
    SampleCount own = 0;
    for (int64_t i = threadIdx.x; i < n; i += kSampleThreads) own += key_of(logits[i], i) >= least ? row.weight(i) : 0;
    const double total = double(block_sum(own, s)), wanted = ceil(double(params.top_p) * total);
    __syncthreads();
    least = select_key(row, least, wanted > 1.0 ? SampleCount(wanted) : SampleCount(1), s,
                       [&](int64_t i) { return row.weight(i); });
    __syncthreads();
  }
  const auto kept = [&](int64_t i) { return key_of(logits[i], i) >= least && !row.ruled_out(i); };
  SampleCount own = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSampleThreads) own += kept(i) ? row.weight(i) : 0;
  const double total = double(block_sum(own, s));
  walk(row, SampleCount(uniform * total), s, int32_t(id_of(best)), kept);
  __syncthreads();
  return s.chosen;
}

}  // namespace quire::cuda
