#include "kernels/outliers.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/panels.h"
#include "kernels/cpu/row_simd.h"

namespace quire {

namespace {

// Weights [n0, n1) of column k, decoded.
void decode_column(const PackedWeight& w, int64_t k, int64_t n0, int64_t n1, float* out) {
  if (!w.layout) {
    for (int64_t n = n0; n < n1; ++n) info(w.rows.codec).decode(w.rows, n, k, 1, out + n - n0);
    return;
  }
  const cpu::IntPanels s = cpu::int_panels(w.problem);
  for (int64_t n = n0; n < n1; ++n) {
    const std::byte* panel = w.data.data() + n / cpu::kPanel * s.panel_bytes;
    const int64_t lane = n % cpu::kPanel;
    const float scale = reinterpret_cast<const float*>(panel + s.meta_at)[lane];
    out[n - n0] = scale * float(int(panel[k / 4 * 64 + lane * 4 + k % 4]) - s.bias);
  }
}

}  // namespace

SparseRows take_outliers(const Context& ctx, const Tensor& x, float threshold, const Tensor& codes) {
  check(ctx.device == Device::cpu && x.codec == id<F32> && codes.codec == id<Int8> && codes.group == 0 &&
            codes.scale.pitch != 0 && x.rows == codes.rows && x.cols == codes.cols && x.cols <= 65536 && threshold > 0,
        "take_outliers: x {} at {} into {}; f32 and int8 with a scale a row, of one shape on the CPU, are needed",
        describe(x), threshold, describe(codes));
  const ProfileScope scope(ctx.profile, "take_outliers", [&] {
    return OpCost{tensor_bytes(x) + tensor_bytes(codes), x.rows * x.cols};
  });
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  int32_t* begins = ctx.scratch->take<int32_t>(x.rows + 1);
  const auto is_outlier = [threshold](float value) { return std::abs(value) >= threshold; };
  ctx.parallel_for(x.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x.data.row<const float>(t);
      begins[t + 1] = int32_t(std::count_if(row, row + x.cols, is_outlier));
    }
  });
  begins[0] = 0;
  for (int64_t t = 0; t < x.rows; ++t) begins[t + 1] += begins[t];
  uint32_t* entries = ctx.scratch->take<uint32_t>(begins[x.rows]);
  ctx.parallel_for(x.rows, 8, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> rest;
    rest.resize(size_t(x.cols));
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x.data.row<const float>(t);
      uint32_t* to = entries + begins[t];
      if (begins[t] == begins[t + 1]) {
        cpu::encode_row(simd, codes, t, row);
        continue;
      }
      for (int64_t c = 0; c < x.cols; ++c) {
        rest[size_t(c)] = is_outlier(row[c]) ? 0.0f : row[c];
        if (is_outlier(row[c])) *to++ = uint32_t(c) | uint32_t(f32_to_f16(finite(row[c], 65504.0f))) << 16;
      }
      cpu::encode_row(simd, codes, t, rest.data());
    }
  });
  return {x.rows, x.cols, begins[x.rows], begins, entries};
}

void add_outliers(const Context& ctx, const SparseRows& x, const PackedWeight& w, const Tensor& y) {
  check(ctx.device == Device::cpu && x.cols == w.problem.k && y.codec == id<F32> && y.rows == x.rows &&
            y.cols == w.problem.n && w.problem.w == (Format{id<Int8>, 0}) &&
            (!w.layout || w.layout == &cpu::kBytePanels),
        "add_outliers: ({}, {}) times w {} ({}, {}) into y {}; int8 with a scale a row, on the CPU, is needed", x.rows,
        x.cols, to_string(w.problem.w), w.problem.n, w.problem.k, describe(y));
  if (x.count == 0) return;
  const ProfileScope scope(ctx.profile, "add_outliers", [&] {
    return OpCost{x.count * y.cols + 2 * tensor_bytes(y), 2 * x.count * y.cols};
  });
  constexpr int64_t kGrain = 256;
  ctx.parallel_for((y.cols + kGrain - 1) / kGrain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * x.rows; i < end * x.rows; ++i) {
      const int64_t t = i % x.rows, n0 = i / x.rows * kGrain, n1 = std::min(n0 + kGrain, y.cols);
      if (x.begins[t] == x.begins[t + 1]) continue;
      float sum[kGrain] = {}, column[kGrain];
      for (int32_t e = x.begins[t]; e < x.begins[t + 1]; ++e) {
        const float value = f16_to_f32(uint16_t(x.entries[e] >> 16));
        decode_column(w, x.entries[e] & 0xFFFF, n0, n1, column);
        for (int64_t n = 0; n < n1 - n0; ++n) sum[n] += value * column[n];
      }
      for (int64_t n = 0; n < n1 - n0; ++n) y.data.row<float>(t)[n0 + n] += sum[n];
    }
  });
}

}  // namespace quire
