// Every codec of the list, in every group size, span and order: what encode and decode promise.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/quant/error_bound.h"

namespace quire {
namespace {

using namespace testing_quant;

constexpr int64_t kRows = 64;  // holds whole spans of 1, 32 and 64

int64_t rows_for(const CodecCase& c) { return c.span == 1 ? 2 : c.span == 32 ? 35 : kRows; }

void expect_within_bound(const Tensor& t, const std::vector<float>& x, const std::string& name) {
  const std::vector<float> y = decode_all(t);
  const int64_t span = t.scale.ptr ? t.scale.rows : 1;
  GroupRange range;
  for (int64_t r = 0; r < t.rows; ++r) {
    if (r % span != 0 && r % 16 != 3) continue;  // rows of a span are alike
    for (int64_t c = 0; c < t.cols; ++c) {
      if (c == 0 || t.group_begin(t.group_of(c)) == c || t.group == 0) {
        if (c == 0 || t.group > 0) range = range_at(t, x.data(), r, c, 3.0e38);
      }
      const double expected = x[size_t(r * t.cols + c)], got = y[size_t(r * t.cols + c)];
      ASSERT_LE(std::abs(got - expected), error_bound(t.codec, range, expected))
          << name << " row " << r << " column " << c << ": " << expected << " became " << got;
    }
  }
}

TEST(Codec, ErrorIsBoundedAtEveryLength) {
  std::mt19937 rng(1);
  for (int64_t cols = 1; cols <= 70; ++cols) {
    for (const CodecCase& c : codec_cases(cols)) {
      if (c.span != 1 && cols % 20 != 13 && cols != 64) continue;
      const OwnedTensor t = make_case(rng, c, rows_for(c));
      const std::vector<float> x =
          random_values(rng, t.tensor.rows * cols, cols % 3 == 0 ? Fill::shifted : Fill::normal);
      encode_all(t, x.data());
      expect_within_bound(t, x, c.name());
    }
  }
}

TEST(Codec, ErrorIsBoundedForEveryKindOfValues) {
  std::mt19937 rng(2);
  for (const Fill fill : {Fill::normal, Fill::shifted, Fill::outlier, Fill::tiny, Fill::large}) {
    for (const int64_t cols : {128, 300}) {
      for (const CodecCase& c : codec_cases(cols)) {
        if (c.span == 64) continue;
        const OwnedTensor t = make_case(rng, c, rows_for(c));
        const std::vector<float> x = random_values(rng, t.tensor.rows * cols, fill);
        encode_all(t, x.data());
        expect_within_bound(t, x, c.name() + fmt::format(" fill {}", int(fill)));
      }
    }
  }
}

TEST(Codec, ZerosStayZerosAndConstantsStayClose) {
  std::mt19937 rng(3);
  for (const int64_t cols : {1, 31, 48}) {
    for (const CodecCase& c : codec_cases(cols)) {
      if (c.span == 64) continue;
      if (info(c.format.codec).table_bytes > 0 && !info(c.format.codec).table_shared)
        continue;  // zero may be no centroid
      for (const float constant : {0.0f, -0.0f, 1.0f, -3.0e-3f, 777.0f, 1.0e-30f, -1.0e-40f, 65504.0f}) {
        const OwnedTensor t = make_case(rng, c, rows_for(c));
        const std::vector<float> x(size_t(t.tensor.rows * cols), constant);
        encode_all(t, x.data());
        if (constant == 0.0f) {
          for (const float y : decode_all(t)) ASSERT_EQ(y, 0.0f) << c.name();
        } else {
          expect_within_bound(t, x, c.name() + fmt::format(" constant {}", constant));
        }
      }
    }
  }
}

// f16 saturates where it would overflow; infinities, too.
TEST(Codec, HalvesSaturate) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {65504.0f, 65519.0f, 65520.0f, 1.0e6f, -3.0e38f, inf, -inf, 0x1.0p-24f};
  const OwnedTensor t = make_tensor({id<F16>}, 1, int64_t(x.size()));
  info(id<F16>).encode(t.tensor, 0, 1, x.data(), int64_t(x.size()), ScaleSource::found);
  std::vector<float> y(x.size());
  info(id<F16>).decode(t.tensor, 0, 0, int64_t(x.size()), y.data());
  EXPECT_EQ(y,
            (std::vector<float>{65504.0f, 65504.0f, 65504.0f, 65504.0f, -65504.0f, 65504.0f, -65504.0f, 0x1.0p-24f}));
}

// Every float that a plane stores beside the codes.
void expect_finite_scales(const Tensor& t, const std::string& name) {
  const CodecInfo& i = info(t.codec);
  if (!has_scale(t.codec)) return;
  const bool halves = i.half_scales;
  const int64_t bytes = i.row_bytes(t.cols, t.groups()).scale;
  for (int64_t r = 0; r < t.rows; r += t.scale.rows) {
    for (int64_t k = 0; k < bytes / (halves ? 2 : 4); ++k) {
      const float s = halves ? f16_to_f32(t.scale.row<const uint16_t>(r)[k]) : t.scale.row<const float>(r)[k];
      ASSERT_TRUE(std::isfinite(s)) << name;
    }
  }
}

TEST(Codec, NothingNonFiniteIsStored) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float biggest = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  std::mt19937 rng(4);
  for (const int64_t cols : {1, 33, 64}) {
    for (const CodecCase& c : codec_cases(cols)) {
      if (!has_scale(c.format.codec) && info(c.format.codec).group == 0 && info(c.format.codec).table_bytes == 0)
        continue;  // f16
      for (int kind = 0; kind < 6; ++kind) {
        const OwnedTensor t = make_case(rng, c, rows_for(c));
        std::vector<float> x = random_values(rng, t.tensor.rows * cols);
        const float special[6][2] = {{nan, nan},          {inf, inf},      {inf, -inf},
                                     {biggest, -biggest}, {least, -least}, {nan, -inf}};
        for (size_t i = 0; i < x.size(); i += kind % 2 == 0 ? 1 : 5) x[i] = special[kind][i / 5 % 2];
        encode_all(t, x.data());
        expect_finite_scales(t, c.name());
        for (const float y : decode_all(t)) ASSERT_TRUE(std::isfinite(y)) << c.name() << " kind " << kind;
      }
    }
  }
}

TEST(Codec, NanIsQuantizedAsZero) {
  std::mt19937 rng(5);
  for (const CodecCase& c : codec_cases(48)) {
    if (!has_scale(c.format.codec) && info(c.format.codec).group == 0 && info(c.format.codec).table_bytes == 0)
      continue;
    const OwnedTensor a = make_case(rng, c, rows_for(c)), b = make_case(rng, c, rows_for(c));
    std::memcpy(b.buffer.data(), a.buffer.data(), a.buffer.size());  // the codebook too
    std::vector<float> x = random_values(rng, a.tensor.rows * 48), y = x;
    for (size_t i = 0; i < x.size(); i += 11) {
      x[i] = std::numeric_limits<float>::quiet_NaN();
      y[i] = 0.0f;
    }
    encode_all(a, x.data());
    encode_all(b, y.data());
    ASSERT_EQ(std::memcmp(a.buffer.data(), b.buffer.data(), a.buffer.size()), 0) << c.name();
  }
}

TEST(Codec, PartsOfARowDecodeAsTheWhole) {
  std::mt19937 rng(6);
  for (const int64_t cols : {45, 64, 144, 600}) {
    for (const CodecCase& c : codec_cases(cols)) {
      if (c.span == 64) continue;
      const OwnedTensor owned = make_case(rng, c, rows_for(c));
      const Tensor& t = owned;
      encode_all(t, random_values(rng, t.rows * cols).data());
      const CodecInfo& i = info(t.codec);
      const std::vector<float> whole = decode_all(t);
      std::vector<float> part(size_t(cols), 0.0f), values(size_t(cols), 0.0f);
      std::vector<int16_t> codes(size_t(cols), 0);
      for (int trial = 0; trial < 6; ++trial) {
        const int64_t r = int64_t(rng()) % t.rows, c0 = int64_t(rng()) % cols, n = 1 + int64_t(rng()) % (cols - c0);
        i.decode(t, r, c0, n, part.data());
        ASSERT_EQ(std::memcmp(part.data(), whole.data() + r * cols + c0, size_t(n) * 4), 0) << c.name();
        if (i.linear) {
          i.values(t, r, c0, n, values.data());
          for (int64_t k = 0; k < n; ++k) {
            const AffineParams a = i.affine(t, r, t.group_of(c0 + k));
            ASSERT_EQ(part[size_t(k)], a.scale * values[size_t(k)] + a.offset) << c.name();
          }
        }
        if (i.integer) {
          i.codes(t, r, c0, n, codes.data());
          for (int64_t k = 0; k < n; ++k) ASSERT_EQ(float(codes[size_t(k)]), values[size_t(k)]) << c.name();
        }
      }
    }
  }
}

TEST(Codec, OnlyItsOwnRowsAreWritten) {
  std::mt19937 rng(7);
  for (const int64_t cols : {1, 13, 37, 64, 320}) {
    for (const CodecCase& c : codec_cases(cols)) {
      if (info(c.format.codec).table_bytes > 0) continue;  // its table is memory apart
      const int64_t rows = c.span * 3;
      GuardedTensor zeros(c, rows, 0x00), ones(c, rows, 0xff);
      const std::vector<float> x = random_values(rng, c.span * cols);
      for (const Tensor& t : {zeros.t, ones.t}) {
        info(t.codec).encode(t, c.span, c.span, x.data(), cols, ScaleSource::found);
      }
      ASSERT_EQ(zeros.touched_outside(c.span, c.span), 0) << c.name();
      ASSERT_EQ(ones.touched_outside(c.span, c.span), 0) << c.name();
      // and every bit of them: what was there before does not shine through
      std::vector<float> a(size_t(cols), 0.0f), b(size_t(cols), 0.0f);
      for (int64_t r = c.span; r < 2 * c.span; ++r) {
        info(c.format.codec).decode(zeros.t, r, 0, cols, a.data());
        info(c.format.codec).decode(ones.t, r, 0, cols, b.data());
        ASSERT_EQ(std::memcmp(a.data(), b.data(), size_t(cols) * 4), 0) << c.name();
      }
      ASSERT_EQ(zeros.row_bytes(c.span, c.span), ones.row_bytes(c.span, c.span)) << c.name();
    }
  }
}

TEST(Codec, OrderMovesCodesAndChangesNoValue) {
  std::mt19937 rng(8);
  for (const int64_t cols : {16, 64, 128}) {
    for (const CodecCase& c : codec_cases(cols)) {
      if (c.order == Order::natural || c.span == 64) continue;
      CodecCase plain = c;
      plain.order = Order::natural;
      const OwnedTensor a = make_case(rng, c, rows_for(c)), b = make_case(rng, plain, rows_for(c));
      if (a.tensor.table.ptr) {
        const CodecInfo& i = info(c.format.codec);
        std::memcpy(b.tensor.table.ptr, a.tensor.table.ptr, size_t(i.table_bytes * (i.table_shared ? 1 : cols)));
      }
      const std::vector<float> x = random_values(rng, a.tensor.rows * cols);
      encode_all(a, x.data());
      encode_all(b, x.data());
      ASSERT_EQ(decode_all(a), decode_all(b)) << c.name();
    }
  }
}

TEST(Codec, StoredColumnsArePermutations) {
  for (const Order order : {Order::natural, Order::value_tiles, Order::rope_pairs}) {
    for (const int64_t cols : {16, 32, 64, 96, 128, 256}) {
      std::vector<int> seen(size_t(cols), 0);
      for (int64_t c = 0; c < cols; ++c) {
        const int64_t p = stored_column(order, cols, c);
        ASSERT_TRUE(p >= 0 && p < cols);
        ++seen[size_t(p)];
      }
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), cols);
    }
  }
  // dim 16j + 2g + e of 128 lies at 16g + 2j + e; dims i and i + 64 of a quarter lie 16 apart in one run of 32
  for (int j = 0; j < 8; ++j) {
    for (int g = 0; g < 8; ++g)
      EXPECT_EQ(stored_column(Order::value_tiles, 128, 16 * j + 2 * g + 1), 16 * g + 2 * j + 1);
  }
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(stored_column(Order::rope_pairs, 128, i + 64), stored_column(Order::rope_pairs, 128, i) + 16);
  }
}

}  // namespace
}  // namespace quire
