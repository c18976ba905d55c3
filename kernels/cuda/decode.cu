#include "kernels/cuda/encode.h"
#include "quant/element.h"

namespace quire::cuda {

namespace {

template <class C>
__global__ void decode_kernel(Tensor src, const int32_t* gather, int64_t row0, int64_t rows, float* out, int64_t ld) {
  for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    const int64_t r = gather ? gather[i] : row0 + i;
    for (int64_t c = blockIdx.y * blockDim.x + threadIdx.x; c < src.cols; c += gridDim.y * blockDim.x) {
      out[i * ld + c] = decode_at<C>(src, r, c);
    }
  }
}

struct PlaneCopies {
  PlaneCopy planes[4];
};
__global__ void copy_rows_kernel(PlaneCopies copies, const int32_t* gather, int64_t rows) {
  const PlaneCopy& p = copies.planes[blockIdx.y];
  for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    const std::byte* from = p.from.row<const std::byte>(gather ? gather[i] : i);
    std::byte* to = p.to.row<std::byte>(i);
    for (int64_t b = threadIdx.x; b < p.bytes; b += blockDim.x) to[b] = from[b];
  }
}

}  // namespace

void decode_rows(const Context& ctx, const Tensor& src, const int32_t* gather, int64_t row0, int64_t rows, float* out,
                 int64_t ld) {
  if (rows == 0 || src.cols == 0) return;
  constexpr int kThreads = 128;
  const dim3 grid(unsigned(rows < 1 << 20 ? rows : 1 << 20), unsigned((src.cols + 4 * kThreads - 1) / (4 * kThreads)));
  visit(src.codec,
        [&]<class C>(C) { decode_kernel<C><<<grid, kThreads, 0, ctx.stream>>>(src, gather, row0, rows, out, ld); });
  check_launch("decode_kernel");
}

void copy_rows(const Context& ctx, const PlaneCopy* planes, int count, const int32_t* gather, int64_t rows) {
  if (rows == 0 || count == 0) return;
  PlaneCopies copies{};
  for (int i = 0; i < count; ++i) copies.planes[i] = planes[i];
  const dim3 grid(unsigned(rows < 1 << 20 ? rows : 1 << 20), unsigned(count));
  copy_rows_kernel<<<grid, 128, 0, ctx.stream>>>(copies, gather, rows);
  check_launch("copy_rows_kernel");
}

}  // namespace quire::cuda
