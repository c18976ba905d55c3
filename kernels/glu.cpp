#include "kernels/glu.h"

#include <vector>

#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/encode.h"
#include "kernels/math.h"

namespace quire {

void glu(const Context& ctx, const Tensor& x, const Tensor& y, Gate kind) {
  check(x.codec == id<F32> && x.cols == 2 * y.cols && x.rows == y.rows, "glu: x {} is not gate and up for y {}",
        describe(x), describe(y));
  check(y.scale.rows == 1, "glu: rows of y {} share scales", describe(y));
  const ProfileScope scope(ctx.profile, "glu", [&] {
    return OpCost{tensor_bytes(x) + tensor_bytes(y), 5 * y.rows * y.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      cuda::EncodePlan plan;
      plan.from = kind == Gate::silu ? cuda::RowsFrom::glu : cuda::RowsFrom::gelu_glu;
      plan.to = y;
      plan.x = x.data.row<const float>(0);
      plan.ld = x.data.pitch / 4;
      return cuda::encode_rows(ctx, plan, y.rows);
    }
  }
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> row;
    row.resize(size_t(y.cols));
    float* out = row.data();
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = x.data.row<const float>(t);
      if (kind == Gate::silu) {
        simd.glu(gate, gate + y.cols, y.cols, out);
      } else {
        for (int64_t c = 0; c < y.cols; ++c) out[c] = gelu_tanh(gate[c]) * gate[y.cols + c];
      }
      cpu::encode_row(simd, y, t, out);
    }
  });
}

}  // namespace quire
