#include "models/check_blocks.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "models/slice_reader.h"

namespace quire {

void check_blocks(const Context& ctx, const Checkpoint& checkpoint, const Tensor& t, const std::string& name) {
  const CodecInfo& codec = info(t.codec);
  if (codec.group == 0 || !codec.affine) return;
  constexpr float kLargestCode = 128.0f;
  std::atomic<int64_t> bad{-1};
  const int64_t rows = slice_rows(t.cols);
  for (int64_t r0 = 0; r0 < t.rows && bad < 0; r0 += rows) {
    const Tensor slice = rows_of(t, r0, std::min(rows, t.rows - r0));
    ctx.parallel_for(slice.rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        bool finite = true;
        for (int64_t g = 0; g < slice.groups(); ++g) {
          const AffineParams a = codec.affine(slice, r, g);
          finite = finite && std::isfinite(a.scale * kLargestCode) && std::isfinite(a.offset);
        }
        if (!finite) bad = r0 + r;
      }
    });
    checkpoint.release(slice);
  }
  check(bad < 0, "tensor '{}' ({}) has a scale that is not finite in row {}", name, describe(t), bad.load());
}

}  // namespace quire
