#include "kernels/rmsnorm.h"

#include <cmath>
#include <vector>

namespace quire {

float sum_of_squares(const float* x, int64_t n) {
  float lane[16] = {};
  const int64_t whole = n / 16 * 16;
  for (int64_t i = 0; i < whole; i += 16) {
    for (int l = 0; l < 16; ++l) lane[l] += x[i + l] * x[i + l];
  }
  for (int64_t i = whole; i < n; ++i) lane[i - whole] += x[i] * x[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

void rmsnorm(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  check(x.codec == id<F32> && weight.codec == id<F32>, "rmsnorm: x {} and weight {} must be f32", describe(x),
        describe(weight));
  check(weight.rows == 1 && weight.cols == x.cols && y.rows == x.rows && y.cols == x.cols,
        "rmsnorm: x {}, weight {}, y {} do not fit", describe(x), describe(weight), describe(y));
  check(y.scale.rows == 1, "rmsnorm: rows of y {} share scales", describe(y));
  const ProfileScope scope(ctx.profile, "rmsnorm", [&] {
    return OpCost{tensor_bytes(x) + tensor_bytes(weight) + tensor_bytes(y), 4 * x.rows * x.cols};
  });
  const CodecInfo& to = info(y.codec);
  const float* w = weight.data.row<const float>(0);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> row;
    row.resize(size_t(x.cols));
    float* out = row.data();
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.data.row<const float>(t);
      const float inv = 1.0f / std::sqrt(sum_of_squares(in, x.cols) / float(x.cols) + eps);
      for (int64_t d = 0; d < x.cols; ++d) out[d] = in[d] * inv * w[d];
      to.encode(y, t, 1, out, x.cols, scale_source(y));
    }
  });
}

}  // namespace quire
