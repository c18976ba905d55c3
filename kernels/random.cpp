#include "kernels/random.h"

#include "kernels/cuda/ops.h"

namespace quire {

void fill_normal(const Context& ctx, uint64_t seed, int64_t first, float deviation, const Tensor& out) {
  check(out.codec == id<F32> && out.device == ctx.device && out.data.pitch % 4 == 0,
        "fill_normal: {} is not f32 on the device of the context", describe(out));
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::fill_normal(ctx, seed, first, deviation, out);
  }
  ctx.parallel_for(out.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = out.data.row<float>(r);
      for (int64_t c = 0; c < out.cols; ++c) row[c] = normal_at(seed, uint64_t(first + r * out.cols + c)) * deviation;
    }
  });
}

}  // namespace quire
