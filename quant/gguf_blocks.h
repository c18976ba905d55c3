// The block formats of GGUF files as they lie: 32 values a block, scale (and minimum) in front of the codes, all in the data plane.
//   q8_0  f16 d, 32 x s8            value = d*q
//   q4_0  f16 d, 16 bytes           value = d*(q-8);  byte i holds values i (low nibble) and i+16
//   q4_1  f16 d, f16 m, 16 bytes    value = d*q + m
#pragma once
#include "quant/scalar.h"

namespace quire {

template <int Bits, bool HasMin>
struct GgufBlock {
  static constexpr const char* kName = Bits == 8 ? "q8_0" : HasMin ? "q4_1" : "q4_0";
  static constexpr int kBits = Bits, kGroup = 32, kAlign = 32;
  static constexpr bool kLinear = true, kInteger = true, kOffset = HasMin;
  static constexpr int kHeader = HasMin ? 4 : 2, kBytes = kHeader + 32 * Bits / 8;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t) { return {(cols + 31) / 32 * kBytes}; }
  QUIRE_HD static const uint8_t* block(const Tensor& t, int64_t r, int64_t g) {
    return t.data.row<const uint8_t>(r) + g * kBytes;
  }
  QUIRE_HD static uint16_t half_at(const uint8_t* p) { return uint16_t(p[0] | p[1] << 8); }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    const uint8_t* p = block(t, r, g);
    return {f16_to_f32(half_at(p)), HasMin ? f16_to_f32(half_at(p + 2)) : 0.0f};
  }
  QUIRE_HD static int code(const Tensor& t, int64_t r, int64_t c) {
    const uint8_t* q = block(t, r, c / 32) + kHeader;
    const int i = int(c % 32);
    if constexpr (Bits == 8) return int8_t(q[i]);
    const int v = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
    return HasMin ? v : v - 8;
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = int16_t(code(t, r, c0 + i));
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = float(code(t, r, c0 + i));
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) {
      const AffineParams a = affine(t, r, (c0 + i) / 32);
      const float q = float(code(t, r, c0 + i));
      out[i] = HasMin ? a.scale * q + a.offset : a.scale * q;
    }
  }
  // Round-to-nearest on the block's grid, scale and minimum rounded to f16 first. A ragged last block is padded with zeros.
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld, ScaleSource source) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t g = 0; g < (t.cols + 31) / 32; ++g) {
        float x[32];
        for (int64_t j = 0; j < 32; ++j) x[j] = g * 32 + j < t.cols ? finite(src[i * ld + g * 32 + j]) : 0.0f;
        encode_block(t.data.row<uint8_t>(r0 + i) + g * kBytes, x, source);
      }
    }
  }

 private:
  QUIRE_HD static float finite(float x) { return !(x == x) ? 0.0f : x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; }
  QUIRE_HD static void store_half(uint8_t* p, float x) {
    const uint16_t h = f32_to_f16(x);
    p[0] = uint8_t(h & 255);
    p[1] = uint8_t(h >> 8);
  }
  QUIRE_HD static void encode_block(uint8_t* p, const float* x, ScaleSource source) {
    constexpr int kLo = HasMin ? 0 : Bits == 8 ? -127 : -8, kHi = HasMin ? 15 : Bits == 8 ? 127 : 7;
    if (source == ScaleSource::found) {
      float lo = x[0], hi = x[0];
      for (int j = 1; j < 32; ++j) {
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
      }
      if constexpr (HasMin) {
        store_half(p, (hi - lo) * (1.0f / 15.0f));
        store_half(p + 2, lo);
      } else if constexpr (Bits == 8) {
        store_half(p, (hi > -lo ? hi : -lo) * (1.0f / 127.0f));
      } else {
        store_half(p, (hi > -lo ? hi : lo) * (-1.0f / 8.0f));  // the extreme value sits on -8; the scale may be negative
      }
    }
    const float scale = f16_to_f32(half_at(p)), offset = HasMin ? f16_to_f32(half_at(p + 2)) : 0.0f;
    const float inv = scale != 0.0f ? 1.0f / scale : 0.0f;
    uint8_t* q = p + kHeader;
    for (int j = 0; j < 32; ++j) {
      float v = (x[j] - offset) * inv;
      v = v < float(kLo) ? float(kLo) : v > float(kHi) ? float(kHi) : v;
      const int code = int(rne(v));
      if constexpr (Bits == 8) {
        q[j] = uint8_t(int8_t(code));
      } else {
        const uint8_t nibble = uint8_t(code - (HasMin ? 0 : -8));
        q[j % 16] = j < 16 ? nibble : uint8_t(q[j % 16] | nibble << 4);
      }
    }
  }
};
using Q8_0 = GgufBlock<8, false>;
using Q4_0 = GgufBlock<4, false>;
using Q4_1 = GgufBlock<4, true>;

}  // namespace quire
