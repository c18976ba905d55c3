#include "kernels/random.h"

#include "kernels/cuda/ops.h"

namespace quire::cuda {

namespace {

__global__ void fill_normal_kernel(uint64_t seed, uint64_t first, float deviation, float* out, int64_t ld, int64_t rows,
                                   int64_t cols) {
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
      out[r * ld + c] = normal_at(seed, first + uint64_t(r * cols + c)) * deviation;
  }
}

}  // namespace

void fill_normal(const Context& ctx, uint64_t seed, int64_t first, float deviation, const Tensor& out) {
  if (out.rows == 0 || out.cols == 0) return;
  constexpr int64_t kMostBlocks = 4096;
  const unsigned blocks = unsigned(out.rows < kMostBlocks ? out.rows : kMostBlocks);
  fill_normal_kernel<<<blocks, 256, 0, ctx.stream>>>(seed, uint64_t(first), deviation, out.data.row<float>(0),
                                                     out.data.pitch / 4, out.rows, out.cols);
  check_launch("fill_normal_kernel");
}

}  // namespace quire::cuda
