#include "kernels/cuda/ops.h"
#include "kernels/cuda/shared_memory.cuh"

namespace quire::cuda {

namespace {

// A block transforms one run of K * 2^r columns of a row, in shared memory.
__global__ void hadamard_kernel(const float* x, int64_t ldx, HadamardShape h, float* out, int64_t ld) {
  extern __shared__ float v[];  // (K, 2^r)
  const int64_t order = h.k * h.power, begin = blockIdx.y * order;
  const float* in = x + blockIdx.x * ldx + begin;
  for (int64_t i = threadIdx.x; i < order; i += blockDim.x) v[i] = h.diagonal ? in[i] * h.diagonal[begin + i] : in[i];
  for (int64_t distance = 1; distance < h.power; distance *= 2) {
    __syncthreads();
    for (int64_t i = threadIdx.x; i < order / 2; i += blockDim.x) {
      const int64_t j = i / distance * 2 * distance + i % distance;
      const float a = v[j], b = v[j + distance];
      v[j] = a + b;
      v[j + distance] = a - b;
    }
  }
  __syncthreads();
  float* to = out + blockIdx.x * ld + begin;
  for (int64_t i = threadIdx.x; i < order; i += blockDim.x) {
    const int64_t row = i / h.power, t = i % h.power;
    float sum = 0.0f;
    for (int64_t k = 0; k < h.k; ++k) {
      const bool plus = (h.transpose ? h.signs[k * h.k + row] : h.signs[row * h.k + k]) > 0;
      const float value = v[k * h.power + t];
      sum = k == 0 ? (plus ? value : -value) : (plus ? sum + value : sum - value);
    }
    to[i] = sum * h.scale;
  }
}

}  // namespace

void hadamard(const Context& ctx, const Tensor& x, const HadamardShape& h, float* out, int64_t ld) {
  if (x.rows == 0) return;
  const int64_t order = h.k * h.power;
  const size_t bytes = size_t(order) * sizeof(float);
  if (bytes > 48 * 1024) allow_shared_memory(hadamard_kernel, bytes, "hadamard: shared memory");
  const dim3 grid{unsigned(x.rows), unsigned(x.cols / order)};
  hadamard_kernel<<<grid, order >= 1024 ? 256 : 128, bytes, ctx.stream>>>(x.data.row<const float>(0), x.data.pitch / 4,
                                                                          h, out, ld);
  check_launch("hadamard_kernel");
}

}  // namespace quire::cuda
