// QoQ's two levels: the invariants that let a kernel work on bytes.
#include <gtest/gtest.h>

#include "tests/quant/codec_cases.h"

namespace quire {
namespace {

using namespace testing_quant;

TEST(TwoLevel, ExhaustivelyStaysWithinBytes) {
  for (int lo = -119; lo <= 119; ++lo) {
    for (int hi = lo; hi <= 119; ++hi) {
      uint8_t s2 = 0;
      int8_t b = 0;
      TwoLevel4::second_level(lo, hi, &s2, &b);
      ASSERT_TRUE(s2 >= 1 && s2 <= 16);
      ASSERT_EQ(b, lo);
      const int slack = std::max(0, hi - lo - 15 * s2);  // what the topmost code falls short by
      ASSERT_LE(slack, 7);
      for (int q8 = lo; q8 <= hi; ++q8) {
        const int q4 = TwoLevel4::second_code(q8, s2, b), back = q4 * s2 + b;
        ASSERT_TRUE(q4 >= 0 && q4 <= 15 && q4 * s2 <= 255);
        ASSERT_TRUE(back >= -128 && back <= 127) << lo << " " << hi << " " << q8;
        ASSERT_LE(2 * std::abs(back - q8), std::max<int>(s2, 2 * slack)) << lo << " " << hi << " " << q8;
      }
    }
  }
}

// The other form, with an integer zero point: holds for the protective range +-119 and fails just outside it.
bool integer_zero_stays_within_bytes(int limit) {
  for (int lo = -limit; lo <= 0; ++lo) {
    for (int hi = 0; hi <= limit; ++hi) {
      const int s2 = std::max(1, int(rne(float(hi - lo) / 15.0f)));
      const int z = std::clamp(int(rne(float(-lo) / float(s2))), 0, 15);
      for (const int q8 : {lo, hi}) {
        const int q4 = std::clamp(int(rne(float(q8) / float(s2))) + z, 0, 15), back = (q4 - z) * s2;
        if (back < -128 || back > 127 || q4 * s2 > 255 || s2 > 16) return false;
      }
    }
  }
  return true;
}
TEST(TwoLevel, TheProtectiveRangeIs119) {
  EXPECT_EQ(TwoLevel4::kRange, 119.0f);
  EXPECT_TRUE(integer_zero_stays_within_bytes(119));
  EXPECT_FALSE(integer_zero_stays_within_bytes(120));
}

TEST(TwoLevel, FourBytesAtOnceEqualScalars) {  // one 32-bit product, then bytewise addition without carries
  for (int s2 = 1; s2 <= 16; ++s2) {
    for (int b = -128; b <= 127; ++b) {
      for (uint32_t q = 0; q < 16; ++q) {
        const uint32_t packed = q | ((q + 1) & 15) << 8 | ((q + 5) & 15) << 16 | (15 - q) << 24;
        const uint32_t product = packed * uint32_t(s2), add = uint8_t(b) * 0x01010101u;
        const uint32_t low = (product & 0x7f7f7f7fu) + (add & 0x7f7f7f7fu), sum = low ^ ((product ^ add) & 0x80808080u);
        for (int k = 0; k < 4; ++k) {
          const int scalar = int((packed >> (8 * k)) & 15) * s2 + b;
          ASSERT_EQ(uint8_t(sum >> (8 * k)), uint8_t(scalar));
        }
      }
    }
  }
}

TEST(TwoLevel, CodesAreBytesAndTheScaleIsOneARow) {
  std::mt19937 rng(1);
  for (const int32_t group : {0, 32, 64, 128}) {
    const OwnedTensor t = make_tensor({id<TwoLevel4>, group}, 8, 576);
    const std::vector<float> x = random_values(rng, 8 * 576, Fill::outlier);
    encode_all(t, x.data());
    std::vector<int16_t> codes(576);
    for (int64_t r = 0; r < 8; ++r) {
      info(id<TwoLevel4>).codes(t, r, 0, 576, codes.data());
      for (const int16_t q : codes) ASSERT_TRUE(q >= -119 && q <= 126);
      for (int64_t g = 0; g < t.tensor.groups(); ++g) {
        ASSERT_EQ(info(id<TwoLevel4>).affine(t, r, g).scale, *t.tensor.scale.row<const float>(r));
        const uint8_t* second = t.tensor.aux.row<const uint8_t>(r) + 2 * g;
        int lo = 127, hi = -128;  // level 2 is found on the integers of level 1
        const float inv =
            TwoLevel4::kRange / (*std::max_element(x.begin() + r * 576, x.begin() + (r + 1) * 576,
                                                   [](float a, float b) { return std::abs(a) < std::abs(b); }));
        for (int64_t c = t.tensor.group_begin(g); c < t.tensor.group_end(g); ++c) {
          const int q = TwoLevel4::first_code(x[size_t(r * 576 + c)], std::abs(inv));
          lo = std::min(lo, q);
          hi = std::max(hi, q);
        }
        ASSERT_EQ(int(int8_t(second[1])), lo);
        ASSERT_EQ(int(second[0]), std::max(1, int(rne(float(hi - lo) / 15.0f))));
      }
    }
  }
}

}  // namespace
}  // namespace quire
