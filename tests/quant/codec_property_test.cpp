// Exact invariants of the codecs: idempotence, symmetry, covariance, given scales, order of accuracy.
#include <gtest/gtest.h>

#include "tests/quant/codec_cases.h"

namespace quire {
namespace {

using namespace testing_quant;

int64_t rows_for(const CodecCase& c) { return c.span == 1 ? 2 : c.span; }

bool own_table(Codec codec) { return info(codec).table_bytes > 0 && !info(codec).table_shared; }

std::vector<uint8_t> plane_bytes(const Plane& plane, int64_t bytes, int64_t rows) {
  std::vector<uint8_t> out;
  for (int64_t r = 0; plane.ptr && bytes > 0 && r < rows; ++r) {
    const uint8_t* p = plane.row<const uint8_t>(r);
    out.insert(out.end(), p, p + bytes);
  }
  return out;
}

struct Planes {
  std::vector<uint8_t> data, high, scale, aux;
};
Planes planes_of(const Tensor& t) {
  const RowBytes b = info(t.codec).row_bytes(t.cols, t.groups());
  return {plane_bytes(t.data, b.data, t.rows), plane_bytes(t.high, b.high, t.rows),
          plane_bytes(t.scale, b.scale, t.rows), plane_bytes(t.aux, b.aux, t.rows)};
}

TEST(CodecProperty, QuantizingWhatWasDecodedGivesTheSameCodes) {
  std::mt19937 rng(1);
  for (const int64_t cols : {29, 64, 130}) {
    for (const CodecCase& c : codec_cases(cols)) {
      const OwnedTensor owned = make_case(rng, c, rows_for(c));
      encode_all(owned, random_values(rng, owned.tensor.rows * cols, cols == 64 ? Fill::outlier : Fill::normal).data());
      const Planes before = planes_of(owned);
      const std::vector<float> y = decode_all(owned);
      encode_all(owned, y.data(), ScaleSource::given);
      const Planes after = planes_of(owned);
      ASSERT_EQ(after.data, before.data) << c.name();
      ASSERT_EQ(after.high, before.high) << c.name();
      ASSERT_EQ(after.scale, before.scale) << c.name() << ": given scales are not touched";
      ASSERT_EQ(after.aux, before.aux) << c.name();
      ASSERT_EQ(decode_all(owned), y) << c.name();
    }
  }
}

TEST(CodecProperty, GivenScalesClampWhatLiesOutside) {
  const OwnedTensor t = make_tensor({id<Int8>}, 1, 4);
  *t.tensor.scale.row<float>(0) = 0.5f;
  const float x[] = {1000.0f, -1000.0f, 0.74f, -0.26f};
  info(id<Int8>).encode(t, 0, 1, x, 4, ScaleSource::given);
  EXPECT_EQ(decode_all(t), (std::vector<float>{63.5f, -63.5f, 0.5f, -0.5f}));

  OwnedTensor fp8 = make_tensor({id<E4M3>}, 2, 3);  // a static scale shared by all rows, as the fp8 cache has
  float one = 1.0f;
  fp8.tensor.scale = {reinterpret_cast<std::byte*>(&one), 0, 1};
  const float y[] = {1000.0f, -0.3f, 17.0f, 448.0f, -2000.0f, 0.0f};
  encode_all(fp8, y, ScaleSource::given);
  EXPECT_EQ(decode_all(fp8), (std::vector<float>{448.0f, -0.3125f, 16.0f, 448.0f, -448.0f, 0.0f}));
  EXPECT_EQ(one, 1.0f);
}

TEST(CodecProperty, AUselessGivenScaleIsSafe) {
  for (const float scale :
       {0.0f, 1.0e-45f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (int i = 0; i < Codecs::kSize; ++i) {
      const CodecInfo& codec = info(Codec(i));
      if (!codec.encode || !has_scale(Codec(i)) || codec.offset || codec.table_bytes > 0) continue;
      const OwnedTensor t = make_tensor({Codec(i)}, 1, 9);
      *t.tensor.scale.row<float>(0) = scale;
      const std::vector<float> x = {
          1.0f, -1.0f, 0.0f, 3.0e38f, -3.0e38f, 1.0e-40f, std::numeric_limits<float>::infinity(), 2.0f, 5.0f};
      codec.encode(t, 0, 1, x.data(), 9, ScaleSource::given);  // must neither trap nor be undefined (asan, ubsan)
      std::vector<float> values(9);
      codec.values(t, 0, 0, 9, values.data());
      for (const float v : values) EXPECT_TRUE(std::isfinite(v)) << codec.name;
    }
  }
}

TEST(CodecProperty, SymmetricCodecsAreOdd) {
  std::mt19937 rng(2);
  for (const CodecCase& c : codec_cases(80)) {
    const Codec k = c.format.codec;
    const bool odd = k == id<F32> || k == id<F16> || k == id<BF16> || k == id<Int8> || k == id<Int4> || k == id<Int3> ||
                     k == id<Int2> || k == id<E4M3> || k == id<E3M2> || k == id<Q8_0> || k == id<Q4_0> || k == id<Q5_0>;
    if (!odd) continue;
    const OwnedTensor a = make_case(rng, c, rows_for(c)), b = make_case(rng, c, rows_for(c));
    std::vector<float> x = random_values(rng, a.tensor.rows * 80);
    encode_all(a, x.data());
    for (float& v : x) v = -v;
    encode_all(b, x.data());
    const std::vector<float> ya = decode_all(a), yb = decode_all(b);
    for (size_t i = 0; i < ya.size(); ++i) ASSERT_EQ(ya[i], -yb[i]) << c.name();
  }
}

TEST(CodecProperty, PowersOfTwoScaleThrough) {
  std::mt19937 rng(3);
  for (const CodecCase& c : codec_cases(96)) {
    if (own_table(c.format.codec)) continue;
    const OwnedTensor a = make_case(rng, c, rows_for(c)), b = make_case(rng, c, rows_for(c));
    if (a.tensor.table.ptr)
      std::memcpy(b.tensor.table.ptr, a.tensor.table.ptr, size_t(info(c.format.codec).table_bytes));
    std::vector<float> x = random_values(rng, a.tensor.rows * 96);
    if (c.format.codec == id<F16>) {
      for (float& v : x) v = std::abs(v) < 0.01f ? 0.01f : v;  // no subnormal halves
    }
    encode_all(a, x.data());
    const std::vector<float> ya = decode_all(a);
    for (const float factor : {8.0f, 0.25f}) {
      std::vector<float> scaled = x;
      for (float& v : scaled) v *= factor;
      encode_all(b, scaled.data());
      const std::vector<float> yb = decode_all(b);
      // Groups of one column have scales (and minima) that may be subnormal halves: those round differently.
      if (info(c.format.codec).row_bytes(1, 1).scale > 0 &&
          (info(c.format.codec).offset || info(c.format.codec).table_shared) && c.span == 1 &&
          (c.format.group == 1 || c.format.group == 7)) {
        continue;
      }
      for (size_t i = 0; i < ya.size(); ++i) {
        if (info(c.format.codec).offset && std::abs(ya[i]) < 1.0e-3f) continue;
        ASSERT_EQ(yb[i], ya[i] * factor) << c.name();
      }
    }
  }
}

TEST(CodecProperty, OneGroupAsLongAsTheRowIsNoGroup) {
  std::mt19937 rng(4);
  for (int i = 0; i < Codecs::kSize; ++i) {
    if (info(Codec(i)).group > 0 || !has_scale(Codec(i))) continue;
    for (const int32_t group : {48, 64, 1000}) {
      const OwnedTensor a = make_case(rng, {{Codec(i), 0}, 1, Order::natural, 48}, 3);
      const OwnedTensor b = make_case(rng, {{Codec(i), group}, 1, Order::natural, 48}, 3);
      if (a.tensor.table.ptr) std::memcpy(b.tensor.table.ptr, a.tensor.table.ptr, size_t(info(Codec(i)).table_bytes));
      const std::vector<float> x = random_values(rng, 3 * 48);
      encode_all(a, x.data());
      encode_all(b, x.data());
      EXPECT_EQ(planes_of(a).data, planes_of(b).data) << info(Codec(i)).name;
      EXPECT_EQ(planes_of(a).scale, planes_of(b).scale) << info(Codec(i)).name;
    }
  }
}

TEST(CodecProperty, RowsOfASpanShareTheScaleOfTheirCommonRange) {
  std::mt19937 rng(5);
  constexpr int64_t kCols = 64, kSpan = 32;
  for (int i = 0; i < Codecs::kSize; ++i) {
    if (info(Codec(i)).group > 0 || !has_scale(Codec(i))) continue;
    const OwnedTensor spans = make_case(rng, {{Codec(i), 0}, kSpan, Order::natural, kCols}, kSpan);
    const OwnedTensor line = make_case(rng, {{Codec(i), 0}, 1, Order::natural, kCols * kSpan}, 1);
    if (line.tensor.table.ptr) {
      std::memcpy(line.tensor.table.ptr, spans.tensor.table.ptr, size_t(info(Codec(i)).table_bytes));
    }
    const std::vector<float> x = random_values(rng, kCols * kSpan, Fill::outlier);
    encode_all(spans, x.data());
    encode_all(line, x.data());
    EXPECT_EQ(decode_all(spans), decode_all(line)) << info(Codec(i)).name;
  }
}

TEST(CodecProperty, IntegerZeroKeepsZeroExact) {
  std::mt19937 rng(6);
  for (const CodecCase& c : codec_cases(96)) {
    if (info(c.format.codec).row_bytes(1, 2).aux != 2) continue;  // the codecs with a zero per group
    const OwnedTensor t = make_case(rng, c, rows_for(c));
    std::vector<float> x = random_values(rng, t.tensor.rows * 96, Fill::shifted);
    for (size_t i = 0; i < x.size(); i += 3) x[i] = 0.0f;
    encode_all(t, x.data());
    const std::vector<float> y = decode_all(t);
    for (size_t i = 0; i < x.size(); i += 3) ASSERT_EQ(y[i], 0.0f) << c.name();
  }
}

TEST(CodecProperty, OffsetCodecsReachBothEnds) {
  std::mt19937 rng(7);
  for (const CodecCase& c : codec_cases(128)) {
    const CodecInfo& i = info(c.format.codec);
    if (!i.offset || c.format.group == 1 || c.format.group == 7 || c.span > 1) continue;
    const OwnedTensor t = make_case(rng, c, 2);
    const std::vector<float> x = random_values(rng, 256);
    encode_all(t, x.data());
    std::vector<float> codes(128);
    for (int64_t r = 0; r < 2; ++r) {
      i.values(t, r, 0, 128, codes.data());
      for (int64_t g = 0; g < t.tensor.groups(); ++g) {
        const int64_t b = t.tensor.group_begin(g), e = t.tensor.group_end(g);
        const auto [lo, hi] = std::minmax_element(x.begin() + r * 128 + b, x.begin() + r * 128 + e);
        EXPECT_EQ(codes[size_t(lo - x.begin() - r * 128)], 0.0f) << c.name();
        EXPECT_EQ(codes[size_t(hi - x.begin() - r * 128)], float((1 << i.bits) - 1)) << c.name();
      }
    }
  }
}

TEST(CodecProperty, ZeroDomainsAgreeWhereTheyCan) {  // min = -s * z exactly, s a power of two
  std::mt19937 rng(8);
  for (int trial = 0; trial < 50; ++trial) {
    const OwnedTensor z1 = make_tensor({id<Int4Z>}, 1, 64), z2 = make_tensor({id<UInt4O>}, 1, 64);
    const float s = std::ldexp(1.0f, int(rng() % 9) - 4);
    const int zero = int(rng() % 16);
    *z1.tensor.scale.row<float>(0) = s;
    *z1.tensor.aux.row<uint8_t>(0) = uint8_t(zero);
    z2.tensor.scale.row<uint16_t>(0)[0] = f32_to_f16(s);
    z2.tensor.scale.row<uint16_t>(0)[1] = f32_to_f16(-s * float(zero));
    std::vector<float> x = random_values(rng, 64);
    for (float& v : x) v *= 6.0f * s;
    encode_all(z1, x.data(), ScaleSource::given);
    encode_all(z2, x.data(), ScaleSource::given);
    const std::vector<float> a = decode_all(z1), b = decode_all(z2);
    for (size_t i = 0; i < a.size(); ++i) {
      const float q = x[i] / s;
      if (q - std::floor(q) == 0.5f) continue;  // a tie is even in one domain and odd in the other
      ASSERT_EQ(a[i], b[i]);
    }
  }
}

double squared_error(Format format, const std::vector<float>& x, int64_t rows, int64_t cols) {
  const OwnedTensor t = make_tensor(format, rows, cols);
  encode_all(t, x.data());
  const std::vector<float> y = decode_all(t);
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) sum += (double(x[i]) - y[i]) * (double(x[i]) - y[i]);
  return sum;
}

TEST(CodecProperty, MoreBitsAndSmallerGroupsAreMoreAccurate) {
  std::mt19937 rng(9);
  const std::vector<float> x = random_values(rng, 32 * 576);
  const auto error = [&](Format f) { return squared_error(f, x, 32, 576); };
  for (const int32_t g : {0, 64}) {
    EXPECT_LT(error({id<Int8>, g}), error({id<E3M2>, g}));
    EXPECT_LT(error({id<E3M2>, g}), error({id<Int4>, g}));
    EXPECT_LT(error({id<Int4>, g}), error({id<Int3>, g}));
    EXPECT_LT(error({id<Int3>, g}), error({id<Int2>, g}));
    EXPECT_LT(error({id<Int4Z>, g}), error({id<Int3Z>, g}));
    EXPECT_LT(error({id<Int3Z>, g}), error({id<Int2Z>, g}));
    EXPECT_LT(error({id<UInt8O>, g}), error({id<UInt4O>, g}));
    EXPECT_LT(error({id<UInt4O>, g}), error({id<UInt3O>, g}));
    EXPECT_LT(error({id<UInt3O>, g}), error({id<UInt2O>, g}));
    EXPECT_LT(error({id<TwoLevel4>, g}), error({id<Int3>, g}));
  }
  for (const Codec codec : {id<Int8>, id<Int4>, id<Int4Z>, id<Int3Z>, id<UInt4O>, id<UInt2O>}) {
    EXPECT_LT(error({codec, 32}), error({codec, 64})) << info(codec).name;
    EXPECT_LT(error({codec, 64}), error({codec, 0})) << info(codec).name;
  }
}

TEST(CodecProperty, Int8ActivationsCarryTheSumsOfTheirCodes) {
  std::mt19937 rng(10);
  StorageOptions options;
  options.sums = true;
  for (const int32_t group : {0, 1, 7, 64}) {
    for (const int64_t cols : {1, 64, 300}) {
      const OwnedTensor t = make_tensor({id<Int8>, group}, 3, cols, options);
      encode_all(t, random_values(rng, 3 * cols, Fill::shifted).data());
      std::vector<int16_t> codes(size_t(cols), 0);
      for (int64_t r = 0; r < 3; ++r) {
        info(id<Int8>).codes(t, r, 0, cols, codes.data());
        for (int64_t g = 0; g < t.tensor.groups(); ++g) {
          int32_t sum = 0;
          for (int64_t c = t.tensor.group_begin(g); c < t.tensor.group_end(g); ++c) sum += codes[size_t(c)];
          ASSERT_EQ(t.tensor.aux.row<const int32_t>(r)[g], sum) << group << " " << cols;
        }
      }
    }
  }
}

TEST(CodecProperty, E3m2SplitsIntoFourAndTwoBitPlanes) {
  std::mt19937 rng(11);
  constexpr int64_t kCols = 96;
  const OwnedTensor t = make_tensor({id<E3M2>}, 4, kCols);
  encode_all(t, random_values(rng, 4 * kCols).data());
  std::vector<float> values(size_t(kCols), 0.0f);
  for (int64_t r = 0; r < 4; ++r) {
    info(id<E3M2>).values(t, r, 0, kCols, values.data());
    float most = 0.0f;
    for (int64_t c = 0; c < kCols; ++c) {
      const int low = (t.tensor.data.row<const uint8_t>(r)[c / 2] >> (4 * (c % 2))) & 15;
      const int high = (t.tensor.high.row<const uint8_t>(r)[c / 4] >> (2 * (c % 4))) & 3;
      ASSERT_EQ(values[size_t(c)], E3M2Scalar::decode(uint32_t(high << 4 | low)));
      ASSERT_EQ(E3M2Scalar::encode(values[size_t(c)]), uint32_t(high << 4 | low));
      most = std::max(most, std::abs(values[size_t(c)]));
    }
    EXPECT_EQ(most, 28.0f);  // the largest of a row sits on the largest code
  }
}

}  // namespace
}  // namespace quire
