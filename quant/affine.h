// Integer codecs, value = scale * code + offset. Zero points live in one of three domains and a producer's domain is never
// changed (an f16 offset -s*z is not exact):
//   Zero::none     signed code, symmetric; scale f32                        (MinMax, SmoothQuant, GPTQ symmetric)
//   Zero::integer  unsigned code q and u8 zero z, code = q - z; scale f32   (AWQ, GPTQ; aux holds z)
//   Zero::offset   unsigned code, scale plane holds f16 {scale, min}        (KIVI, QuaRot and this engine's KV cache)
// Codes are found with the scale *after* it was rounded to its storage type. Sub-byte codes lie lowest bits first; 3-bit codes
// as a 2-bit and a 1-bit plane.
#pragma once
#include "quant/scalar.h"

namespace quire {

enum class Zero : uint8_t { none, integer, offset };

template <int Bits, Zero Z>
struct Affine {
  static_assert(Bits == 2 || Bits == 3 || Bits == 4 || Bits == 8);
  static constexpr const char* kName = [] {
    if constexpr (Bits == 8) return Z == Zero::none ? "int8" : Z == Zero::integer ? "int8z" : "uint8o";
    else if constexpr (Bits == 4) return Z == Zero::none ? "int4" : Z == Zero::integer ? "int4z" : "uint4o";
    else if constexpr (Bits == 3) return Z == Zero::none ? "int3" : Z == Zero::integer ? "int3z" : "uint3o";
    else return Z == Zero::none ? "int2" : Z == Zero::integer ? "int2z" : "uint2o";
  }();
  static constexpr int kBits = Bits;
  static constexpr int kGroup = 0;                                     // any
  static constexpr int kAlign = Bits == 8 ? 1 : Bits == 4 ? 2 : Bits == 2 ? 4 : 8;  // columns in whole bytes
  static constexpr int kMaxCode = Z == Zero::none ? (1 << (Bits - 1)) - 1 : (1 << Bits) - 1;
  static constexpr int kLow = Bits == 3 ? 2 : Bits;                    // bits of a code in the data plane
  static constexpr bool kLinear = true, kInteger = true, kOffset = Z == Zero::offset;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {(cols * kLow + 7) / 8, Bits == 3 ? (cols + 7) / 8 : 0, groups * 4, Z == Zero::integer ? groups : 0};
  }

  // The stored field of logical column c, without sign or zero.
  QUIRE_HD static int field(const Tensor& t, int64_t r, int64_t c) {
    const int64_t p = stored_column(t.order, t.cols, c);
    const uint8_t* data = t.data.row<const uint8_t>(r);
    if constexpr (Bits == 8) return data[p];
    constexpr int kPerByte = 8 / kLow;
    int v = (data[p / kPerByte] >> (kLow * (p % kPerByte))) & ((1 << kLow) - 1);
    if constexpr (Bits == 3) v |= ((t.high.row<const uint8_t>(r)[p / 8] >> (p % 8)) & 1) << 2;
    return v;
  }
  QUIRE_HD static int code(const Tensor& t, int64_t r, int64_t c) {
    const int v = field(t, r, c);
    if constexpr (Z == Zero::none) return Bits == 8 ? int(int8_t(v)) : v - (1 << (Bits - 1));
    if constexpr (Z == Zero::integer) return v - t.aux.row<const uint8_t>(r)[t.group_of(c)];
    return v;
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = int16_t(code(t, r, c0 + i));
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = float(code(t, r, c0 + i));
  }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    if constexpr (Z == Zero::offset) {
      const uint16_t* meta = t.scale.row<const uint16_t>(r) + 2 * g;
      return {f16_to_f32(meta[0]), f16_to_f32(meta[1])};
    } else {
      return {t.scale.row<const float>(r)[g], 0.0f};
    }
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n;) {
      const int64_t g = t.group_of(c0 + i), end = t.group_end(g) - c0 < n ? t.group_end(g) - c0 : n;
      const AffineParams a = affine(t, r, g);
      for (; i < end; ++i) {
        const float q = float(code(t, r, c0 + i));
        out[i] = Z == Zero::offset ? a.scale * q + a.offset : a.scale * q;
      }
    }
  }

  QUIRE_HD static float finite(float x) {  // NaN 0; infinities to what an f16 offset (or an f32 scale) can hold
    const float limit = Z == Zero::offset ? 65504.0f : 3.0e38f;
    if (!(x == x)) return 0.0f;
    return x > limit ? limit : x < -limit ? -limit : x;
  }
  QUIRE_HD static float clamp(float q, float lo, float hi) { return q < lo ? lo : q > hi ? hi : q; }

  // Encodes the span of rows [r0, r0 + n) that share a scale (n <= scale.rows); src is (n, cols) with leading dimension ld.
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld, ScaleSource source) {
    clear_rows(t, r0, n);
    for (int64_t g = 0; g < t.groups(); ++g) {
      const int64_t begin = t.group_begin(g), end = t.group_end(g);
      float inv = 0.0f;
      if (source == ScaleSource::found) inv = find_scale(t, r0, n, g, src, ld);
      const AffineParams a = affine(t, r0, g);
      if (Z == Zero::offset || source == ScaleSource::given) inv = a.scale != 0.0f ? 1.0f / a.scale : 0.0f;
      int zero = 0;
      if constexpr (Z == Zero::integer) zero = t.aux.row<const uint8_t>(r0)[g];
      for (int64_t i = 0; i < n; ++i) {
        int32_t sum = 0;
        for (int64_t c = begin; c < end; ++c) {
          const float x = finite(src[i * ld + c]);
          float q;
          if constexpr (Z == Zero::none) {
            q = clamp(rne(clamp(x * inv, -4.0e6f, 4.0e6f)), -float(kMaxCode), float(kMaxCode));
          } else if constexpr (Z == Zero::integer) {
            q = clamp(rne(clamp(x * inv, -1.0e6f, 1.0e6f)) + float(zero), 0.0f, float(kMaxCode));
          } else {
            q = clamp(rne(clamp((x - a.offset) * inv, -1.0f, float(kMaxCode) + 1.0f)), 0.0f, float(kMaxCode));
          }
          sum += int32_t(q);
          put(t, r0 + i, c, int(q) + (Z == Zero::none && Bits < 8 ? 1 << (Bits - 1) : 0));
        }
        // An int8 activation carries the sum of its codes per group: what a weight with an offset needs.
        if constexpr (Z == Zero::none && Bits == 8) {
          if (t.aux.ptr) t.aux.row<int32_t>(r0 + i)[g] = sum;
        }
      }
    }
  }

 private:
  QUIRE_HD static void clear_rows(const Tensor& t, int64_t r0, int64_t n) {
    if constexpr (Bits < 8) {
      const RowBytes bytes = row_bytes(t.cols, 1);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t b = 0; b < bytes.data; ++b) t.data.row<uint8_t>(r0 + i)[b] = 0;
        for (int64_t b = 0; b < bytes.high; ++b) t.high.row<uint8_t>(r0 + i)[b] = 0;
      }
    }
  }
  QUIRE_HD static void put(const Tensor& t, int64_t r, int64_t c, int v) {
    const int64_t p = stored_column(t.order, t.cols, c);
    uint8_t* data = t.data.row<uint8_t>(r);
    if constexpr (Bits == 8) {
      data[p] = uint8_t(v);
    } else {
      constexpr int kPerByte = 8 / kLow;
      data[p / kPerByte] |= uint8_t((v & ((1 << kLow) - 1)) << (kLow * (p % kPerByte)));
      if constexpr (Bits == 3) t.high.row<uint8_t>(r)[p / 8] |= uint8_t((v >> 2) << (p % 8));
    }
  }
  // Stores scale and zero of group g; returns what values are multiplied by (for none: kMaxCode / amax, as on every device).
  QUIRE_HD static float find_scale(const Tensor& t, int64_t r0, int64_t n, int64_t g, const float* src, int64_t ld) {
    float lo = 3.4e38f, hi = -3.4e38f;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t c = t.group_begin(g); c < t.group_end(g); ++c) {
        const float x = finite(src[i * ld + c]);
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
      }
    }
    if constexpr (Z == Zero::none) {
      const float amax = hi > -lo ? hi : -lo;
      float scale = amax * (1.0f / float(kMaxCode));
      if (scale < 1.2e-38f) scale = 0.0f;  // its inverse would not be finite
      t.scale.row<float>(r0)[g] = scale;
      return scale == 0.0f ? 0.0f : float(kMaxCode) / amax;
    } else if constexpr (Z == Zero::integer) {
      lo = lo < 0.0f ? lo : 0.0f;  // zero is always exact
      hi = hi > 0.0f ? hi : 0.0f;
      float scale = hi * (1.0f / float(kMaxCode)) - lo * (1.0f / float(kMaxCode));
      if (scale < 1.2e-38f) scale = 0.0f;
      t.scale.row<float>(r0)[g] = scale;
      t.aux.row<uint8_t>(r0)[g] = scale == 0.0f ? 0 : uint8_t(clamp(rne(-lo / scale), 0.0f, float(kMaxCode)));
      return scale == 0.0f ? 0.0f : 1.0f / scale;
    } else {
      uint16_t* meta = t.scale.row<uint16_t>(r0) + 2 * g;
      meta[0] = f32_to_f16((hi - lo) * (1.0f / float(kMaxCode)));
      meta[1] = f32_to_f16(lo);
      return 0.0f;  // taken from the rounded scale
    }
  }
};

using Int8 = Affine<8, Zero::none>;
using Int4 = Affine<4, Zero::none>;
using Int3 = Affine<3, Zero::none>;
using Int2 = Affine<2, Zero::none>;
using Int4Z = Affine<4, Zero::integer>;
using Int3Z = Affine<3, Zero::integer>;
using Int2Z = Affine<2, Zero::integer>;
using UInt8O = Affine<8, Zero::offset>;
using UInt4O = Affine<4, Zero::offset>;
using UInt3O = Affine<3, Zero::offset>;
using UInt2O = Affine<2, Zero::offset>;

}  // namespace quire
