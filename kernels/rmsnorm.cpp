#include "kernels/rmsnorm.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/encode.h"

namespace quire {

float sum_of_squares(const float* x, int64_t n) { return cpu::row_simd(Isa::baseline).sum_of_squares(x, n); }

void rmsnorm(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  check(x.codec == id<F32> && weight.codec == id<F32>, "rmsnorm: x {} and weight {} must be f32", describe(x),
        describe(weight));
  check(weight.rows == 1 && weight.cols == x.cols && y.rows == x.rows && y.cols == x.cols,
        "rmsnorm: x {}, weight {}, y {} do not fit", describe(x), describe(weight), describe(y));
  check(y.scale.rows == 1, "rmsnorm: rows of y {} share scales", describe(y));
  const ProfileScope scope(ctx.profile, "rmsnorm", [&] {
    return OpCost{tensor_bytes(x) + tensor_bytes(weight) + tensor_bytes(y), 4 * x.rows * x.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      cuda::EncodePlan plan;
      plan.from = cuda::RowsFrom::norm;
      plan.to = y;
      plan.x = x.data.row<const float>(0);
      plan.ld = x.data.pitch / 4;
      plan.weight = weight.data.row<const float>(0);
      plan.eps = eps;
      return cuda::encode_rows(ctx, plan, y.rows);
    }
  }
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  const float* w = weight.data.row<const float>(0);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> row;
    row.resize(size_t(x.cols));
    float* out = row.data();
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.data.row<const float>(t);
      const float inv = 1.0f / std::sqrt(simd.sum_of_squares(in, x.cols) / float(x.cols) + eps);
      simd.normalize(in, inv, w, x.cols, out);
      cpu::encode_row(simd, y, t, out);
    }
  });
}

}  // namespace quire
