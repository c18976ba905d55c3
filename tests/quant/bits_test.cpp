#include "quant/bits.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

namespace quire {
namespace {

template <int Bits>
void expect_pack_and_unpack_agree() {
  std::mt19937 rng(Bits);
  for (int64_t c0 = 0; c0 < 17; ++c0) {
    for (int64_t n = 0; n < 70; ++n) {
      std::vector<uint8_t> row(64, 0), codes(size_t(n) + 1, 0), back(size_t(n) + 1, 0xee);
      for (int64_t i = 0; i < n; ++i) codes[size_t(i)] = uint8_t(rng());  // more bits than are stored
      pack_bits<Bits>(row.data(), c0, n, codes.data());
      for (int64_t i = 0; i < n; ++i) {  // lowest bits of a byte first
        const int64_t at = (c0 + i) * Bits;
        ASSERT_EQ((row[size_t(at / 8)] >> (at % 8)) & ((1 << Bits) - 1), codes[size_t(i)] & ((1 << Bits) - 1));
      }
      for (int64_t bit = 0; bit < 512; ++bit) {  // and nothing beside them
        if (bit >= c0 * Bits && bit < (c0 + n) * Bits) continue;
        ASSERT_EQ((row[size_t(bit / 8)] >> (bit % 8)) & 1, 0);
      }
      unpack_bits<Bits>(row.data(), c0, n, back.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(back[size_t(i)], codes[size_t(i)] & ((1 << Bits) - 1));
      ASSERT_EQ(back[size_t(n)], 0xee);
      std::vector<uint8_t> high(64, 0);
      pack_bits<Bits>(high.data(), c0, n, codes.data(), 3);
      unpack_bits<Bits>(high.data(), c0, n, back.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(back[size_t(i)], (codes[size_t(i)] >> 3) & ((1 << Bits) - 1));
    }
  }
}
TEST(Bits, PackAndUnpackAgreeAtEveryPlaceAndLength) {
  expect_pack_and_unpack_agree<1>();
  expect_pack_and_unpack_agree<2>();
  expect_pack_and_unpack_agree<4>();
}

TEST(Bits, OrderedIntegersCompareAsFloats) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> ascending = {-inf, -3.0e38f, -1.5f, -1.0f, -1.0e-42f, -0.0f,
                                        0.0f, 1.0e-42f, 1.0f,  1.5f,  3.0e38f,   inf};
  for (size_t i = 0; i + 1 < ascending.size(); ++i) EXPECT_LT(ordered(ascending[i]), ordered(ascending[i + 1]));
  for (const float x : ascending) EXPECT_EQ(f32_bits(from_ordered(ordered(x))), f32_bits(x));
  EXPECT_EQ(ordered(std::numeric_limits<float>::quiet_NaN()), ordered(0.0f));
  EXPECT_EQ(ordered(-std::numeric_limits<float>::quiet_NaN()), ordered(0.0f));
}

TEST(Bits, RangeSeesTheExtremesAndNoNegativeZero) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {1.0f, nan, -2.5f, 0.0f, 7.0f, 3.0f, -inf, 2.0f, 6.0f};
  Range range(100.0f);
  range.see(x.data(), 5);
  EXPECT_EQ(range.least(), -2.5f);
  EXPECT_EQ(range.most(), 7.0f);
  range.see(x.data() + 5, 4);
  EXPECT_EQ(range.least(), -100.0f);
  EXPECT_EQ(range.magnitude(), 100.0f);
  const float zeros[] = {-0.0f, -0.0f};
  Range zero(1.0f), none(1.0f);
  zero.see(zeros, 2);
  for (const float z : {zero.least(), zero.most(), zero.magnitude(), none.least(), none.most(), none.magnitude()}) {
    EXPECT_EQ(f32_bits(z), 0u);
  }
}

TEST(Bits, PiecesCoverTheColumnsGroupByGroup) {
  for (const int32_t group : {0, 1, 7, 64, 1000}) {
    Tensor t;
    t.group = group;
    t.cols = 700;
    for (const auto& [c0, n] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 700}, {3, 690}, {64, 64}, {699, 1}, {5, 0}}) {
      int64_t next = c0;
      for (Pieces p(t, c0, n); p.m > 0; p.next()) {
        ASSERT_EQ(p.c, next);
        ASSERT_LE(p.m, kPiece);
        ASSERT_EQ(p.g, t.group_of(p.c));
        ASSERT_EQ(p.g, t.group_of(p.c + p.m - 1));
        next += p.m;
      }
      ASSERT_EQ(next, c0 + n);
    }
  }
}

}  // namespace
}  // namespace quire
