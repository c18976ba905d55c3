// Scaled small floats: value = scale * float(code), scale f32 per group.
//   e4m3  OCP fp8 "fn", 8 bits, +-448 (compressed-tensors, ModelOpt, fp8 KV)
//   e3m2  FP6-LLM, 6 bits in a 4-bit and a 2-bit plane, +-28, no infinity or NaN
#pragma once
#include "quant/bits.h"

namespace quire {

template <class Scalar>
struct ScaledFloat {
  static constexpr int kBits = Scalar::kBits;
  static_assert(kBits == 8 || kBits == 6);
  static constexpr const char* kName = kBits == 8 ? "e4m3" : "e3m2";
  using Planes = CodePlanes<kBits == 8 ? 8 : 4, kBits == 8 ? 0 : 2>;
  static constexpr int kGroup = 0, kAlign = Planes::kAlign;
  static constexpr bool kLinear = true, kInteger = false, kOffset = false, kAnyOrder = true;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {Planes::data_bytes(cols), Planes::high_bytes(cols), groups * 4, 0};
  }
  QUIRE_HD static uint32_t code(const Tensor& t, int64_t r, int64_t c) { return uint32_t(Planes::get(t, r, c)); }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    return {t.scale.row<const float>(r)[g], 0.0f};
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    uint8_t f[kPiece];
    for (int64_t i = 0; i < n; i += kPiece) {
      const int64_t m = n - i < kPiece ? n - i : kPiece;
      Planes::read(t, r, c0 + i, m, f);
      for (int64_t k = 0; k < m; ++k) out[i + k] = Scalar::decode(f[k]);
    }
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    values(t, r, c0, n, out);
    for (Pieces p(t, c0, n); p.m > 0; p.next()) {
      const float scale = affine(t, r, p.g).scale;
      float* o = out + (p.c - c0);
      for (int64_t i = 0; i < p.m; ++i) o[i] = scale * o[i];
    }
  }
  struct Grid {  // as in affine.h
    float inv;
  };
  static constexpr float kLimit = 3.0e38f;
  static constexpr bool kSums = false;
  QUIRE_HD static Grid grid(const Tensor& t, int64_t r0, int64_t g, float lo, float hi, ScaleSource source) {
    if (source == ScaleSource::found) {
      const float scale = (hi > -lo ? hi : -lo) / Scalar::max();
      t.scale.row<float>(r0)[g] = scale < 1.2e-38f ? 0.0f : scale;  // the inverse of less would not be finite
    }
    return {inverse(affine(t, r0, g).scale)};
  }
  QUIRE_HD static uint8_t field_of(const Tensor&, int64_t, float x, const Grid& grid) {
    return uint8_t(Scalar::encode(finite(x, kLimit) * grid.inv));
  }
  QUIRE_HD static float value(const Tensor& t, int64_t r, int64_t c) { return Scalar::decode(code(t, r, c)); }
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    Planes::clear(t, r0, n);
    uint8_t f[kPiece];
    for (int64_t g = 0; g < t.groups(); ++g) {
      const int64_t begin = t.group_begin(g), end = t.group_end(g);
      if (end <= begin) continue;
      Range range(kLimit);
      if (source == ScaleSource::found) {
        for (int64_t i = 0; i < n; ++i) range.see(src + i * ld + begin, end - begin);
      }
      const Grid p = grid(t, r0, g, range.least(), range.most(), source);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = begin; c < end; c += kPiece) {
          const int64_t m = end - c < kPiece ? end - c : kPiece;
          const float* x = src + i * ld + c;
          for (int64_t k = 0; k < m; ++k) f[k] = field_of(t, c + k, x[k], p);
          Planes::write(t, r0 + i, c, m, f);
        }
      }
    }
  }
};
using E4M3 = ScaledFloat<E4M3Scalar>;
using E3M2 = ScaledFloat<E3M2Scalar>;

}  // namespace quire
