#include "kernels/convert.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/row_simd.h"

namespace quire {

namespace {

bool copies_rows(const Tensor& a, const Tensor& b) {
  const auto flat = [](const Plane& p) { return !p.ptr || (p.rows == 1 && p.pitch != 0); };
  return a.codec == b.codec && a.group == b.group && a.order == b.order && flat(a.scale) && flat(a.aux) &&
         flat(b.scale) && flat(b.aux) && !a.table.ptr && !b.table.ptr &&
         (a.aux.ptr || !b.aux.ptr);  // sums cannot be copied from where none are
}

void copy_row(const Tensor& src, int64_t from, const Tensor& dst, int64_t to, const RowBytes& bytes,
              int64_t aux_bytes) {
  const auto copy = [&](const Plane& s, const Plane& d, int64_t n) {
    if (s.ptr && d.ptr && n > 0) std::memcpy(d.row<std::byte>(to), s.row<const std::byte>(from), size_t(n));
  };
  copy(src.data, dst.data, bytes.data);
  copy(src.high, dst.high, bytes.high);
  copy(src.scale, dst.scale, bytes.scale);
  copy(src.aux, dst.aux, aux_bytes);
}

}  // namespace

void convert(const Context& ctx, const Tensor& src, const Tensor& dst, const int32_t* gather) {
  check(src.device == Device::cpu && dst.device == Device::cpu, "convert: {} to {}: both must be on the CPU",
        describe(src), describe(dst));
  check(src.cols == dst.cols && (gather || src.rows == dst.rows), "convert: {} does not fit {}", describe(src),
        describe(dst));
  if (gather) {
    for (int64_t i = 0; i < dst.rows; ++i) {
      check(gather[i] >= 0 && gather[i] < src.rows, "convert: row {} is not in {}", gather[i], describe(src));
    }
  }
  const ProfileScope scope(ctx.profile, "convert", [&] {
    return OpCost{tensor_bytes(format_of(src), dst.rows, dst.cols) + tensor_bytes(dst), dst.rows * dst.cols};
  });
  const auto source_row = [&](int64_t i) { return gather ? int64_t(gather[i]) : i; };
  const CodecInfo& from = info(src.codec);
  const CodecInfo& to = info(dst.codec);
  if (copies_rows(src, dst)) {
    const RowBytes bytes = from.row_bytes(src.cols, src.groups());
    const int64_t aux = bytes.aux > 0 ? bytes.aux : src.groups() * 4;
    ctx.parallel_for(dst.rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) copy_row(src, source_row(i), dst, i, bytes, aux);
    });
    return;
  }
  if (src.codec == id<F32> && dst.codec == id<Int8> && dst.scale.rows == 1) {  // activations
    const cpu::RowSimd& simd = cpu::row_simd(ctx.isa);
    ctx.parallel_for(dst.rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) cpu::encode_row(simd, dst, i, src.data.row<const float>(source_row(i)));
    });
    return;
  }
  const int64_t span = dst.scale.ptr && dst.scale.pitch != 0 ? dst.scale.rows : 1;
  const ScaleSource source = scale_source(dst);
  const int64_t spans = (dst.rows + span - 1) / span;
  ctx.parallel_for(spans, std::max<int64_t>(1, 8 / span), [&](int64_t begin, int64_t end) {
    std::vector<float> values(size_t(span * dst.cols));
    for (int64_t s = begin; s < end; ++s) {
      const int64_t n = std::min(span, dst.rows - s * span);
      for (int64_t i = 0; i < n; ++i)
        from.decode(src, source_row(s * span + i), 0, src.cols, values.data() + i * dst.cols);
      to.encode(dst, s * span, n, values.data(), dst.cols, source);
    }
  });
}

}  // namespace quire
