// One value at a time, as a device thread reads it: the arithmetic of a codec's values() and decode(), so their bits.
#pragma once
#include "quant/formats.h"

namespace quire {

// The code as a float, as values() gives it; linear codecs.
template <class C>
QUIRE_HD inline float value_at(const Tensor& t, int64_t r, int64_t c) {
  static_assert(C::kLinear);
  if constexpr (C::kInteger)
    return float(C::code(t, r, c));
  else
    return C::value(t, r, c);
}

// The value, as decode() gives it.
template <class C>
QUIRE_HD inline float decode_at(const Tensor& t, int64_t r, int64_t c) {
  if constexpr (C::kLinear && C::kBits <= 8) {
    const AffineParams a = C::affine(t, r, t.group_of(c));
    const float q = value_at<C>(t, r, c);
    return C::kOffset ? a.scale * q + a.offset : a.scale * q;
  } else {
    return C::decode_at(t, r, c);
  }
}

}  // namespace quire
