#include "kernels/cuda/ops.h"
#include "kernels/cuda/warp.cuh"

namespace quire::cuda {

namespace {

__device__ float inverse_rms(float sum_of_squares, int64_t n, float eps) {
  return __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sum_of_squares, float(n)) + eps));
}

// A block takes one head of one row.
__global__ void norm_heads_kernel(float* x, int64_t ld, int64_t channels, const float* weight, float eps) {
  __shared__ float shared;
  float* head = x + blockIdx.x * ld + blockIdx.y * channels;
  const float inv = inverse_rms(sum_of_squares_block(head, channels, &shared), channels, eps);
  for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) head[c] = head[c] * inv * weight[c];
}

__global__ void add_normed_kernel(const float* x, int64_t ldx, int64_t cols, const float* weight, float eps, float* h,
                                  int64_t ldh) {
  __shared__ float shared;
  const float* in = x + blockIdx.x * ldx;
  float* out = h + blockIdx.x * ldh;
  const float inv = inverse_rms(sum_of_squares_block(in, cols, &shared), cols, eps);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) out[c] = out[c] + in[c] * inv * weight[c];
}

__global__ void scale_rows_kernel(float* x, int64_t ld, int64_t cols, float factor) {
  float* row = x + blockIdx.x * ld;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) row[c] *= factor;
}

__global__ void scale_columns_kernel(const float* x, int64_t ldx, int64_t cols, const float* factors, float* y,
                                     int64_t ldy, Epilogue epilogue) {
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    float value = x[blockIdx.x * ldx + c] * factors[c];
    if (epilogue.bias) value = value + epilogue.bias[c];
    if (epilogue.residual) value = value + epilogue.residual[blockIdx.x * ldy + c];
    y[blockIdx.x * ldy + c] = value;
  }
}

}  // namespace

void norm_heads(const Context& ctx, const Tensor& x, int64_t heads, const Tensor& weight, float eps) {
  if (x.rows == 0) return;
  const dim3 grid(unsigned(x.rows), static_cast<unsigned>(heads));
  norm_heads_kernel<<<grid, 64, 0, ctx.stream>>>(x.data.row<float>(0), x.data.pitch / 4, weight.cols,
                                                 weight.data.row<const float>(0), eps);
  check_launch("norm_heads_kernel");
}

void add_normed(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& h) {
  if (x.rows == 0) return;
  add_normed_kernel<<<unsigned(x.rows), 256, 0, ctx.stream>>>(x.data.row<const float>(0), x.data.pitch / 4, x.cols,
                                                              weight.data.row<const float>(0), eps,
                                                              h.data.row<float>(0), h.data.pitch / 4);
  check_launch("add_normed_kernel");
}

void scale_rows(const Context& ctx, const Tensor& x, float factor) {
  if (x.rows == 0) return;
  scale_rows_kernel<<<unsigned(x.rows), 256, 0, ctx.stream>>>(x.data.row<float>(0), x.data.pitch / 4, x.cols, factor);
  check_launch("scale_rows_kernel");
}

void scale_columns(const Context& ctx, const Tensor& x, const float* factors, const Tensor& y,
                   const Epilogue& epilogue) {
  if (x.rows == 0) return;
  scale_columns_kernel<<<unsigned(x.rows), 256, 0, ctx.stream>>>(
      x.data.row<const float>(0), x.data.pitch / 4, x.cols, factors, y.data.row<float>(0), y.data.pitch / 4, epilogue);
  check_launch("scale_columns_kernel");
}

}  // namespace quire::cuda
