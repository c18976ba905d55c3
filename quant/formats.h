// THE list of codecs. To add one: write its header, include it here and put it at the end of the list. A codec is a
// struct of static host-and-device functions (see affine.h for the fullest one):
//   kName, kBits, kGroup (0: any group size), kAlign (columns that fill whole bytes), row_bytes(cols, groups)
//   decode(t, r, c0, n, out)            n values of row r from column c0
//   encode(t, r0, n, src, ld, source)   the n rows from r0 that share a scale; none: files come in it, nothing is
//   written kLinear: value = scale * code + offset, with values() (codes as floats) and affine(t, r, g) kInteger:
//   codes() gives them as integers, zero point and second level folded in kAnyOrder: the order of a row's codes is free
//   (format.h); else natural alone kTableBytes, kTableShared (only with a codebook): bytes of the table, and whether
//   all columns share it kOffset: affine() has an offset other than zero; its codes are not negative
//   kSpan (only where it is not 1): rows that share a row of the scale plane in every tensor
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "base/error.h"
#include "quant/affine.h"
#include "quant/codebook.h"
#include "quant/e8.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_k_blocks.h"
#include "quant/lookup.h"
#include "quant/minifloat.h"
#include "quant/plain.h"
#include "quant/spqr.h"
#include "quant/two_level.h"

namespace quire {

template <class... Ts>
struct CodecList {
  static constexpr int kSize = sizeof...(Ts);
};

using Codecs = CodecList<F32, F16, BF16, Int8, Int4, Int3, Int2, Int4Z, Int3Z, Int2Z, UInt8O, UInt4O, UInt3O, UInt2O,
                         TwoLevel4, E4M3, E3M2, Q8_0, Q4_0, Q4_1, Nuq4, Nuq3, Nuq2, Nuq4V, Nuq3V, Nuq2V, Int8Z, Lut4,
                         Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, Spqr3, E8p, E8pRvq3, E8pRvq4>;

template <class T, class... Ts>
constexpr Codec index_in(CodecList<Ts...>) {
  int i = 0, found = -1;
  ((found = std::is_same_v<T, Ts> ? i : found, ++i), ...);
  return Codec(found);
}
template <class T>
inline constexpr Codec id = index_in<T>(Codecs{});

template <class Fn, class... Ts>
decltype(auto) visit_in(CodecList<Ts...>, Codec codec, Fn&& fn) {
  using First = std::tuple_element_t<0, std::tuple<Ts...>>;
  using R = decltype(fn(First{}));
  R (*const table[])(Fn&) = {[](Fn& f) -> R { return f(Ts{}); }...};
  check(size_t(codec) < sizeof...(Ts), "unknown codec {}", int(codec));
  return table[size_t(codec)](fn);
}
// Calls fn(SomeCodec{}) for the codec: visit(t.codec, [&]<class C>(C) { C::decode(t, ...); }).
template <class Fn>
decltype(auto) visit(Codec codec, Fn&& fn) {
  return visit_in(Codecs{}, codec, fn);
}

// A format as a person spells it: codec and group, "int4/g64"; without a group, one scale a row.
struct Format {
  Codec codec{};
  int32_t group = 0;
  bool operator==(const Format&) const = default;
};
std::string to_string(Format format);
Format parse_format(std::string_view text);  // Error lists the known names
std::optional<Codec> find_codec(std::string_view name);
inline Format format_of(const Tensor& t) { return {t.codec, t.group}; }

// What ops need without knowing the codec. One table row a codec.
struct CodecInfo {
  const char* name;
  int bits, group, align;
  int span;  // rows that share scales in every tensor; 1: a tensor says how many
  bool linear, integer, offset, any_order;
  int64_t table_bytes;  // of the codebook of one column; 0: none
  bool table_shared;    // one codebook for all columns
  bool half_scales;     // the scale plane holds f16 {scale, offset}; else f32
  RowBytes (*row_bytes)(int64_t cols, int64_t groups);
  void (*decode)(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out);
  // null if the format is only read
  void (*encode)(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld, ScaleSource source);
  void (*codes)(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out);  // null unless integer
  void (*values)(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out);   // null unless linear
  AffineParams (*affine)(const Tensor& t, int64_t r, int64_t g);                   // null unless linear
};
const CodecInfo& info(Codec codec);

// Bytes a rows x cols tensor takes, all planes together (scales per row, or per span of the codec).
int64_t tensor_bytes(Format format, int64_t rows, int64_t cols);

// Views. Rows must be whole scale spans; columns whole bytes and whole groups (or end where the tensor ends). The sums
// of an activation without groups (aux) are of the whole row, so a narrower view has none.
Tensor rows_of(const Tensor& t, int64_t begin, int64_t count);
Tensor cols_of(const Tensor& t, int64_t begin, int64_t count);

std::string describe(const Tensor& t);  // "int4/g64 (576, 1536)"

}  // namespace quire
