#include "kernels/permute.h"

#include "kernels/cuda/ops.h"

namespace quire {

void permute_columns(const Context& ctx, const Tensor& x, const int32_t* order, const Tensor& y) {
  check(x.codec == id<F32> && y.codec == id<F32> && x.rows == y.rows && x.cols == y.cols && x.data.ptr != y.data.ptr,
        "permute_columns: x {} and y {} must be f32, of one shape and apart", describe(x), describe(y));
  const ProfileScope scope(ctx.profile, "permute", [&] { return OpCost{tensor_bytes(x) + tensor_bytes(y), 0}; });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::permute_columns(ctx, x, order, y);
  }
  ctx.parallel_for(x.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.data.row<const float>(t);
      float* out = y.data.row<float>(t);
      for (int64_t c = 0; c < x.cols; ++c) out[c] = in[order[c]];
    }
  });
}

}  // namespace quire
