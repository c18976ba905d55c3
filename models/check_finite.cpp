#include "models/check_finite.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "models/slice_reader.h"

namespace quire {

namespace {

// Exponents of ones only. Without a branch, so that many are looked at at once.
template <class Bits>
bool finite_bits(const Tensor& t, int64_t r, Bits exponent) {
  const Bits* x = t.data.row<const Bits>(r);
  Bits bad = 0;
  for (int64_t c = 0; c < t.cols; ++c) bad |= Bits((x[c] & exponent) == exponent);
  return bad == 0;
}

bool finite_row(const Tensor& t, int64_t r) {
  if (t.codec == id<F32>) return finite_bits<uint32_t>(t, r, 0x7F800000);
  if (t.codec == id<F16>) return finite_bits<uint16_t>(t, r, 0x7C00);
  if (t.codec == id<BF16>) return finite_bits<uint16_t>(t, r, 0x7F80);
  constexpr float kLargestCode = 128.0f;
  bool finite = true;
  for (int64_t g = 0; g < t.groups(); ++g) {
    const AffineParams a = info(t.codec).affine(t, r, g);
    finite = finite && std::isfinite(a.scale * kLargestCode) && std::isfinite(a.offset);
  }
  return finite;
}

}  // namespace

void check_finite(const Context& ctx, const Checkpoint& checkpoint, const std::string& name) {
  const Tensor& t = checkpoint.listed(name).tensor;
  const bool floats = t.codec == id<F32> || t.codec == id<F16> || t.codec == id<BF16>;
  if (!floats && (info(t.codec).group == 0 || !info(t.codec).affine)) return;
  std::atomic<int64_t> bad{-1};
  const int64_t rows = slice_rows(t.cols);
  for (int64_t r0 = 0; r0 < t.rows && bad < 0; r0 += rows) {
    const Tensor slice = checkpoint.rows(name, r0, std::min(rows, t.rows - r0));
    ctx.parallel_for(slice.rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        if (!finite_row(slice, r)) bad = r0 + r;
      }
    });
    checkpoint.release(slice);
  }
  check(bad < 0, "tensor '{}' ({}) has a {} that is not finite in row {}", printable(name), describe(t),
        floats ? "value" : "scale", bad.load());
}

}  // namespace quire
