// How far a decoded value may lie from the encoded one, for every codec, from the codec's definition.
#pragma once
#include "tests/quant/codec_cases.h"

namespace quire::testing_quant {

inline constexpr double kEps32 = 0x1p-24;  // half an ulp of f32, relative

// Half an ulp of a half at x: what rounding x to f16 may change.
inline double half_error(double x) { return std::max(std::abs(x) * 0x1p-11, 0x1p-25); }

// What a bound may depend on: the values of the group (over all rows that share the scale) after NaN and infinities
// were replaced, and the value itself.
struct GroupRange {
  double lo = 0, hi = 0;
  double magnitude() const { return std::max(std::abs(lo), std::abs(hi)); }
};

template <class C>
struct Bound;

template <int Bits, Zero Z>
struct Bound<Affine<Bits, Z>> {
  static double of(const GroupRange& range, double x) {
    constexpr int kMax = Affine<Bits, Z>::kMaxCode;
    // Roundings of f32 on the way: scale 3, inverse 1, x * inv 1, s * q 1, subtraction and addition of the minimum 2.
    const double f32 = 8 * kEps32 * 2 * range.magnitude() + kMax * 1.3e-38;  // tinier scales are stored as 0
    if (Z == Zero::none) return range.magnitude() / kMax / 2 + f32;
    if (Z == Zero::integer) return (std::max(range.hi, 0.0) - std::min(range.lo, 0.0)) / kMax / 2 + f32;
    // Scale and minimum are rounded to f16: the codes move by at most kMax * ds + dmin at the far end.
    const double s = (range.hi - range.lo) / kMax, ds = half_error(s);
    return (s + ds) / 2 + kMax * ds + half_error(range.lo) + f32 + std::abs(x) * kEps32;
  }
};

template <class Scalar>
struct Bound<ScaledFloat<Scalar>> {
  static double of(const GroupRange& range, double x) {
    constexpr bool kEight = Scalar::kBits == 8;
    const double s = range.magnitude() / Scalar::max();
    const double half_ulp = kEight ? 0x1p-4 : 0x1p-3, smallest = kEight ? 0x1p-9 : 0x1p-4;
    return std::max(std::abs(x) * half_ulp, s * smallest / 2) + 8 * kEps32 * range.magnitude() +
           Scalar::max() * 1.3e-38;
  }
};

template <>
struct Bound<TwoLevel4> {
  // First level s1 / 2 and second level s1 * s2 / 2, or at the top, where 15 steps may fall short by up to 7.
  static double of(const GroupRange& row, double) {
    const double s1 = row.magnitude() / TwoLevel4::kRange;
    return s1 * (0.5 + 8.0) + 8 * kEps32 * row.magnitude() + 120 * 1.3e-38;
  }
};

template <int Bits, bool HasMin>
struct Bound<GgufBlock<Bits, HasMin>> {
  static double of(const GroupRange& range, double x) {
    const double f32 = 8 * kEps32 * 2 * range.magnitude() + std::abs(x) * kEps32;
    if (HasMin) {
      constexpr int kMost = (1 << Bits) - 1;
      const double s = (range.hi - range.lo) / kMost, ds = half_error(s);
      return (s + ds) / 2 + kMost * ds + half_error(range.lo) + f32;
    }
    constexpr int kMost = Bits == 8 ? 127 : 1 << (Bits - 1);
    const double s = range.magnitude() / kMost, ds = half_error(s);
    // q4_0 has codes -8..7 (q5_0 likewise): the end opposite to the extreme one is cut by up to a whole step.
    return Bits == 8 ? (s + ds) / 2 + kMost * ds + f32 : (s + ds) + kMost * ds + f32;
  }
};

template <class B>
struct Bound<ReadBlock<B>> {  // never encoded
  static double of(const GroupRange&, double) { return 0.0; }
};

template <>
struct Bound<Spqr3> {  // never encoded
  static double of(const GroupRange&, double) { return 0.0; }
};

template <class Second>
struct Bound<E8Codes<Second>> {  // never encoded
  static double of(const GroupRange&, double) { return 0.0; }
};

template <FloatType Type>
struct Bound<Plain<Type>> {
  static double of(const GroupRange&, double x) {
    if (Type == FloatType::f32) return 0.0;
    return Type == FloatType::f16 ? half_error(x) : std::max(std::abs(x) * 0x1p-8, 0x1p-134);
  }
};

template <int Bits>
struct Bound<Codebook<Bits, false>> {  // centroids from -1 to 1, at most 1.8 steps apart; outside, the nearest end
  static double of(const GroupRange&, double x) {
    const double step = 2.0 / ((1 << Bits) - 1);
    return std::max(0.9 * step, std::abs(x) - 1.0) + 4 * kEps32 * std::max(1.0, std::abs(x));
  }
};

template <int Bits>
struct Bound<Codebook<Bits, true>> {
  static double of(const GroupRange& range, double x) {
    const double half = (range.hi - range.lo) / 2, step = 2.0 / ((1 << Bits) - 1), dh = half_error(half);
    const double dc = half_error((range.hi + range.lo) / 2);
    return 0.9 * step * (half + dh) + dh + dc + 8 * kEps32 * 2 * range.magnitude() + std::abs(x) * kEps32;
  }
};

template <>
struct Bound<Lut4> {  // entries from -1 to 1, at most 1.8 steps apart
  static double of(const GroupRange& range, double) {
    return (0.9 * 2.0 / 15 + 8 * kEps32) * range.magnitude() + 1.3e-38;
  }
};

// The group of (r, c) and all rows of its span.
inline GroupRange range_at(const Tensor& t, const float* src, int64_t r, int64_t c, double limit) {
  const bool whole_row = t.codec == id<TwoLevel4>;
  const int64_t span = t.scale.ptr ? t.scale.rows : 1, g = t.group_of(c);
  const int64_t begin = whole_row ? 0 : t.group_begin(g), end = whole_row ? t.cols : t.group_end(g);
  GroupRange range{limit, -limit};
  for (int64_t i = r / span * span; i < std::min(t.rows, r / span * span + span); ++i) {
    for (int64_t k = begin; k < end; ++k) {
      const double x = std::clamp<double>(src[i * t.cols + k], -limit, limit);
      range.lo = std::min(range.lo, x);
      range.hi = std::max(range.hi, x);
    }
  }
  return range;
}

inline double error_bound(Codec codec, const GroupRange& range, double x) {
  return visit(codec, [&]<class C>(C) { return Bound<C>::of(range, x); });
}

}  // namespace quire::testing_quant
