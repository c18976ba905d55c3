// Integer codecs, value = scale * code + offset. Zero points live in one of three domains and a producer's domain is
// never changed (an f16 offset -s*z is not exact):
//   Zero::none     signed code, symmetric; scale f32                        (MinMax, SmoothQuant, GPTQ symmetric)
//   Zero::integer  unsigned code q and u8 zero z, code = q - z; scale f32   (AWQ, GPTQ; aux holds z)
//   Zero::offset   unsigned code, scale plane holds f16 {scale, min}        (KIVI, QuaRot and this engine's KV cache)
// Codes are found with the scale *after* it was rounded to its storage type. Sub-byte codes lie lowest bits first;
// 3-bit codes as a 2-bit and a 1-bit plane.
#pragma once
#include "quant/bits.h"

namespace quire {

enum class Zero : uint8_t { none, integer, offset };

template <int Bits, Zero Z>
struct Affine {
  static_assert(Bits == 2 || Bits == 3 || Bits == 4 || Bits == 8);
  static constexpr const char* kName = [] {
    if constexpr (Bits == 8)
      return Z == Zero::none ? "int8" : Z == Zero::integer ? "int8z" : "uint8o";
    else if constexpr (Bits == 4)
      return Z == Zero::none ? "int4" : Z == Zero::integer ? "int4z" : "uint4o";
    else if constexpr (Bits == 3)
      return Z == Zero::none ? "int3" : Z == Zero::integer ? "int3z" : "uint3o";
    else
      return Z == Zero::none ? "int2" : Z == Zero::integer ? "int2z" : "uint2o";
  }();
  static constexpr int kBits = Bits;
  static constexpr int kGroup = 0;  // any
  using Planes = CodePlanes<Bits == 3 ? 2 : Bits, Bits == 3 ? 1 : 0>;
  static constexpr int kAlign = Planes::kAlign;
  static constexpr int kMaxCode = Z == Zero::none ? (1 << (Bits - 1)) - 1 : (1 << Bits) - 1;
  static constexpr bool kLinear = true, kInteger = true, kOffset = Z == Zero::offset, kAnyOrder = true;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {Planes::data_bytes(cols), Planes::high_bytes(cols), groups * 4, Z == Zero::integer ? groups : 0};
  }

  // The stored field of logical column c, without sign or zero, and its code.
  QUIRE_HD static int field(const Tensor& t, int64_t r, int64_t c) { return Planes::get(t, r, c); }
  QUIRE_HD static int code(const Tensor& t, int64_t r, int64_t c) {
    return signed_field(uint8_t(field(t, r, c))) - zero_of(t, r, t.group_of(c));
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    read_codes(t, r, c0, n, out);
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    read_codes(t, r, c0, n, out);
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
    if (t.group == 1) return decode_channels(t, r, c0, n, out);
    uint8_t f[kPiece];
    for (Pieces p(t, c0, n); p.m > 0; p.next()) {
      const AffineParams a = affine(t, r, p.g);
      const int zero = zero_of(t, r, p.g);
      Planes::read(t, r, p.c, p.m, f);
      float* o = out + (p.c - c0);
      for (int64_t i = 0; i < p.m; ++i) {
        const float q = float(signed_field(f[i]) - zero);
        o[i] = Z == Zero::offset ? a.scale * q + a.offset : a.scale * q;
      }
    }
  }

  // How a group of values becomes codes: from the smallest and largest value (found: rounded to what is stored, and
  // stored) or from what is stored already.
  struct Grid {
    float inv, offset, zero;
  };
  // What an f16 offset, or an f32 scale times the largest code, can hold.
  static constexpr float kLimit = Z == Zero::offset ? 65504.0f : Z == Zero::integer ? 2.0e38f : 3.0e38f;
  static constexpr bool kSums = Z == Zero::none && Bits == 8;  // aux may carry the int32 sums of codes
  QUIRE_HD static Grid grid(const Tensor& t, int64_t r0, int64_t g, float lo, float hi, ScaleSource source) {
    float inv = source == ScaleSource::found ? store_scale(t, r0, g, lo, hi) : 0.0f;
    const AffineParams a = affine(t, r0, g);
    if (Z == Zero::offset || source == ScaleSource::given) inv = inverse(a.scale);
    return {inv, a.offset, float(Z == Zero::integer ? zero_of(t, r0, g) : 0)};
  }
  QUIRE_HD static uint8_t field_of(const Tensor&, int64_t, float x, const Grid& grid) {
    return uint8_t(quantize(x, grid) + kBias);
  }

  // Encodes the span of rows [r0, r0 + n) that share a scale (n <= scale.rows); src is (n, cols) with leading dimension
  // ld.
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    Planes::clear(t, r0, n);
    if (t.group == 1) return encode_channels(t, r0, n, src, ld, source);
    uint8_t f[kPiece];
    for (int64_t g = 0; g < t.groups(); ++g) {
      const int64_t begin = t.group_begin(g), width = t.group_end(g) - begin;
      if (width <= 0) continue;
      Range range(kLimit);
      if (source == ScaleSource::found) {
        for (int64_t i = 0; i < n; ++i) range.see(src + i * ld + begin, width);
      }
      const Grid p = grid(t, r0, g, range.least(), range.most(), source);
      for (int64_t i = 0; i < n; ++i) {
        int32_t sum = 0;
        for (int64_t c = begin; c < begin + width; c += kPiece) {
          const int64_t m = begin + width - c < kPiece ? begin + width - c : kPiece;
          const float* x = src + i * ld + c;
          for (int64_t k = 0; k < m; ++k) {
            const int q = quantize(x[k], p);
            sum += q;
            f[k] = uint8_t(q + kBias);
          }
          Planes::write(t, r0 + i, c, m, f);
        }
        // An int8 activation carries the sum of its codes per group: what a weight with an offset needs.
        if constexpr (kSums) {
          if (t.aux.ptr) t.aux.row<int32_t>(r0 + i)[g] = sum;
        }
      }
    }
  }

  // Stores scale and zero of group g; returns what values are multiplied by (for none: kMaxCode / amax, as on every
  // device).
  QUIRE_HD static float store_scale(const Tensor& t, int64_t r0, int64_t g, float lo, float hi) {
    constexpr float kSmallest = 1.2e-38f;  // the inverse of less would not be finite
    if constexpr (Z == Zero::none) {
      const float amax = hi > -lo ? hi : -lo, scale = amax * (1.0f / float(kMaxCode));
      t.scale.row<float>(r0)[g] = scale < kSmallest ? 0.0f : scale;
      return scale < kSmallest ? 0.0f : float(kMaxCode) / amax;
    } else if constexpr (Z == Zero::integer) {
      lo = lo < 0.0f ? lo : 0.0f;  // zero is always exact
      hi = hi > 0.0f ? hi : 0.0f;
      const float scale = hi * (1.0f / float(kMaxCode)) - lo * (1.0f / float(kMaxCode));
      t.scale.row<float>(r0)[g] = scale < kSmallest ? 0.0f : scale;
      t.aux.row<uint8_t>(r0)[g] = scale < kSmallest ? 0 : uint8_t(rne(clamp(-lo / scale, 0.0f, float(kMaxCode))));
      return scale < kSmallest ? 0.0f : 1.0f / scale;
    } else {
      uint16_t* meta = t.scale.row<uint16_t>(r0) + 2 * g;
      meta[0] = f32_to_f16((hi - lo) * (1.0f / float(kMaxCode)));
      meta[1] = f32_to_f16(lo);
      return 0.0f;  // taken from the rounded scale
    }
  }

 private:
  static constexpr int kBias = Z == Zero::none && Bits < 8 ? 1 << (Bits - 1) : 0;  // code to stored field

  QUIRE_HD static int signed_field(uint8_t f) { return Z == Zero::none && Bits == 8 ? int(int8_t(f)) : int(f); }
  QUIRE_HD static int zero_of(const Tensor& t, int64_t r, int64_t g) {
    if constexpr (Z == Zero::integer) return t.aux.row<const uint8_t>(r)[g];
    return kBias;
  }
  template <class Out>
  QUIRE_HD static void read_codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, Out* out) {
    uint8_t f[kPiece];
    if constexpr (Z == Zero::integer) {
      for (Pieces p(t, c0, n); p.m > 0; p.next()) {
        const int zero = zero_of(t, r, p.g);
        Planes::read(t, r, p.c, p.m, f);
        for (int64_t i = 0; i < p.m; ++i) out[p.c - c0 + i] = Out(int(f[i]) - zero);
      }
    } else {
      for (int64_t i = 0; i < n; i += kPiece) {
        const int64_t m = n - i < kPiece ? n - i : kPiece;
        Planes::read(t, r, c0 + i, m, f);
        for (int64_t k = 0; k < m; ++k) out[i + k] = Out(signed_field(f[k]) - kBias);
      }
    }
  }
  QUIRE_HD static int quantize(float x, const Grid& p) {
    const float y = Z == Zero::offset ? finite(x, kLimit) : x == x ? x : 0.0f;  // infinities are clamped below
    if constexpr (Z == Zero::none) return int(rne(clamp(y * p.inv, -float(kMaxCode), float(kMaxCode))));
    if constexpr (Z == Zero::integer) return int(rne(clamp(y * p.inv, -p.zero, float(kMaxCode) - p.zero)) + p.zero);
    return int(rne(clamp((y - p.offset) * p.inv, 0.0f, float(kMaxCode))));
  }
  // Groups of one column (a scale per channel and span of rows): rows stay the inner, contiguous direction.
  QUIRE_HD static void decode_channels(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    read_codes(t, r, c0, n, out);
    if constexpr (Z == Zero::offset) {
      float meta[2 * kPiece];
      for (int64_t i = 0; i < n; i += kPiece) {
        const int64_t m = n - i < kPiece ? n - i : kPiece;
        const uint16_t* in = t.scale.row<const uint16_t>(r) + 2 * (c0 + i);
        for (int64_t k = 0; k < 2 * m; ++k) meta[k] = f16_to_f32(in[k]);
        for (int64_t k = 0; k < m; ++k) out[i + k] = meta[2 * k] * out[i + k] + meta[2 * k + 1];
      }
    } else {
      const float* scale = t.scale.row<const float>(r) + c0;
      for (int64_t i = 0; i < n; ++i) out[i] = scale[i] * out[i];
    }
  }
  QUIRE_HD static void encode_channels(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                                       ScaleSource source) {
    constexpr int kColumns = 64;
    Grid p[kColumns];
    int32_t lo[kColumns], hi[kColumns];
    uint8_t f[kColumns];
    for (int64_t c = 0; c < t.cols; c += kColumns) {
      const int m = int(t.cols - c < kColumns ? t.cols - c : kColumns);
      for (int k = 0; k < m; ++k) lo[k] = hi[k] = ordered(src[c + k]);
      for (int64_t i = 1; i < n; ++i) {
        const float* x = src + i * ld + c;
        for (int k = 0; k < m; ++k) {
          const int32_t key = ordered(x[k]);
          lo[k] = key < lo[k] ? key : lo[k];
          hi[k] = key > hi[k] ? key : hi[k];
        }
      }
      for (int k = 0; k < m; ++k) {
        Range range(kLimit);
        range.lo = lo[k];
        range.hi = hi[k];
        p[k] = grid(t, r0, c + k, range.least(), range.most(), source);
      }
      for (int64_t i = 0; i < n; ++i) {
        const float* x = src + i * ld + c;
        for (int k = 0; k < m; ++k) {
          const int q = quantize(x[k], p[k]);
          f[k] = uint8_t(q + kBias);
          if constexpr (kSums) {
            if (t.aux.ptr) t.aux.row<int32_t>(r0 + i)[c + k] = q;
          }
        }
        Planes::write(t, r0 + i, c, m, f);
      }
    }
  }
};

using Int8 = Affine<8, Zero::none>;
using Int4 = Affine<4, Zero::none>;
using Int3 = Affine<3, Zero::none>;
using Int2 = Affine<2, Zero::none>;
using Int8Z = Affine<8, Zero::integer>;
using Int4Z = Affine<4, Zero::integer>;
using Int3Z = Affine<3, Zero::integer>;
using Int2Z = Affine<2, Zero::integer>;
using UInt8O = Affine<8, Zero::offset>;
using UInt4O = Affine<4, Zero::offset>;
using UInt3O = Affine<3, Zero::offset>;
using UInt2O = Affine<2, Zero::offset>;

}  // namespace quire
