#include "kernels/convert.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/row_simd.h"
#include "kernels/cuda/encode.h"

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

int64_t scale_span(const Tensor& t) { return t.scale.ptr && t.scale.pitch != 0 ? t.scale.rows : 1; }

void copy_on_device(const Context& ctx, const Tensor& src, const Tensor& dst, const int32_t* gather) {
  const RowBytes bytes = info(src.codec).row_bytes(src.cols, src.groups());
  cuda::PlaneCopy planes[4];
  int count = 0;
  const auto add = [&](const Plane& from, const Plane& to, int64_t n) {
    if (from.ptr && to.ptr && n > 0) planes[count++] = {from, to, n};
  };
  add(src.data, dst.data, bytes.data);
  add(src.high, dst.high, bytes.high);
  add(src.scale, dst.scale, bytes.scale);
  add(src.aux, dst.aux, bytes.aux > 0 ? bytes.aux : src.groups() * 4);
  cuda::copy_rows(ctx, planes, count, gather, dst.rows);
}

// Rows that are not f32 become so in scratch first, some at a time.
void convert_on_device(const Context& ctx, const Tensor& src, const Tensor& dst, const int32_t* gather) {
  if (copies_rows(src, dst)) return copy_on_device(ctx, src, dst, gather);
  const auto plain = [](const Tensor& t) { return t.codec == id<F32> && t.data.pitch % 4 == 0; };
  if (plain(dst)) {
    float* out = dst.rows > 0 ? dst.data.row<float>(0) : nullptr;
    return cuda::decode_rows(ctx, src, gather, 0, dst.rows, out, dst.data.pitch / 4);
  }
  cuda::EncodePlan plan;
  plan.to = dst;
  if (plain(src)) {
    plan.x = src.data.row<const float>(0);
    plan.ld = src.data.pitch / 4;
    plan.gather = gather;
    return cuda::encode_rows(ctx, plan, dst.rows);
  }
  const int64_t span = scale_span(dst);
  const int64_t step = std::max<int64_t>(span, kConvertFloats / std::max<int64_t>(1, src.cols) / span * span);
  const Scratch::Scope scope(*ctx.scratch);
  float* values = ctx.scratch->take<float>(std::min(step, dst.rows) * src.cols);
  for (int64_t at = 0; at < dst.rows; at += step) {
    const int64_t n = std::min(step, dst.rows - at);
    cuda::decode_rows(ctx, src, gather ? gather + at : nullptr, at, n, values, src.cols);
    plan.to = rows_of(dst, at, n);
    plan.x = values;
    plan.ld = src.cols;
    cuda::encode_rows(ctx, plan, n);
  }
}

}  // namespace

void convert(const Context& ctx, const Tensor& src, const Tensor& dst, const int32_t* gather) {
  check(src.device == ctx.device && dst.device == ctx.device,
        "convert: {} to {}: both must be on the device of the context", describe(src), describe(dst));
  check(src.cols == dst.cols && (gather || src.rows == dst.rows), "convert: {} does not fit {}", describe(src),
        describe(dst));
  check(info(dst.codec).encode || copies_rows(src, dst), "convert: nothing can be written in {}, only read",
        info(dst.codec).name);
  const ProfileScope scope(ctx.profile, "convert", [&] {
    return OpCost{tensor_bytes(format_of(src), dst.rows, dst.cols) + tensor_bytes(dst), dst.rows * dst.cols};
  });
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) return convert_on_device(ctx, src, dst, gather);
  }
  if (gather) {
    for (int64_t i = 0; i < dst.rows; ++i) {
      check(gather[i] >= 0 && gather[i] < src.rows, "convert: row {} is not in {}", gather[i], describe(src));
    }
  }
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
  const int64_t span = scale_span(dst);
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
