#include "quant/scalar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace quire {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A float of E exponent and M mantissa bits from its definition, in double; no specials.
double by_definition(uint32_t code, int e_bits, int m_bits, int bias) {
  const uint32_t m = code & ((1u << m_bits) - 1), e = (code >> m_bits) & ((1u << e_bits) - 1);
  const double sign = code >> (e_bits + m_bits) ? -1.0 : 1.0;
  if (e == 0) return sign * std::ldexp(double(m), 1 - bias - m_bits);
  return sign * std::ldexp(double((1u << m_bits) | m), int(e) - bias - m_bits);
}

// Round to nearest even in double, independent of bit tricks: the quantum at x's exponent, then nearbyint.
double rounded(double x, int m_bits, int min_exponent) {
  if (x == 0.0) return x;
  int e = 0;
  std::frexp(x, &e);  // |x| in [2^(e-1), 2^e)
  const double quantum = std::ldexp(1.0, std::max(e - 1, min_exponent) - m_bits);
  return std::nearbyint(x / quantum) * quantum;
}

void expect_f16(float x) {
  const double expected = std::abs(double(x)) >= 65520.0 ? std::copysign(kInf, x) : rounded(x, 10, -14);
  const float got = f16_to_f32(f32_to_f16(x));
  ASSERT_EQ(double(got), expected) << x;
  ASSERT_EQ(std::signbit(got), std::signbit(x)) << x;
}

TEST(Scalar, HalfDecodesAsDefinedAndEncodesBack) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float x = f16_to_f32(uint16_t(h));
    const uint32_t magnitude = h & 0x7fffu;
    if (magnitude > 0x7c00u) {
      ASSERT_TRUE(std::isnan(x)) << h;
      ASSERT_GT(f32_to_f16(x) & 0x7fffu, 0x7c00u) << h;
      continue;
    }
    const double expected =
        magnitude == 0x7c00u ? std::copysign(kInf, h >> 15 ? -1.0 : 1.0) : by_definition(h, 5, 10, 15);
    ASSERT_EQ(double(x), expected) << h;
    ASSERT_EQ(std::signbit(x), (h >> 15) == 1) << h;
    ASSERT_EQ(f32_to_f16(x), h);
  }
}

TEST(Scalar, HalfRoundsToNearestEvenAtEveryMidpoint) {
  for (uint32_t h = 0; h < 0x7c00u; ++h) {
    const float a = f16_to_f32(uint16_t(h)), b = h == 0x7bffu ? 65536.0f : f16_to_f32(uint16_t(h + 1));
    const float middle = float((double(a) + double(b)) / 2.0);  // exact: 12 bits
    for (const float x : {a, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, kInf)}) {
      expect_f16(x);
      expect_f16(-x);
    }
    ASSERT_EQ(f32_to_f16(middle) & 1, 0) << "a tie goes to the even code";
  }
  std::mt19937 rng(1);
  for (int i = 0; i < 2000000; ++i) {
    const float x = f32_from_bits(rng());
    if (std::isfinite(x)) expect_f16(x);
  }
  EXPECT_EQ(f32_to_f16(kInf), 0x7c00);
  EXPECT_EQ(f32_to_f16(-kInf), 0xfc00);
  EXPECT_EQ(f32_to_f16(3.4e38f), 0x7c00);
}

TEST(Scalar, Bfloat16) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float x = bf16_to_f32(uint16_t(h));
    ASSERT_EQ(f32_bits(x), h << 16);
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(x))));
      continue;
    }
    ASSERT_EQ(f32_to_bf16(x), h);
    if ((h & 0x7fffu) >= 0x7f7fu) continue;  // the next code is infinity
    const float middle = f32_from_bits((h << 16) | 0x8000u);
    ASSERT_EQ(f32_to_bf16(middle), (h & 1) ? h + 1 : h) << "a tie goes to the even code";
    ASSERT_EQ(f32_to_bf16(f32_from_bits((h << 16) | 0x7fffu)), h);
    ASSERT_EQ(f32_to_bf16(f32_from_bits((h << 16) | 0x8001u)), h + 1);
  }
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7f800001u)))));  // not rounded to infinity
}

TEST(Scalar, RneIsNearbyint) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<float> wide(-4.0e6f, 4.0e6f), narrow(-300.0f, 300.0f);
  for (int i = 0; i < 200000; ++i) {
    for (const float x : {wide(rng), narrow(rng)}) ASSERT_EQ(rne(x), std::nearbyint(x)) << x;
  }
  for (int i = -1000; i <= 1000; ++i) ASSERT_EQ(rne(float(i) + 0.5f), std::nearbyint(float(i) + 0.5f));
}

// The nearest code by trying all of them; of two equally near the one with the even mantissa.
template <class Scalar>
uint32_t nearest(float x, uint32_t last) {
  uint32_t best = 0;
  double least = kInf;
  for (uint32_t code = 0; code <= last; ++code) {
    const double d = std::abs(std::abs(double(x)) - double(Scalar::decode(code)));
    if (d < least || (d == least && code % 2 == 0)) {
      least = d;
      best = code;
    }
  }
  return best;
}

TEST(Scalar, E4m3) {
  for (uint32_t code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;  // NaN
    const float x = E4M3Scalar::decode(code);
    ASSERT_EQ(double(x), by_definition(code, 4, 3, 7)) << code;
    ASSERT_EQ(E4M3Scalar::encode(x), code);
  }
  EXPECT_EQ(E4M3Scalar::max(), 448.0f);
  for (const float x : {448.0f, 449.0f, 464.0f, 480.0f, 1.0e30f, kInf}) {
    EXPECT_EQ(E4M3Scalar::encode(x), 0x7eu) << x;
    EXPECT_EQ(E4M3Scalar::encode(-x), 0xfeu) << x;
  }
  EXPECT_EQ(E4M3Scalar::decode(E4M3Scalar::encode(kNan)), 0.0f);
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> exponent(-14.0f, 9.0f), sign(-1.0f, 1.0f);
  for (int i = 0; i < 100000; ++i) {
    const float x = std::copysign(std::exp2(exponent(rng)), sign(rng));
    ASSERT_EQ(E4M3Scalar::encode(x), nearest<E4M3Scalar>(x, 0x7e) | (x < 0 ? 0x80u : 0u)) << x;
  }
  for (uint32_t code = 0; code < 0x7e; ++code) {  // ties
    const float x = (E4M3Scalar::decode(code) + E4M3Scalar::decode(code + 1)) / 2;
    ASSERT_EQ(E4M3Scalar::encode(x), code % 2 == 0 ? code : code + 1);
  }
}

TEST(Scalar, E3m2IsDefinedAndItsHalfTrickIsExact) {
  for (uint32_t code = 0; code < 64; ++code) {
    const float x = E3M2Scalar::decode(code);
    ASSERT_EQ(double(x), by_definition(code, 3, 2, 3)) << code;
    ASSERT_EQ(E3M2Scalar::encode(x), code);
    // seee mm as the top of a half, times 2^12 (what a GPU does)
    const uint16_t half = uint16_t((code >> 5) << 15 | (code & 31u) << 8);
    ASSERT_EQ(f16_to_f32(half) * 4096.0f, x) << code;
  }
  EXPECT_EQ(E3M2Scalar::max(), 28.0f);
}

TEST(Scalar, E3m2TakesTheNearestForEveryHalf) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float x = f16_to_f32(uint16_t(h));
    if (std::isnan(x)) {
      ASSERT_EQ(E3M2Scalar::decode(E3M2Scalar::encode(x)), 0.0f);
    } else if (std::abs(x) > 28.0f) {
      ASSERT_EQ(E3M2Scalar::encode(x), x < 0 ? 0x3fu : 0x1fu) << x;
    } else {
      ASSERT_EQ(E3M2Scalar::encode(x), nearest<E3M2Scalar>(x, 0x1f) | (std::signbit(x) ? 0x20u : 0u)) << x;
    }
  }
}

}  // namespace
}  // namespace quire
