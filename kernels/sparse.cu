#include "kernels/cuda/ops.h"

namespace quire::cuda {

namespace {

// A thread takes one row of w and every gridDim.y-th token.
__global__ void add_sparse_kernel(const float* x, int64_t ldx, int64_t tokens, const __grid_constant__ SparseRows w,
                                  float* y, int64_t ldy) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= w.rows) return;
  const int32_t begin = w.begins[n], end = w.begins[n + 1];
  if (begin == end) return;
  for (int64_t m = blockIdx.y; m < tokens; m += gridDim.y) {
    const float* row = x + m * ldx;
    float sum = 0.0f;
    for (int32_t i = begin; i < end; ++i) {
      const uint32_t entry = w.entries[i];
      sum = fmaf(row[entry & 0xFFFF], f16_to_f32(uint16_t(entry >> 16)), sum);
    }
    y[m * ldy + n] = y[m * ldy + n] + sum;
  }
}

}  // namespace

void add_sparse(const Context& ctx, const float* x, int64_t ldx, int64_t rows, const SparseRows& w, const Tensor& y) {
  constexpr int64_t kThreads = 128, kMostTokens = 32768;
  const dim3 grid(unsigned((w.rows + kThreads - 1) / kThreads), unsigned(rows < kMostTokens ? rows : kMostTokens));
  add_sparse_kernel<<<grid, unsigned(kThreads), 0, ctx.stream>>>(x, ldx, rows, w, y.data.row<float>(0),
                                                                 y.data.pitch / 4);
  check_launch("add_sparse_kernel");
}

}  // namespace quire::cuda
