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
  static constexpr int kGroup = 0, kAlign = kBits == 8 ? 1 : 4;
  static constexpr bool kLinear = true, kInteger = false, kOffset = false;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {kBits == 8 ? cols : (cols + 1) / 2, kBits == 8 ? 0 : (cols + 3) / 4, groups * 4, 0};
  }
  QUIRE_HD static uint32_t code(const Tensor& t, int64_t r, int64_t c) {
    const int64_t p = stored_column(t.order, t.cols, c);
    const uint8_t* data = t.data.row<const uint8_t>(r);
    if constexpr (kBits == 8) return data[p];
    return ((data[p / 2] >> (4 * (p % 2))) & 15u) |
           (((t.high.row<const uint8_t>(r)[p / 4] >> (2 * (p % 4))) & 3u) << 4);
  }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    return {t.scale.row<const float>(r)[g], 0.0f};
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    uint8_t f[kPiece];
    for (int64_t i = 0; i < n; i += kPiece) {
      const int64_t m = n - i < kPiece ? n - i : kPiece;
      fields(t, r, c0 + i, m, f);
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
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    if constexpr (kBits == 6) {
      const RowBytes bytes = row_bytes(t.cols, 1);
      for (int64_t i = 0; i < n; ++i) {
        clear_bytes(t.data.row<uint8_t>(r0 + i), bytes.data);
        clear_bytes(t.high.row<uint8_t>(r0 + i), bytes.high);
      }
    }
    uint8_t f[kPiece];
    for (int64_t g = 0; g < t.groups(); ++g) {
      const int64_t begin = t.group_begin(g), end = t.group_end(g);
      if (end <= begin) continue;
      if (source == ScaleSource::found) {
        Range range(kLimit);
        for (int64_t i = 0; i < n; ++i) range.see(src + i * ld + begin, end - begin);
        const float scale = range.magnitude() / Scalar::max();
        t.scale.row<float>(r0)[g] = scale < 1.2e-38f ? 0.0f : scale;  // the inverse of less would not be finite
      }
      const float inv = inverse(affine(t, r0, g).scale);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = begin; c < end; c += kPiece) {
          const int64_t m = end - c < kPiece ? end - c : kPiece;
          const float* x = src + i * ld + c;
          for (int64_t k = 0; k < m; ++k) f[k] = uint8_t(Scalar::encode(finite(x[k], kLimit) * inv));
          put_fields(t, r0 + i, c, m, f);
        }
      }
    }
  }

 private:
  static constexpr float kLimit = 3.0e38f;

  // Codes of n <= kPiece columns.
  QUIRE_HD static void fields(const Tensor& t, int64_t r, int64_t c0, int64_t n, uint8_t* out) {
    if (t.order != Order::natural) {
      for (int64_t i = 0; i < n; ++i) out[i] = uint8_t(code(t, r, c0 + i));
    } else if constexpr (kBits == 8) {
      memcpy(out, t.data.row<const uint8_t>(r) + c0, size_t(n));
    } else {
      uint8_t high[kPiece];
      unpack_bits<4>(t.data.row<const uint8_t>(r), c0, n, out);
      unpack_bits<2>(t.high.row<const uint8_t>(r), c0, n, high);
      for (int64_t i = 0; i < n; ++i) out[i] = uint8_t(out[i] | high[i] << 4);
    }
  }
  QUIRE_HD static void put_fields(const Tensor& t, int64_t r, int64_t c0, int64_t n, const uint8_t* f) {
    if (t.order != Order::natural) {
      for (int64_t i = 0; i < n; ++i) put(t, r, c0 + i, f[i]);
    } else if constexpr (kBits == 8) {
      memcpy(t.data.row<uint8_t>(r) + c0, f, size_t(n));
    } else {
      pack_bits<4>(t.data.row<uint8_t>(r), c0, n, f);
      pack_bits<2>(t.high.row<uint8_t>(r), c0, n, f, 4);
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
