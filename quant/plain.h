// Floats without a scale: f32, f16, bf16. What f16 cannot hold becomes +-65504: activations of some models grow so
// large, and an infinity in one channel would be a NaN in all of them.
#pragma once
#include "quant/scalar.h"

namespace quire {

enum class FloatType : uint8_t { f32, f16, bf16 };

template <FloatType Type>
struct Plain {
  static constexpr const char* kName = Type == FloatType::f32 ? "f32" : Type == FloatType::f16 ? "f16" : "bf16";
  static constexpr int kBits = Type == FloatType::f32 ? 32 : 16;
  static constexpr int kGroup = 0, kAlign = 1;
  static constexpr bool kLinear = true, kInteger = false, kOffset = false, kAnyOrder = false;  // linear with scale 1

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t) { return {cols * kBits / 8}; }
  QUIRE_HD static AffineParams affine(const Tensor&, int64_t, int64_t) { return {1.0f, 0.0f}; }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    decode(t, r, c0, n, out);
  }

  // What is stored, of f16 and bf16.
  QUIRE_HD static uint16_t half(float x) {
    if constexpr (Type == FloatType::bf16) return f32_to_bf16(x);
    const float most = 65504.0f;
    return f32_to_f16(x > most ? most : x < -most ? -most : x);  // NaN stays NaN
  }
  QUIRE_HD static float decode_at(const Tensor& t, int64_t r, int64_t c) {
    if constexpr (Type == FloatType::f32) return t.data.row<const float>(r)[c];
    const uint16_t h = t.data.row<const uint16_t>(r)[c];
    return Type == FloatType::f16 ? f16_to_f32(h) : bf16_to_f32(h);
  }
  QUIRE_HD static float value(const Tensor& t, int64_t r, int64_t c) { return decode_at(t, r, c); }
  QUIRE_HD static void put(const Tensor& t, int64_t r, int64_t c, float x) {
    if constexpr (Type == FloatType::f32) {
      t.data.row<float>(r)[c] = x;
    } else {
      t.data.row<uint16_t>(r)[c] = half(x);
    }
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    if constexpr (Type == FloatType::f32) {
      if (n > 0) memcpy(out, t.data.row<const float>(r) + c0, size_t(n) * 4);
    } else {
      const uint16_t* in = t.data.row<const uint16_t>(r) + c0;
      for (int64_t i = 0; i < n; ++i) out[i] = Type == FloatType::f16 ? f16_to_f32(in[i]) : bf16_to_f32(in[i]);
    }
  }
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld, ScaleSource) {
    for (int64_t i = 0; i < n; ++i) {
      const float* in = src + i * ld;
      if constexpr (Type == FloatType::f32) {
        if (t.cols > 0) memcpy(t.data.row<float>(r0 + i), in, size_t(t.cols) * 4);
      } else {
        uint16_t* out = t.data.row<uint16_t>(r0 + i);
        for (int64_t c = 0; c < t.cols; ++c) out[c] = half(in[c]);
      }
    }
  }
};
using F32 = Plain<FloatType::f32>;
using F16 = Plain<FloatType::f16>;
using BF16 = Plain<FloatType::bf16>;

}  // namespace quire
