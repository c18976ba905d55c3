#include "kernels/outliers.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/cpu/panels.h"
#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/ops.h"
#include "kernels/frag_pack.h"
#include "kernels/matmul_frag.h"

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

TokenOutliers take_outliers(const Context& ctx, const Tensor& x, float threshold, const Tensor& codes) {
  check(
      x.device == ctx.device && codes.device == ctx.device && x.codec == id<F32> && x.data.pitch % 4 == 0 &&
          codes.codec == id<Int8> && codes.group == 0 && codes.scale.pitch != 0 && x.rows == codes.rows &&
          x.cols == codes.cols && x.cols <= 65536 && threshold > 0,
      "take_outliers: x {} at {} into {}; f32 and int8 with a scale a row, of one shape on the device of the context, "
      "are needed",
      describe(x), threshold, describe(codes));
  const ProfileScope scope(ctx.profile, "take_outliers", [&] {
    return OpCost{tensor_bytes(x) + tensor_bytes(codes), x.rows * x.cols};
  });
  int32_t* counts = ctx.scratch->take<int32_t>(x.rows);
  uint32_t* entries = ctx.scratch->take<uint32_t>(x.rows * x.cols);
  const TokenOutliers taken{x.rows, x.cols, counts, entries};
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      cuda::take_outliers(ctx, x, threshold, counts, entries);
      cuda::EncodePlan rest;
      rest.to = codes;
      rest.x = x.data.row<const float>(0);
      rest.ld = x.data.pitch / 4;
      rest.zero_from = threshold;
      cuda::encode_rows(ctx, rest, x.rows);
      return taken;
    }
  }
  const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
  ctx.parallel_for(x.rows, 8, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> rest;
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x.data.row<const float>(t);
      uint32_t *first = entries + t * x.cols, *to = first;
      rest.assign(row, row + x.cols);
      for (int64_t c = 0; c < x.cols; ++c) {
        if (!(std::abs(row[c]) >= threshold)) continue;
        *to++ = uint32_t(c) | uint32_t(f32_to_f16(finite(row[c], 65504.0f))) << 16;
        rest[size_t(c)] = 0.0f;
      }
      counts[t] = int32_t(to - first);
      cpu::encode_row(simd, codes, t, rest.data());
    }
  });
  return taken;
}

void add_outliers(const Context& ctx, const TokenOutliers& x, const PackedWeight& w, const Tensor& y) {
  const bool on_gpu = ctx.device == Device::cuda;
  check(y.device == ctx.device && x.cols == w.problem.k && y.codec == id<F32> && y.rows == x.tokens &&
            y.cols == w.problem.n && w.problem.w == (Format{id<Int8>, 0}) &&
            (!w.layout || w.layout == (on_gpu ? &kFrag8 : &cpu::kBytePanels)),
        "add_outliers: ({}, {}) times w {} ({}, {}) into y {}; int8 with a scale a row, on the device of the context, "
        "is needed",
        x.tokens, x.cols, to_string(w.problem.w), w.problem.n, w.problem.k, describe(y));
  if (x.tokens == 0) return;
  const ProfileScope scope(ctx.profile, "add_outliers", [&] {
    // How many there are only the device knows: on a GPU nothing but y is counted.
    const int64_t count = on_gpu ? 0 : std::accumulate(x.counts, x.counts + x.tokens, int64_t{0});
    return OpCost{count * y.cols + 2 * tensor_bytes(y), 2 * count * y.cols};
  });
  if constexpr (kCuda) {
    if (on_gpu) {
      const FragShape shape = w.layout ? *frag_shape(w.problem.w, w.problem.x, w.problem.n, w.problem.k) : FragShape{};
      return cuda::add_outliers(ctx, x, shape, w.layout ? w.data.data() : nullptr, w.rows, y);
    }
  }
  constexpr int64_t kGrain = 256;
  ctx.parallel_for((y.cols + kGrain - 1) / kGrain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * x.tokens; i < end * x.tokens; ++i) {
      const int64_t t = i % x.tokens, n0 = i / x.tokens * kGrain, n1 = std::min(n0 + kGrain, y.cols);
      if (x.counts[t] == 0) continue;
      float sum[kGrain] = {}, column[kGrain];
      for (int32_t e = 0; e < x.counts[t]; ++e) {
        const uint32_t entry = x.entries[t * x.cols + e];
        const float value = f16_to_f32(uint16_t(entry >> 16));
        decode_column(w, entry & 0xFFFF, n0, n1, column);
        for (int64_t n = 0; n < n1 - n0; ++n) sum[n] += value * column[n];
      }
      for (int64_t n = 0; n < n1 - n0; ++n) y.data.row<float>(t)[n0 + n] += sum[n];
    }
  });
}

}  // namespace quire
