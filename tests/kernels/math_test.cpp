#include "kernels/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quire {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Exp, RelativeError) {
  const double most = 0x1.0p-23 * std::sqrt(0.5);  // 2^-23.5
  for (const bool negative : {false, true}) {
    const uint32_t last = f32_bits(negative ? 87.3f : 88.3f);
    for (uint32_t u = f32_bits(0x1.0p-30f); u <= last; u += 97) {
      const float x = f32_from_bits(u | (negative ? 0x80000000u : 0u));
      const double exact = std::exp(double(x));
      ASSERT_LE(std::fabs(double(exp_f32(x)) - exact), most * exact) << x;
    }
  }
  for (const float x : {0.0f, -0.0f, 1e-38f, -1e-38f, 1e-42f}) EXPECT_EQ(exp_f32(x), 1.0f) << x;
}

TEST(Exp, Ends) {
  EXPECT_GT(exp_f32(-87.3f), 1.17549435e-38f);  // normal: no machine flushes it
  for (const float x : {std::nextafter(-87.3f, -100.0f), -88.0f, -1e30f, -kInf}) EXPECT_EQ(exp_f32(x), 0.0f) << x;
  for (const float x : {std::nextafter(88.3f, 100.0f), 1e30f, kInf}) EXPECT_EQ(exp_f32(x), exp_f32(88.3f)) << x;
  EXPECT_TRUE(std::isfinite(exp_f32(kInf)));
  EXPECT_TRUE(std::isnan(exp_f32(std::nanf(""))));
}

// Where the exponent's integer changes, neighbours still do not fall by more than the error allows.
TEST(Exp, NearlyMonotone) {
  for (int n = -125; n <= 126; ++n) {
    float x = (float(n) + 0.5f) * 0.693147181f;
    for (int i = 0; i < 40; ++i) x = std::nextafter(x, -kInf);
    float before = exp_f32(x);
    for (int i = 0; i < 80; ++i) {
      x = std::nextafter(x, kInf);
      const float y = exp_f32(x);
      ASSERT_GE(double(y), double(before) * (1.0 - 0x1.0p-22)) << x;
      before = y;
    }
  }
}

TEST(Silu, NearTheRealValue) {
  for (float x = -88.3f; x < 1000.0f; x += 0.01f) {
    const double exact = double(x) / (1.0 + std::exp(-double(x)));
    // exp carries 2^-23.5, the sum and the quotient round.
    const double bound = (0x1.7p-24 + 2.0 * 0x1.0p-24) * 1.01;
    ASSERT_NEAR(double(silu(x)), exact, bound * std::fabs(exact)) << x;
  }
}

TEST(Silu, Ends) {
  for (const float x : {-88.31f, -1e10f, -3e38f, -kInf}) EXPECT_EQ(silu(x), 0.0f) << x;
  EXPECT_EQ(silu(0.0f), 0.0f);
  EXPECT_EQ(silu(3e38f), 3e38f);
  EXPECT_EQ(silu(kInf), kInf);
  EXPECT_TRUE(std::isnan(silu(std::nanf(""))));
}

}  // namespace
}  // namespace quire
