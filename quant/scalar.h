// Bit-exact scalar conversions, the same on host and device: IEEE half, bfloat16, OCP e4m3fn, FP6-LLM's e3m2.
// All encoders round to nearest, ties to even. Half overflows to infinity; the 8- and 6-bit floats saturate.
#pragma once
#include <cstdint>
#include <cstring>

#include "quant/format.h"

namespace quire {

QUIRE_HD inline uint32_t f32_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
QUIRE_HD inline float f32_from_bits(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

// Round to nearest even for |x| < 2^22: the addition drops the fraction bits under the default rounding mode.
QUIRE_HD inline float rne(float x) { return (x + 12582912.0f) - 12582912.0f; }

QUIRE_HD inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16;
  const uint32_t magnitude = uint32_t(h & 0x7fffu) << 13;
  // Rescaling by 2^112 moves the exponent bias 15 to 127 and makes subnormals normal, exactly.
  const float value = f32_from_bits(magnitude) * f32_from_bits(0x77800000u);
  const uint32_t special = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u | magnitude : f32_bits(value);
  return f32_from_bits(sign | special);
}

// Selects instead of branches here and below, so that loops over it vectorize. Magnitudes fit int, whose comparison is
// cheap.
QUIRE_HD inline uint16_t f32_to_f16(float x) {
  const uint32_t u = f32_bits(x), a = u & 0x7fffffffu;
  const int32_t order = int32_t(a);
  // Below 2^-14 the addition aligns the mantissa to 2^-24 and rounds.
  const uint32_t small = f32_bits(f32_from_bits(a) + 0.5f) - 0x3f000000u;
  uint32_t h = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  h = order < 0x38800000 ? small : h;
  h = order >= 0x477ff000 ? 0x7c00u : h;                        // 65520 and above round to infinity
  h = order > 0x7f800000 ? 0x7e00u | ((a >> 13) & 0x1ffu) : h;  // NaN stays NaN
  return uint16_t(((u >> 16) & 0x8000u) | h);
}

QUIRE_HD inline float bf16_to_f32(uint16_t h) { return f32_from_bits(uint32_t(h) << 16); }

QUIRE_HD inline uint16_t f32_to_bf16(float x) {
  const uint32_t u = f32_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40u);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// A float of 1 sign, E exponent and M mantissa bits with the given bias and no infinity; kMax is its largest code.
template <int E, int M, int Bias, uint32_t kMax>
struct MiniFloat {
  static constexpr int kBits = 1 + E + M;

  QUIRE_HD static float decode(uint32_t code) {
    const uint32_t magnitude = code & ((1u << (E + M)) - 1u), sign = (code >> (E + M)) << 31;
    const float power = f32_from_bits(uint32_t(127 + 127 - Bias) << 23);  // moves the bias, exactly
    return f32_from_bits(sign | f32_bits(f32_from_bits(magnitude << (23 - M)) * power));
  }
  // NaN becomes zero: nothing stored may be non-finite.
  QUIRE_HD static uint32_t encode(float x) {
    constexpr uint32_t kRebias = uint32_t(127 - Bias) << 23;
    constexpr int32_t kMinNormal = int32_t(kRebias + (1u << 23));
    const float one_step = f32_from_bits(uint32_t(127 - Bias + 1 - M + 23) << 23);  // its ulp is the smallest subnormal
    const uint32_t u = f32_bits(x), a = u & 0x7fffffffu;
    const int32_t order = int32_t(a);
    const uint32_t small = f32_bits(f32_from_bits(a) + one_step) - f32_bits(one_step);
    uint32_t code = (a - kRebias + (1u << (22 - M)) - 1u + ((a >> (23 - M)) & 1u)) >> (23 - M);
    code = order < kMinNormal ? small : code;
    code = order >= int32_t(f32_bits(max())) || code > kMax ? kMax : code;
    code = order > 0x7f800000 ? 0u : code;
    return ((u >> 31) << (E + M)) | code;
  }
  QUIRE_HD static float max() { return decode(kMax); }
};
using E4M3Scalar = MiniFloat<4, 3, 7, 0x7e>;  // 448; 0x7f is NaN and decodes here to 480: readers refuse it
using E3M2Scalar = MiniFloat<3, 2, 3, 0x1f>;  // 28

}  // namespace quire
