// Scaled small floats: value = scale * float(code), scale f32 per group.
//   e4m3  OCP fp8 "fn", 8 bits, +-448 (compressed-tensors, ModelOpt, fp8 KV)
//   e3m2  FP6-LLM, 6 bits in a 4-bit and a 2-bit plane, +-28, no infinity or NaN
#pragma once
#include "quant/scalar.h"

namespace quire {

template <class Scalar>
struct ScaledFloat {
  static constexpr int kBits = Scalar::kBits;
  static_assert(kBits == 8 || kBits == 6);
  static constexpr const char* kName = kBits == 8 ? "e4m3" : "e3m2";
  static constexpr int kGroup = 0, kAlign = kBits == 8 ? 1 : 4;
  static constexpr bool kLinear = true, kInteger = false, kOffset = false;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {kBits == 8 ? cols : (cols + 1) / 2, kBits == 8 ? 0 : (cols + 3) / 4, groups * 4, 0};
  }
  QUIRE_HD static uint32_t code(const Tensor& t, int64_t r, int64_t c) {
    const int64_t p = stored_column(t.order, t.cols, c);
    const uint8_t* data = t.data.row<const uint8_t>(r);
    if constexpr (kBits == 8) return data[p];
    return ((data[p / 2] >> (4 * (p % 2))) & 15u) | (((t.high.row<const uint8_t>(r)[p / 4] >> (2 * (p % 4))) & 3u) << 4);
  }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    return {t.scale.row<const float>(r)[g], 0.0f};
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = Scalar::decode(code(t, r, c0 + i));
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = affine(t, r, t.group_of(c0 + i)).scale * Scalar::decode(code(t, r, c0 + i));
    }
  }
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld, ScaleSource source) {
    if constexpr (kBits == 6) clear_rows(t, r0, n);
    for (int64_t g = 0; g < t.groups(); ++g) {
      const int64_t begin = t.group_begin(g), end = t.group_end(g);
      if (source == ScaleSource::found) {
        float amax = 0.0f;
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t c = begin; c < end; ++c) {
            const float a = magnitude(src[i * ld + c]);
            amax = a > amax ? a : amax;
          }
        }
        float scale = amax / Scalar::max();
        if (scale < 1.2e-38f) scale = 0.0f;  // its inverse would not be finite
        t.scale.row<float>(r0)[g] = scale;
      }
      const float scale = affine(t, r0, g).scale, inv = scale != 0.0f ? 1.0f / scale : 0.0f;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = begin; c < end; ++c) {
          const float x = src[i * ld + c], a = magnitude(x);
          put(t, r0 + i, c, Scalar::encode((x < 0.0f ? -a : a) * inv));
        }
      }
    }
  }

 private:
  QUIRE_HD static float magnitude(float x) {  // NaN 0, infinities to a finite limit
    const float a = x < 0.0f ? -x : x;
    return !(a == a) ? 0.0f : a > 3.0e38f ? 3.0e38f : a;
  }
  QUIRE_HD static void clear_rows(const Tensor& t, int64_t r0, int64_t n) {
    const RowBytes bytes = row_bytes(t.cols, 1);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t b = 0; b < bytes.data; ++b) t.data.row<uint8_t>(r0 + i)[b] = 0;
      for (int64_t b = 0; b < bytes.high; ++b) t.high.row<uint8_t>(r0 + i)[b] = 0;
    }
  }
  QUIRE_HD static void put(const Tensor& t, int64_t r, int64_t c, uint32_t v) {
    const int64_t p = stored_column(t.order, t.cols, c);
    uint8_t* data = t.data.row<uint8_t>(r);
    if constexpr (kBits == 8) {
      data[p] = uint8_t(v);
    } else {
      data[p / 2] |= uint8_t((v & 15u) << (4 * (p % 2)));
      t.high.row<uint8_t>(r)[p / 4] |= uint8_t((v >> 4) << (2 * (p % 4)));
    }
  }
};
using E4M3 = ScaledFloat<E4M3Scalar>;
using E3M2 = ScaledFloat<E3M2Scalar>;

}  // namespace quire
