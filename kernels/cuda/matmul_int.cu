// int8 activations against any integer format, as matmul.h writes it: exact int32 sums a segment, then f32. The generic
// path: fast kernels stand beside it.
#include "kernels/cuda/ops.h"
#include "quant/element.h"

namespace quire::cuda {

namespace {

constexpr int kTileN = 32, kTileK = 64, kWarps = 4, kRows = 8, kTileM = kWarps * kRows;

struct Problem {
  Tensor x, w;
  float* y;
  int64_t ld;
  Epilogue epilogue;
  int32_t gw, gx;   // values that share a scale; 0: the row
  int64_t segment;  // values in which both have one scale
};

// What a segment that ends with value `end` adds to the running sum t.
template <class C>
__device__ float add_segment(const Problem& p, int64_t m, int64_t n, int64_t end, int acc, int sum, float t) {
  const int64_t begin = (end - 1) / p.segment * p.segment;
  const float* sx = p.x.scale.row<const float>(m);
  const AffineParams a = C::affine(p.w, n, p.gw == 0 ? 0 : begin / p.gw);
  if (p.gw == 0 && p.gx == 0) {
    const float value = (float(acc) * sx[0]) * a.scale;
    return C::kOffset ? fmaf(a.offset * sx[0], float(sum), value) : value;
  }
  if (p.gx > 0) {
    float u = a.scale * float(acc);
    if (C::kOffset) u = fmaf(a.offset, float(sum), u);
    return fmaf(sx[begin / p.gx], u, t);
  }
  t = fmaf(a.scale, float(acc), t);
  return C::kOffset ? fmaf(a.offset, float(sum), t) : t;
}

template <class C>
__global__ void __launch_bounds__(kWarps * 32) matmul_int_kernel(const __grid_constant__ Problem p) {
  __shared__ int ws[kTileK][kTileN + 1];
  __shared__ int xs[kTileM][kTileK];
  const Tensor& w = p.w;
  const int64_t n0 = int64_t(blockIdx.x) * kTileN, m0 = int64_t(blockIdx.y) * kTileM;
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * kRows;
  const int64_t n = n0 + lane < w.rows ? n0 + lane : w.rows - 1;
  int acc[kRows] = {}, sum[kRows] = {};
  float t[kRows] = {};
  int64_t left = p.segment;
  for (int64_t k0 = 0; k0 < w.cols; k0 += kTileK) {
    const int width = int(w.cols - k0 < kTileK ? w.cols - k0 : kTileK);
    for (int i = threadIdx.x; i < kTileN * kTileK; i += kWarps * 32) {
      const int r = i / kTileK, k = i % kTileK;
      ws[k][r] = n0 + r < w.rows && k < width ? C::code(w, n0 + r, k0 + k) : 0;
    }
    for (int i = threadIdx.x; i < kTileM * kTileK; i += kWarps * 32) {
      const int m = i / kTileK, k = i % kTileK;
      xs[m][k] = m0 + m < p.x.rows && k < width ? p.x.data.row<const int8_t>(m0 + m)[k0 + k] : 0;
    }
    __syncthreads();
    for (int k = 0; k < width && m0 + first < p.x.rows; ++k) {
      const int code = ws[k][lane];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        acc[i] += xs[first + i][k] * code;
        if (C::kOffset) sum[i] += xs[first + i][k];
      }
      if (--left > 0 && k0 + k + 1 < w.cols) continue;
      left = p.segment;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int64_t m = m0 + first + i;
        if (m < p.x.rows) t[i] = add_segment<C>(p, m, n, k0 + k + 1, acc[i], sum[i], t[i]);
        acc[i] = sum[i] = 0;
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t m = m0 + first + i;
    if (m >= p.x.rows || n0 + lane >= w.rows) continue;
    float value = p.gx == 0 && p.gw > 0 ? p.x.scale.row<const float>(m)[0] * t[i] : t[i];
    if (p.epilogue.bias) value = value + p.epilogue.bias[n];
    if (p.epilogue.residual) value = value + p.epilogue.residual[m * p.ld + n];
    p.y[m * p.ld + n] = value;
  }
}

}  // namespace

void matmul_int(const Context& ctx, const Tensor& x, const Tensor& w, const Tensor& y, const Epilogue& epilogue) {
  Problem p{x, w, y.data.row<float>(0), y.data.pitch / 4, epilogue, w.group, x.group, w.cols};
  if (w.codec == id<TwoLevel4>) p.gw = 0;
  if (p.gw > 0 || p.gx > 0) p.segment = p.gw == 0 ? p.gx : p.gx == 0 ? p.gw : p.gw < p.gx ? p.gw : p.gx;
  const dim3 grid(unsigned((w.rows + kTileN - 1) / kTileN), unsigned((x.rows + kTileM - 1) / kTileM));
  visit(w.codec, [&]<class C>(C) {
    if constexpr (C::kInteger) matmul_int_kernel<C><<<grid, kWarps * 32, 0, ctx.stream>>>(p);
  });
  check_launch("matmul_int_kernel");
}

}  // namespace quire::cuda
