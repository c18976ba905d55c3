// Any weight format against f32 rows: one fma chain over k an output, as matmul.h writes it. The generic path: fast
// kernels stand beside it.
#include "kernels/cuda/ops.h"
#include "quant/element.h"

namespace quire::cuda {

namespace {

constexpr int kTileN = 32, kTileK = 64, kWarps = 4, kRows = 8, kTileM = kWarps * kRows;

struct Out {
  float* y;
  int64_t ld;
  Epilogue epilogue;
  __device__ void store(int64_t m, int64_t n, float value) const {
    if (epilogue.bias) value = value + epilogue.bias[n];
    if (epilogue.residual) value = value + epilogue.residual[m * ld + n];
    y[m * ld + n] = value;
  }
};

template <class C>
__global__ void __launch_bounds__(kWarps * 32)
    matmul_float_kernel(const float* x, int64_t ldx, int64_t rows, const __grid_constant__ Tensor w, Out out) {
  __shared__ float ws[kTileK][kTileN + 1];
  __shared__ float xs[kTileM][kTileK];
  const int64_t n0 = int64_t(blockIdx.x) * kTileN, m0 = int64_t(blockIdx.y) * kTileM;
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * kRows;
  float acc[kRows] = {};
  for (int64_t k0 = 0; k0 < w.cols; k0 += kTileK) {
    const int width = int(w.cols - k0 < kTileK ? w.cols - k0 : kTileK);
    for (int i = threadIdx.x; i < kTileN * kTileK; i += kWarps * 32) {
      const int n = i / kTileK, k = i % kTileK;
      ws[k][n] = n0 + n < w.rows && k < width ? decode_at<C>(w, n0 + n, k0 + k) : 0.0f;
    }
    for (int i = threadIdx.x; i < kTileM * kTileK; i += kWarps * 32) {
      const int m = i / kTileK, k = i % kTileK;
      xs[m][k] = m0 + m < rows && k < width ? x[(m0 + m) * ldx + k0 + k] : 0.0f;
    }
    __syncthreads();
    if (m0 + first < rows) {
      for (int k = 0; k < width; ++k) {
        const float value = ws[k][lane];
#pragma unroll
        for (int i = 0; i < kRows; ++i) acc[i] = fmaf(xs[first + i][k], value, acc[i]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (m0 + first + i < rows && n0 + lane < w.rows) out.store(m0 + first + i, n0 + lane, acc[i]);
  }
}

}  // namespace

void matmul_float(const Context& ctx, const float* x, int64_t ldx, int64_t rows, const Tensor& w, const Tensor& y,
                  const Epilogue& epilogue) {
  const Out out{y.data.row<float>(0), y.data.pitch / 4, epilogue};
  const dim3 grid(unsigned((w.rows + kTileN - 1) / kTileN), unsigned((rows + kTileM - 1) / kTileM));
  visit(w.codec,
        [&]<class C>(C) { matmul_float_kernel<C><<<grid, kWarps * 32, 0, ctx.stream>>>(x, ldx, rows, w, out); });
  check_launch("matmul_float_kernel");
}

}  // namespace quire::cuda
