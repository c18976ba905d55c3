#include "kernels/cuda/ops.h"
#include "kernels/cuda/warp.cuh"

namespace quire::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// A block takes a token, a warp a stretch of its columns: it counts, then writes behind those of the warps before it.
__global__ void take_outliers_kernel(const float* x, int64_t ld, int64_t cols, float threshold, int32_t* counts,
                                     uint32_t* entries) {
  __shared__ int32_t found[kWarps];
  const float* row = x + blockIdx.x * ld;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int64_t stretch = (cols + kThreads - 1) / kThreads * 32;
  const int64_t begin = warp * stretch, end = begin + stretch < cols ? begin + stretch : cols;
  int32_t count = 0;
  for (int64_t c0 = begin; c0 < end; c0 += 32) {
    count += __popc(__ballot_sync(kWholeWarp, c0 + lane < end && fabsf(row[c0 + lane]) >= threshold));
  }
  if (lane == 0) found[warp] = count;
  __syncthreads();
  uint32_t* to = entries + blockIdx.x * cols;
  for (int before = 0; before < warp; ++before) to += found[before];
  if (threadIdx.x == kThreads - 1) counts[blockIdx.x] = int32_t(to - (entries + blockIdx.x * cols)) + count;
  if (count == 0) return;
  for (int64_t c = begin + lane; c - lane < end; c += 32) {
    const float value = c < end ? row[c] : 0.0f;
    const unsigned taken = __ballot_sync(kWholeWarp, c < end && fabsf(value) >= threshold);
    if (taken >> lane & 1) {
      to[__popc(taken & ((1u << lane) - 1))] = uint32_t(c) | uint32_t(f32_to_f16(finite(value, 65504.0f))) << 16;
    }
    to += __popc(taken);
  }
}

// A thread takes one row of w and every gridDim.y-th token. packed: frag8, or null: canonical rows.
__global__ void add_outliers_kernel(const __grid_constant__ TokenOutliers x, const __grid_constant__ FragShape shape,
                                    const std::byte* packed, const __grid_constant__ Tensor rows, int64_t size,
                                    float* y, int64_t ldy) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= size) return;
  for (int64_t t = blockIdx.y; t < x.tokens; t += gridDim.y) {
    const int32_t count = x.counts[t];
    if (count == 0) continue;
    float sum = 0.0f;
    for (int32_t e = 0; e < count; ++e) {
      const uint32_t entry = x.entries[t * x.cols + e];
      const int64_t k = entry & 0xFFFF;
      const float weight = packed ? frag_value(shape, packed, n, k, false)
                                  : Int8::affine(rows, n, 0).scale * float(Int8::code(rows, n, k));
      sum = sum + f16_to_f32(uint16_t(entry >> 16)) * weight;
    }
    y[t * ldy + n] = y[t * ldy + n] + sum;
  }
}

}  // namespace

void take_outliers(const Context& ctx, const Tensor& x, float threshold, int32_t* counts, uint32_t* entries) {
  if (x.rows == 0) return;
  take_outliers_kernel<<<unsigned(x.rows), kThreads, 0, ctx.stream>>>(x.data.row<const float>(0), x.data.pitch / 4,
                                                                      x.cols, threshold, counts, entries);
  check_launch("take_outliers_kernel");
}

void add_outliers(const Context& ctx, const TokenOutliers& x, const FragShape& shape, const std::byte* packed,
                  const Tensor& rows, const Tensor& y) {
  constexpr int64_t kRows = 128, kMostTokens = 32768;
  const dim3 grid(unsigned((y.cols + kRows - 1) / kRows), unsigned(x.tokens < kMostTokens ? x.tokens : kMostTokens));
  add_outliers_kernel<<<grid, unsigned(kRows), 0, ctx.stream>>>(x, shape, packed, rows, y.cols, y.data.row<float>(0),
                                                                y.data.pitch / 4);
  check_launch("add_outliers_kernel");
}

}  // namespace quire::cuda
