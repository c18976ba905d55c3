// Where every bit of a cache page lies, against a packer written from the description alone.
#include "quant/kv_layout.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/scheme.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

constexpr const char* kWords[] = {"kvf16", "kv8", "kvfp8", "k8v4", "kv4", "kv2", "kv4row", "kv3row", "kv2row"};

KvLayout layout_of(const char* word, int64_t head_dim) {
  const KvScheme s = parse_kv(word);
  return kv_layout(s.k, s.v, head_dim);
}

TEST(KvLayout, BlockBytes) {
  const std::pair<const char*, int64_t> expected[] = {{"kvf16", 32768}, {"kv8", 16896},   {"kvfp8", 16384},
                                                      {"kv4row", 8704}, {"kv3row", 6656}, {"kv2row", 4608},
                                                      {"kv2", 6144},    {"kv4", 8960},    {"k8v4", 8448 + 4352}};
  for (const auto& [word, bytes] : expected) EXPECT_EQ(layout_of(word, 128).bytes, bytes) << word;
}

// Bytes [begin, end) of every plane of a part.
std::vector<std::pair<int64_t, int64_t>> planes(const KvPart& part, const KvFormat& format) {
  std::vector<std::pair<int64_t, int64_t>> list = {{part.codes, part.codes + 64 * part.code_pitch}};
  if (part.high_pitch > 0) list.emplace_back(part.high, part.high + 64 * part.high_pitch);
  if (part.meta_pitch > 0) list.emplace_back(part.meta, part.meta + 64 / format.span * part.meta_pitch);
  return list;
}

TEST(KvLayout, PartsAreDisjointAndAligned) {
  for (const char* word : kWords) {
    for (const int64_t head_dim : {16, 64, 96, 128, 256, 512}) {
      if (std::string(word) == "kv2" && head_dim == 16) continue;  // no group of 32 channels
      const KvLayout l = layout_of(word, head_dim);
      std::vector<std::pair<int64_t, int64_t>> all = planes(l.k, l.k_format);
      for (const auto& p : planes(l.v, l.v_format)) all.push_back(p);
      int64_t used = 0;
      for (const auto& [begin, end] : all) {  // in the order the layout lists them
        EXPECT_GE(begin, used) << word << " " << head_dim;
        EXPECT_LT(begin, end) << word << " " << head_dim;
        used = end;
      }
      EXPECT_EQ(l.k.codes % 128, 0) << word;
      EXPECT_EQ(l.v.codes % 128, 0) << word;
      EXPECT_EQ(l.bytes % 128, 0) << word;
      EXPECT_GE(l.bytes, used) << word;
      EXPECT_LT(l.bytes, used + 128) << word;
      EXPECT_EQ(kv_block_offset(l, 5, 3, 2), 17 * l.bytes);
      EXPECT_EQ(l.sealed(), std::string(word) == "kv4" || std::string(word) == "kv2") << word;
    }
  }
}

TEST(KvLayout, ValueTilesOrder) {
  for (const int64_t cols : {32, 64, 96, 128, 256}) {
    for (int64_t j = 0; j < cols / 16; ++j) {
      for (int64_t g = 0; g < 8; ++g) {
        for (int64_t e = 0; e < 2; ++e) {
          // For 128 channels this is layouts.md's "dim 16j+2g+e at position 16g+2j+e".
          EXPECT_EQ(stored_column(Order::value_tiles, cols, 16 * j + 2 * g + e), cols / 8 * g + 2 * j + e);
        }
      }
    }
  }
}

// IEEE half, by its definition.
uint16_t half_bits(double x) {
  if (x == 0.0) return std::signbit(x) ? 0x8000 : 0;
  const int exponent = std::max(std::ilogb(x), -14);
  const double q = std::nearbyint(std::ldexp(std::fabs(x), 10 - exponent));  // 1024 .. 2048, or less below 2^-14
  return uint16_t((x < 0 ? 0x8000 : 0) + ((exponent + 14) << 10) + int(q));
}
float half_value(uint16_t h) {
  const int e = (h >> 10) & 31, m = h & 1023;
  const double magnitude = e == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, e - 25);
  return float((h & 0x8000) != 0 ? -magnitude : magnitude);
}

struct Packer {
  std::vector<uint8_t> bytes;

  void or_bits(int64_t at, int64_t bit, int value, int count) {
    for (int i = 0; i < count; ++i) {
      const int64_t b = bit + i;
      const uint8_t mask = uint8_t(1u << (b % 8));
      uint8_t& byte = bytes[size_t(at + b / 8)];
      byte = uint8_t((byte & ~mask) | (((value >> i) & 1) != 0 ? mask : 0));
    }
  }
  // A group of values shares {scale, min} at `meta`; returns their codes.
  std::vector<int> codes(const std::vector<float>& values, int bits, int64_t meta) {
    float lo = values[0], hi = values[0];
    for (const float x : values) lo = std::min(lo, x), hi = std::max(hi, x);
    const int most = (1 << bits) - 1;
    const uint16_t scale = half_bits((hi - lo) * (1.0f / float(most))), min = half_bits(lo);
    for (int i = 0; i < 2; ++i) {
      bytes[size_t(meta + i)] = uint8_t(scale >> (8 * i));
      bytes[size_t(meta + 2 + i)] = uint8_t(min >> (8 * i));
    }
    std::vector<int> out;
    const float inv = 1.0f / half_value(scale);
    for (const float x : values)
      out.push_back(int(std::clamp(std::nearbyint((x - half_value(min)) * inv), 0.0f, float(most))));
    return out;
  }
};

constexpr uint8_t kPoison = 0xa5;

// Writes x (64, C) into one part as the cache does and compares the block with the packer's.
void compare(const KvLayout& layout, bool keys, const std::vector<float>& x, const Packer& expected) {
  std::vector<uint8_t> block(size_t(layout.bytes), kPoison);
  const float one = 1.0f;
  std::byte* p = reinterpret_cast<std::byte*>(block.data());
  const Tensor t = keys ? kv_keys(p, layout, &one) : kv_values(p, layout, &one);
  EXPECT_EQ(t.rows, 64);
  EXPECT_EQ(t.cols, layout.head_dim);
  const int64_t span = t.scale.rows;
  for (int64_t r = 0; r < 64; r += span) {
    info(t.codec).encode(t, r, span, x.data() + r * t.cols, t.cols, ScaleSource::found);
  }
  for (size_t i = 0; i < block.size(); ++i) ASSERT_EQ(block[i], expected.bytes[i]) << "byte " << i;
}

Packer poisoned(const KvLayout& layout) { return {std::vector<uint8_t>(size_t(layout.bytes), kPoison)}; }

std::vector<float> page_of_values(int64_t head_dim) {
  Rng rng(uint32_t(head_dim) + 9);
  std::vector<float> x = normal(rng, 64 * head_dim);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= 1.0f + float(i % 7);
  return x;
}

TEST(KvLayout, Row8) {
  for (const int64_t c : {64, 128, 96, 256}) {
    const KvLayout layout = layout_of("kv8", c);
    const std::vector<float> x = page_of_values(c);
    const int64_t v = 64 * c + 256;  // where the values start
    for (const bool keys : {true, false}) {
      Packer p = poisoned(layout);
      const int64_t codes = keys ? 0 : v, meta = codes + 64 * c;
      for (int64_t r = 0; r < 64; ++r) {
        const std::vector<int> q = p.codes({x.begin() + r * c, x.begin() + (r + 1) * c}, 8, meta + r * 4);
        for (int64_t d = 0; d < c; ++d) p.or_bits(codes + r * c, d * 8, q[size_t(d)], 8);
      }
      compare(layout, keys, x, p);
    }
  }
}

TEST(KvLayout, Row3) {
  for (const int64_t c : {64, 128, 96, 256}) {
    const KvLayout layout = layout_of("kv3row", c);
    const std::vector<float> x = page_of_values(c);
    const int64_t part = 64 * c / 4 + 64 * c / 8 + 256;
    for (const bool keys : {true, false}) {
      Packer p = poisoned(layout);
      const int64_t low = keys ? 0 : part, high = low + 64 * c / 4, meta = high + 64 * c / 8;
      for (int64_t r = 0; r < 64; ++r) {
        const std::vector<int> q = p.codes({x.begin() + r * c, x.begin() + (r + 1) * c}, 3, meta + r * 4);
        for (int64_t d = 0; d < c; ++d) {
          p.or_bits(low + r * c / 4, d * 2, q[size_t(d)] & 3, 2);
          p.or_bits(high + r * c / 8, d, q[size_t(d)] >> 2, 1);
        }
      }
      compare(layout, keys, x, p);
    }
  }
}

// Keys of a sealed page: a channel's {scale, min} for `span` tokens.
void pack_channels(Packer& p, const std::vector<float>& x, int64_t c, int bits, int64_t span, int64_t meta) {
  for (int64_t first = 0; first < 64; first += span) {
    for (int64_t d = 0; d < c; ++d) {
      std::vector<float> column;
      for (int64_t r = first; r < first + span; ++r) column.push_back(x[size_t(r * c + d)]);
      const std::vector<int> q = p.codes(column, bits, meta + (first / span * c + d) * 4);
      for (int64_t r = first; r < first + span; ++r) p.or_bits(r * c * bits / 8, d * bits, q[size_t(r - first)], bits);
    }
  }
}

TEST(KvLayout, SealedPage4) {
  for (const int64_t c : {64, 128, 96, 256}) {
    const KvLayout layout = layout_of("kv4", c);
    const std::vector<float> x = page_of_values(c);
    Packer keys = poisoned(layout);
    pack_channels(keys, x, c, 4, 64, 64 * c / 2);
    compare(layout, true, x, keys);
    Packer values = poisoned(layout);
    const int64_t start = (64 * c / 2 + c * 4 + 127) / 128 * 128;
    for (int64_t r = 0; r < 64; ++r) {
      const std::vector<int> q =
          values.codes({x.begin() + r * c, x.begin() + (r + 1) * c}, 4, start + 64 * c / 2 + r * 4);
      for (int64_t d = 0; d < c; ++d) values.or_bits(start + r * c / 2, d * 4, q[size_t(d)], 4);
    }
    compare(layout, false, x, values);
  }
}

TEST(KvLayout, SealedGroups2) {
  for (const int64_t c : {64, 128, 96, 256}) {
    const KvLayout layout = layout_of("kv2", c);
    const std::vector<float> x = page_of_values(c);
    Packer keys = poisoned(layout);
    pack_channels(keys, x, c, 2, 32, 64 * c / 4);
    compare(layout, true, x, keys);
    Packer values = poisoned(layout);
    const int64_t start = (64 * c / 4 + 2 * c * 4 + 127) / 128 * 128, meta = start + 64 * c / 4;
    for (int64_t r = 0; r < 64; ++r) {
      for (int64_t g = 0; g < c / 32; ++g) {
        const auto row = x.begin() + r * c + g * 32;
        const std::vector<int> q = values.codes({row, row + 32}, 2, meta + (r * (c / 32) + g) * 4);
        for (int64_t i = 0; i < 32; ++i) {
          const int64_t d = g * 32 + i, position = d % 16 / 2 * (c / 8) + d / 16 * 2 + d % 2;
          values.or_bits(start + r * c / 4, position * 2, q[size_t(i)], 2);
        }
      }
    }
    compare(layout, false, x, values);
  }
}

TEST(KvLayout, StaticScale) {
  const KvLayout layout = layout_of("kvfp8", 64);
  EXPECT_EQ(layout.k.meta_pitch, 0);
  std::vector<uint8_t> block(size_t(layout.bytes), kPoison);
  const float half = 0.5f;
  const Tensor t = kv_values(reinterpret_cast<std::byte*>(block.data()), layout, &half);
  std::vector<float> row(64, 1.5f);
  row[3] = -300.0f;  // saturates: 448 * 0.5
  info(t.codec).encode(t, 63, 1, row.data(), 64, ScaleSource::given);
  EXPECT_EQ(block[size_t(layout.bytes - 64)], 0x44);  // 3 = 1.5 * 2^1: exponent 8, mantissa 4
  EXPECT_EQ(block[size_t(layout.bytes - 61)], 0xfe);
  for (int64_t i = 0; i < layout.bytes - 64; ++i) ASSERT_EQ(block[size_t(i)], kPoison) << i;
  EXPECT_EQ(half, 0.5f);
  std::vector<float> back(64);
  info(t.codec).decode(t, 63, 0, 64, back.data());
  row[3] = -224.0f;
  EXPECT_EQ(back, row);
}

TEST(KvLayout, Refusals) {
  const auto refused = [](KvFormat k, KvFormat v, int64_t head_dim, std::initializer_list<std::string> parts) {
    expect_error([&] { kv_layout(k, v, head_dim); }, parts);
  };
  const KvFormat f16{};
  refused(f16, f16, 0, {"multiple of 16"});
  refused(f16, f16, 24, {"multiple of 16", "24"});
  refused({id<UInt2O>, 1, 32}, {id<UInt2O>, 32}, 80, {"uint2o/g32", "32 channels", "80"});
  refused({id<UInt4O>, 1, 48}, f16, 64, {"64 tokens", "48"});
  refused({id<UInt4O>, 1, 128}, f16, 64, {"64 tokens", "128"});
  refused(f16, {id<Int4Z>}, 64, {"int4z"});  // its zeros have no place in a page
  refused({id<Q8_0>}, f16, 64, {"q8_0"});
  refused(f16, {id<TwoLevel4>, 64}, 64, {"qoq4"});
}

}  // namespace
}  // namespace quire
