#include "kernels/cuda/ops.h"

namespace quire::cuda {

namespace {

__global__ void rope_kernel(float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions,
                            const float* table, int64_t dim) {
  const int64_t half = dim / 2, t = blockIdx.x;
  const float* cos = table + positions[t] * dim;
  const float* sin = cos + half;
  for (int64_t j = threadIdx.x; j < heads * half; j += blockDim.x) {
    const int64_t i = j % half;
    float* a = x + t * ld + j / half * head_dim + i;
    float* b = a + half;
    const float left = *a, right = *b;
    *a = left * cos[i] - right * sin[i];
    *b = right * cos[i] + left * sin[i];
  }
}

}  // namespace

void rope(const Context& ctx, const Tensor& x, int64_t heads, int64_t head_dim, const int32_t* positions,
          const float* table, int64_t dim) {
  if (x.rows == 0) return;
  rope_kernel<<<unsigned(x.rows), 128, 0, ctx.stream>>>(x.data.row<float>(0), x.data.pitch / 4, heads, head_dim,
                                                        positions, table, dim);
  check_launch("rope_kernel");
}

}  // namespace quire::cuda
