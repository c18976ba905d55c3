#include "kernels/glu.h"

#include <vector>

#include "kernels/math.h"

namespace quire {

void glu(const Context& ctx, const Tensor& x, const Tensor& y) {
  check(x.codec == id<F32> && x.cols == 2 * y.cols && x.rows == y.rows, "glu: x {} is not gate and up for y {}",
        describe(x), describe(y));
  check(y.scale.rows == 1, "glu: rows of y {} share scales", describe(y));
  const ProfileScope scope(ctx.profile, "glu", [&] {
    return OpCost{tensor_bytes(x) + tensor_bytes(y), 5 * y.rows * y.cols};
  });
  const CodecInfo& to = info(y.codec);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> row;
    row.resize(size_t(y.cols));
    float* out = row.data();
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = x.data.row<const float>(t);
      const float* up = gate + y.cols;
      for (int64_t f = 0; f < y.cols; ++f) out[f] = silu(gate[f]) * up[f];
      to.encode(y, t, 1, out, y.cols, scale_source(y));
    }
  });
}

}  // namespace quire
