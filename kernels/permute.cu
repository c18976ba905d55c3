#include "kernels/cuda/ops.h"

namespace quire::cuda {

namespace {

__global__ void permute_columns_kernel(const float* x, int64_t ldx, const int32_t* order, int64_t cols, float* y,
                                       int64_t ldy) {
  const int64_t t = blockIdx.x, c = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (c < cols) y[t * ldy + c] = x[t * ldx + order[c]];
}

}  // namespace

void permute_columns(const Context& ctx, const Tensor& x, const int32_t* order, const Tensor& y) {
  if (x.rows == 0 || x.cols == 0) return;
  constexpr int kThreads = 256;
  const dim3 grid(unsigned(x.rows), unsigned((x.cols + kThreads - 1) / kThreads));
  permute_columns_kernel<<<grid, kThreads, 0, ctx.stream>>>(x.data.row<const float>(0), x.data.pitch / 4, order, x.cols,
                                                            y.data.row<float>(0), y.data.pitch / 4);
  check_launch("permute_columns_kernel");
}

}  // namespace quire::cuda
