#include "kernels/rope.h"

#include <cmath>

#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/ops.h"

namespace quire {

std::vector<float> rope_frequencies(int64_t rope_dim, double theta) {
  check(rope_dim > 0 && rope_dim % 2 == 0, "rope: {} rotated dims; an even number is needed", rope_dim);
  std::vector<float> frequencies;
  // Rounded to f32 before it meets a position: at position 8000 the difference is visible.
  for (int64_t i = 0; i < rope_dim / 2; ++i) {
    frequencies.push_back(float(std::pow(theta, -2.0 * double(i) / double(rope_dim))));
  }
  return frequencies;
}

RopeTable::RopeTable(int64_t positions, const std::vector<float>& frequencies, float amplitude)
    : positions_(positions), dim_(2 * int64_t(frequencies.size())), values_(size_t(positions * dim_)) {
  check(!frequencies.empty(), "rope: no rotated dims; at least one pair is needed");
  for (int64_t i = 0; i < dim_ / 2; ++i) {
    for (int64_t p = 0; p < positions; ++p) {
      const float angle = float(p) * frequencies[size_t(i)];
      values_[size_t(p * dim_ + i)] = float(std::cos(double(angle))) * amplitude;
      values_[size_t(p * dim_ + dim_ / 2 + i)] = float(std::sin(double(angle))) * amplitude;
    }
  }
}

void RopeTable::upload(cuda::StreamHandle stream) {
  device_ = Buffer(values_.size() * sizeof(float), Device::cuda);
  if constexpr (kCuda) cuda::copy_async(device_.data(), values_.data(), device_.size(), stream);
}

void rope(const Context& ctx, const Tensor& x, int64_t heads, int64_t head_dim, const int32_t* positions,
          const RopeTable& table) {
  check(x.codec == id<F32> && x.cols >= heads * head_dim && table.dim() <= head_dim,
        "rope: {} heads of {} (first {} rotated) do not fit x {}", heads, head_dim, table.dim(), describe(x));
  const ProfileScope scope(ctx.profile, "rope", [&] {
    const int64_t values = x.rows * heads * table.dim();
    return OpCost{2 * values * int64_t(sizeof(float)), 3 * values};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      check(table.on_device() != nullptr, "rope: the table was not uploaded");
      return cuda::rope(ctx, x, heads, head_dim, positions, table.on_device(), table.dim());
    }
  }
  for (int64_t t = 0; t < x.rows; ++t) {
    check(positions[t] >= 0 && positions[t] < table.positions(), "rope: position {} is outside the context of {}",
          positions[t], table.positions());
  }
  const int64_t half = table.dim() / 2;
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  ctx.parallel_for(x.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* c = table.cos(positions[t]);
      const float* s = table.sin(positions[t]);
      for (int64_t h = 0; h < heads; ++h) {
        float* a = x.data.row<float>(t) + h * head_dim;
        simd.rotate(a, a + half, c, s, half);
      }
    }
  });
}

}  // namespace quire
