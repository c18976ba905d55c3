#include "kernels/frag_pack.h"

#include <algorithm>
#include <optional>

namespace quire {

namespace {

bool power_of_two(int32_t v, int32_t lo, int32_t hi) { return v >= lo && v <= hi && (v & (v - 1)) == 0; }

// The kind of code that codec w has for activations in codec x.
std::optional<FragCode> code_of(Codec w, Codec x) {
  const bool q4 = w == id<Int4> || w == id<Q4_0>;
  // Codes that fit in s8, one scale a group and no offset.
  const bool q8 =
      w == id<Int8> || w == id<Q8_0> || w == id<Q5_0> || w == id<IQ4_NL> || w == id<IQ4_XS> || w == id<MXFP4>;
  if (x == id<Int8>) {
    if (q8) return FragCode::int8;
    if (q4) return FragCode::nibble_signed;
    if (w == id<Int4Z> || w == id<TwoLevel4>) return FragCode::nibble_affine;
    if (w == id<UInt4O> || w == id<Q4_1>) return FragCode::nibble_offset;
  } else if (x == id<F16>) {
    if (q8) return FragCode::half_byte;
    if (q4 || w == id<Int4Z>) return FragCode::half_nibble;
    if (w == id<F16>) return FragCode::half_float;
    if (w == id<E4M3>) return FragCode::half_e4m3;
  } else if (x == id<BF16> && w == id<BF16>) {
    return FragCode::half_float;
  } else if (x == id<E4M3> && w == id<E4M3>) {
    return FragCode::e4m3;
  }
  return std::nullopt;
}

}  // namespace

std::optional<FragShape> frag_shape(Format w, Format x, int64_t n, int64_t k) {
  const std::optional<FragCode> code = code_of(w.codec, x.codec);
  if (!code || n < 1 || k < 1) return std::nullopt;
  FragShape s;
  s.n = n;
  s.k = k;
  s.code = *code;
  s.offset = info(w.codec).offset;
  const bool integers = x.codec == id<Int8>;
  const int32_t gw = w.group, scales = w.codec == id<TwoLevel4> ? 0 : gw, gx = s.half() ? 0 : x.group;
  if ((gw != 0 && !power_of_two(gw, 32, 1 << 20)) || (gx != 0 && !power_of_two(gx, 32, 1 << 20))) return std::nullopt;
  s.segment = scales == 0 ? gx : gx == 0 ? scales : std::min(scales, gx);
  // Sums of floats may stop anywhere: at 128 columns, so that they round the same in every tile.
  if (!integers) s.segment = s.segment == 0 ? int32_t(kFragCols) : std::min(s.segment, int32_t(kFragCols));
  for (const int32_t g : {s.segment, gw}) {
    if (g != 0) s.entry = std::min(s.entry, g);
  }
  if (s.code == FragCode::half_float && gw != 0) return std::nullopt;
  return s;
}

void no_frag_layout(Codec codec) { fail(fmt::format("frag layout: {} has none", info(codec).name)); }

void frag_pack(const FragShape& shape, const Tensor& src, int64_t row0, std::byte* dst) {
  visit_frag(src.codec, [&]<class C>(C) { frag_pack_rows<C>(shape, src, row0, dst); });
}

}  // namespace quire
