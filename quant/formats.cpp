#include "quant/formats.h"

#include <array>
#include <charconv>

namespace quire {

namespace {

template <class C>
constexpr CodecInfo make_info() {
  CodecInfo i{};
  i.name = C::kName;
  i.bits = C::kBits;
  i.group = C::kGroup;
  i.align = C::kAlign;
  i.span = 1;
  if constexpr (requires { C::kSpan; }) i.span = C::kSpan;
  i.linear = C::kLinear;
  i.integer = C::kInteger;
  i.offset = C::kOffset;
  i.any_order = C::kAnyOrder;
  if constexpr (requires { C::kTableBytes; }) {
    i.table_bytes = C::kTableBytes;
    i.table_shared = C::kTableShared;
  }
  i.half_scales = C::kOffset || (i.table_shared && !C::kLinear);
  i.row_bytes = &C::row_bytes;
  i.decode = &C::decode;
  if constexpr (requires { &C::encode; }) i.encode = &C::encode;
  if constexpr (C::kInteger) i.codes = &C::codes;
  if constexpr (C::kLinear) {
    i.values = &C::values;
    i.affine = &C::affine;
  }
  return i;
}

template <class... Ts>
constexpr std::array<CodecInfo, sizeof...(Ts)> make_table(CodecList<Ts...>) {
  return {make_info<Ts>()...};
}
constexpr auto kTable = make_table(Codecs{});

}  // namespace

const CodecInfo& info(Codec codec) {
  check(size_t(codec) < kTable.size(), "unknown codec {}", int(codec));
  return kTable[size_t(codec)];
}

std::optional<Codec> find_codec(std::string_view name) {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (name == kTable[i].name) return Codec(i);
  }
  return std::nullopt;
}

std::string to_string(Format format) {
  const CodecInfo& i = info(format.codec);
  if (format.group == 0 || format.group == i.group) return i.name;
  return fmt::format("{}/g{}", i.name, format.group);
}

Format parse_format(std::string_view text) {
  const size_t slash = text.find('/');
  const std::optional<Codec> codec = find_codec(text.substr(0, slash));
  std::string known;
  for (const CodecInfo& i : kTable) known += fmt::format("{}{}", known.empty() ? "" : " ", i.name);
  check(codec.has_value(), "unknown format '{}'; known are {}, each with an optional group such as int4/g64", text,
        known);
  Format format{*codec, info(*codec).group};
  if (slash != text.npos) {
    const std::string_view g = text.substr(slash + 1);
    const CodecInfo& i = info(*codec);
    int group = 0;
    const auto [end, error] = std::from_chars(g.data() + (g.empty() ? 0 : 1), g.data() + g.size(), group);
    check(g.size() > 1 && g[0] == 'g' && error == std::errc() && end == g.data() + g.size() && group > 0,
          "format '{}': the group is spelled g and a positive number, such as int4/g64", text);
    check(i.group == 0 || i.group == group, "format '{}': {} has groups of {}", text, i.name, i.group);
    check(i.group > 0 || i.row_bytes(1, 1).scale > 0, "format '{}': {} has no scales, so no groups", text, i.name);
    format.group = group;
  }
  return format;
}

int64_t tensor_bytes(Format format, int64_t rows, int64_t cols) {
  const int64_t groups = format.group > 0 ? (cols + format.group - 1) / format.group : 1;
  const CodecInfo& codec = info(format.codec);
  const RowBytes b = codec.row_bytes(cols, groups);
  return rows * (b.data + b.high + b.aux) + (rows + codec.span - 1) / codec.span * b.scale;
}

Tensor rows_of(const Tensor& t, int64_t begin, int64_t count) {
  check(begin >= 0 && count >= 0 && begin <= t.rows && count <= t.rows - begin, "rows [{}, {} + {}) of {}", begin,
        begin, count, describe(t));
  Tensor v = t;
  v.rows = count;
  for (Plane* p : {&v.data, &v.high, &v.scale, &v.aux}) {
    if (!p->ptr) continue;
    check(begin % p->rows == 0 && (count % p->rows == 0 || begin + count == t.rows),
          "a row view of {} must be of whole spans of {} rows, not [{}, {})", describe(t), p->rows, begin,
          begin + count);
    p->ptr += begin / p->rows * p->pitch;
  }
  return v;
}

Tensor cols_of(const Tensor& t, int64_t begin, int64_t count) {
  const CodecInfo& i = info(t.codec);
  check(begin >= 0 && count >= 0 && begin <= t.cols && count <= t.cols - begin, "columns [{}, {} + {}) of {}", begin,
        begin, count, describe(t));
  if (count == t.cols) return t;
  const int64_t group = t.group > 0 ? t.group : 1;
  const auto fits = [&](int64_t c) { return c % i.align == 0 && c % group == 0; };
  check(t.order == Order::natural && fits(begin) && (fits(begin + count) || begin + count == t.cols),
        "a column view of {} must start and end on a multiple of {} columns and of its group, not [{}, {})",
        describe(t), i.align, begin, begin + count);
  const RowBytes b = i.row_bytes(begin, begin / group);
  Tensor v = t;
  v.cols = count;
  if (v.data.ptr) v.data.ptr += b.data;
  if (v.high.ptr) v.high.ptr += b.high;
  if (v.table.ptr && !i.table_shared) v.table.ptr += begin * i.table_bytes;
  const bool sums = v.aux.ptr && i.row_bytes(t.cols, t.groups()).aux == 0;
  if (t.group > 0) {
    const bool grouped = i.row_bytes(0, 2).scale > i.row_bytes(0, 1).scale;  // QoQ's first level is a scale a row
    if (v.scale.ptr && grouped) v.scale.ptr += b.scale;
    if (v.aux.ptr) v.aux.ptr += sums ? begin / group * 4 : b.aux;
  } else if (sums) {
    v.aux = {};
  }
  return v;
}

std::string describe(const Tensor& t) { return fmt::format("{} ({}, {})", to_string(format_of(t)), t.rows, t.cols); }

}  // namespace quire
