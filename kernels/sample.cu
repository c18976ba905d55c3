// Sampling where the logits are: a block a row. Weights are fixed-point, so every sum is exact in any order, and the
// choice depends on the row alone.
#include <cmath>

#include "kernels/cuda/ops.h"
#include "kernels/sample.h"
#include "quant/bits.h"

namespace quire::cuda {

namespace {

constexpr int kThreads = 1024;
using Count = unsigned long long;

// Greater is likelier: the logit, then the lower id. NaN counts as the least.
__device__ Count key_of(float logit, int64_t id) {
  const float x = logit == logit ? logit : -INFINITY;
  return Count(uint32_t(ordered(x)) ^ 0x80000000u) << 32 | (0xffffffffu - uint32_t(id));
}
__device__ int64_t id_of(Count key) { return int64_t(0xffffffffu - uint32_t(key)); }

struct Row {
  const float* logits;
  int64_t n;
  double peak, temperature, floor;
  // 1 for the likeliest is 2^44: 2^18 tokens fit 63 bits.
  __device__ Count weight(int64_t i) const {
    const double x = double(logits[i]);
    if (!(x > -INFINITY)) return 0;
    return Count(exp((x - peak) / temperature) * double(1ull << 44));
  }
  __device__ bool ruled_out(int64_t i) const { return !(logits[i] > -INFINITY) || double(logits[i]) < floor; }
};

struct Shared {
  Count digits[256];
  Count scan[kThreads / 32];
  Count key, left, best;
};

// Sum over the block, in every thread.
__device__ Count block_sum(Count v, Shared& s) {
  for (int width = 16; width > 0; width /= 2) v += __shfl_xor_sync(0xffffffffu, v, width);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.scan[threadIdx.x / 32] = v;
  __syncthreads();
  Count total = 0;
  for (int i = 0; i < kThreads / 32; ++i) total += s.scan[i];
  return total;
}

// The largest key for which the weights of all keys from it up reach `target`, digit by digit from the top. Only keys
// from `least` up count. weight(i) is 1 for a count.
template <class Weight>
__device__ Count select_key(const Row& row, Count least, Count target, Shared& s, Weight&& weight) {
  if (threadIdx.x == 0) {
    s.key = 0;
    s.left = target;
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int d = threadIdx.x; d < 256; d += kThreads) s.digits[d] = 0;
    __syncthreads();
    const Count prefix = s.key;
    for (int64_t i = threadIdx.x; i < row.n; i += kThreads) {
      const Count key = key_of(row.logits[i], i);
      const bool inside = shift == 56 || key >> (shift + 8) == prefix >> (shift + 8);
      if (key >= least && inside) atomicAdd(&s.digits[key >> shift & 255], weight(i));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int d = 255;
      while (d > 0 && s.digits[d] < s.left) s.left -= s.digits[d--];
      s.key |= Count(d) << shift;
    }
    __syncthreads();
  }
  return s.key;
}

__device__ Count likeliest(const float* logits, int64_t n, Shared& s) {
  Count best = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const Count key = key_of(logits[i], i);
    best = key > best ? key : best;
  }
  if (threadIdx.x == 0) s.best = 0;
  __syncthreads();
  atomicMax(&s.best, best);
  __syncthreads();
  return s.best;
}

// The first kept token, by id, at which the running sum of weights passes `target`.
template <class Kept>
__device__ void walk(const Row& row, Count target, Shared& s, int32_t fallback, int32_t* out, Kept&& kept) {
  const int64_t share = (row.n + kThreads - 1) / kThreads, begin = threadIdx.x * share;
  const int64_t end = begin + share < row.n ? begin + share : row.n;
  Count own = 0;
  for (int64_t i = begin; i < end; ++i) own += kept(i) ? row.weight(i) : 0;
  Count before = own;  // becomes the sum of the threads up to this one
  for (int width = 1; width < 32; width *= 2) {
    const Count left = __shfl_up_sync(0xffffffffu, before, width);
    if (threadIdx.x % 32 >= width) before += left;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 31) s.scan[threadIdx.x / 32] = before;
  if (threadIdx.x == 0) *out = fallback;
  __syncthreads();
  for (int w = 0; w < int(threadIdx.x / 32); ++w) before += s.scan[w];
  before -= own;
  if (target < before || target >= before + own) return;
  for (int64_t i = begin; i < end; ++i) {
    const Count w = kept(i) ? row.weight(i) : 0;
    if (target < before + w) {
      *out = int32_t(i);
      return;
    }
    before += w;
  }
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(float* all, int64_t ld, int64_t n, const SampleRow* rows, const LogitChange* changes, int32_t* ids) {
  __shared__ Shared s;
  const SampleRow plan = rows[blockIdx.x];
  float* logits = all + blockIdx.x * ld;
  for (int32_t i = plan.first + threadIdx.x; i < plan.first + plan.count; i += kThreads) {
    float& x = logits[changes[i].token];
    x = changed(x, changes[i], plan.repetition);
  }
  __syncthreads();
  const Count best = likeliest(logits, n, s);
  const float peak = logits[id_of(best)];
  int32_t* out = ids + blockIdx.x;
  if (!(peak > -INFINITY && peak < INFINITY) || plan.params.temperature <= 0.0f) {
    if (threadIdx.x == 0) *out = peak > -INFINITY && peak < INFINITY ? int32_t(id_of(best)) : -1;
    return;
  }
  Row row{logits, n, double(peak), double(plan.params.temperature), -INFINITY};
  if (plan.params.min_p > 0.0f) {
    const double share = log(double(plan.params.min_p));
    row.floor = row.peak + row.temperature * (share < 0.0 ? share : 0.0);
  }
  Count least = 0;
  if (plan.params.top_k > 0 && plan.params.top_k < n) {
    least = select_key(row, 0, Count(plan.params.top_k), s, [](int64_t) { return Count(1); });
    __syncthreads();
  }
  if (plan.params.top_p < 1.0f) {
    Count own = 0;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) own += key_of(logits[i], i) >= least ? row.weight(i) : 0;
    const double total = double(block_sum(own, s)), wanted = ceil(double(plan.params.top_p) * total);
    __syncthreads();
    least =
        select_key(row, least, wanted > 1.0 ? Count(wanted) : Count(1), s, [&](int64_t i) { return row.weight(i); });
    __syncthreads();
  }
  const auto kept = [&](int64_t i) { return key_of(logits[i], i) >= least && !row.ruled_out(i); };
  Count own = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) own += kept(i) ? row.weight(i) : 0;
  const double total = double(block_sum(own, s));
  walk(row, Count(plan.uniform * total), s, int32_t(id_of(best)), out, kept);
}

}  // namespace

void sample_rows(const Context& ctx, const Tensor& logits, const SampleRow* rows, const LogitChange* changes,
                 int32_t* ids) {
  if (logits.rows == 0) return;
  sample_kernel<<<unsigned(logits.rows), kThreads, 0, ctx.stream>>>(logits.data.row<float>(0), logits.data.pitch / 4,
                                                                    logits.cols, rows, changes, ids);
  check_launch("sample_kernel");
}

}  // namespace quire::cuda
