#include "kernels/row_ops.h"

#include <cmath>

#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/ops.h"

namespace quire {

namespace {

float inverse_rms(const cpu::RowSimd& simd, const float* x, int64_t n, float eps) {
  return 1.0f / std::sqrt(simd.sum_of_squares(x, n) / float(n) + eps);
}

}  // namespace

void norm_heads(const Context& ctx, const Tensor& x, int64_t heads, const Tensor& weight, float eps) {
  check(x.codec == id<F32> && weight.codec == id<F32> && weight.rows == 1 && x.cols == heads * weight.cols,
        "norm_heads: x {} is not f32 rows of {} heads for the weight {}", describe(x), heads, describe(weight));
  const ProfileScope scope(ctx.profile, "norm_heads", [&] {
    return OpCost{2 * tensor_bytes(x) + tensor_bytes(weight), 4 * x.rows * x.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::norm_heads(ctx, x, heads, weight, eps);
  }
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  const float* w = weight.data.row<const float>(0);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        float* row = x.data.row<float>(t) + h * weight.cols;
        simd.normalize(row, inverse_rms(simd, row, weight.cols, eps), w, weight.cols, row);
      }
    }
  });
}

void add_normed(const Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& h) {
  check(x.codec == id<F32> && h.codec == id<F32> && weight.codec == id<F32> && weight.rows == 1 &&
            weight.cols == x.cols && h.rows == x.rows && h.cols == x.cols,
        "add_normed: x {}, weight {} and h {} are not f32 rows that fit", describe(x), describe(weight), describe(h));
  const ProfileScope scope(ctx.profile, "add_normed", [&] {
    return OpCost{2 * tensor_bytes(h) + tensor_bytes(x) + tensor_bytes(weight), 5 * x.rows * x.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::add_normed(ctx, x, weight, eps, h);
  }
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  const float* w = weight.data.row<const float>(0);
  ctx.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.data.row<const float>(t);
      float* out = h.data.row<float>(t);
      const float inv = inverse_rms(simd, in, x.cols, eps);
      for (int64_t c = 0; c < x.cols; ++c) out[c] = out[c] + in[c] * inv * w[c];
    }
  });
}

void scale_rows(const Context& ctx, const Tensor& x, float factor) {
  check(x.codec == id<F32>, "scale_rows: x {} must be f32", describe(x));
  const ProfileScope scope(ctx.profile, "scale_rows", [&] { return OpCost{2 * tensor_bytes(x), x.rows * x.cols}; });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::scale_rows(ctx, x, factor);
  }
  ctx.parallel_for(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = x.data.row<float>(t);
      for (int64_t c = 0; c < x.cols; ++c) row[c] *= factor;
    }
  });
}

void scale_columns(const Context& ctx, const Tensor& x, const float* factors, const Tensor& y,
                   const Epilogue& epilogue) {
  check(x.codec == id<F32> && y.codec == id<F32> && x.rows == y.rows && x.cols == y.cols,
        "scale_columns: x {} and y {} must be f32 and of one shape", describe(x), describe(y));
  const ProfileScope scope(ctx.profile, "scale_columns", [&] {
    return OpCost{tensor_bytes(x) + (epilogue.residual ? 2 : 1) * tensor_bytes(y), 3 * x.rows * x.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return cuda::scale_columns(ctx, x, factors, y, epilogue);
  }
  ctx.parallel_for(x.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.data.row<const float>(t);
      float* out = y.data.row<float>(t);
      const float* residual = epilogue.residual ? epilogue.residual + t * (y.data.pitch / 4) : nullptr;
      for (int64_t c = 0; c < x.cols; ++c) {
        float value = in[c] * factors[c];
        if (epilogue.bias) value = value + epilogue.bias[c];
        if (residual) value = value + residual[c];
        out[c] = value;
      }
    }
  });
}

}  // namespace quire
