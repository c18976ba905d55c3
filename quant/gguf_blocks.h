// The block formats of GGUF files as they lie: 32 values a block, scale (and minimum) in front of the codes, all in the
// data plane.
//   q8_0  f16 d, 32 x s8                      value = d*q
//   q4_0  f16 d, 16 bytes                     value = d*(q-8);  byte i holds values i (low nibble) and i+16
//   q4_1  f16 d, f16 m, 16 bytes              value = d*q + m
//   q5_0  f16 d, u32 fifth bits, 16 bytes     value = d*(q-16)
//   q5_1  f16 d, f16 m, u32, 16 bytes         value = d*q + m
#pragma once
#include "quant/bits.h"

namespace quire {

template <int Bits, bool HasMin>
struct GgufBlock {
  static_assert(Bits == 4 || Bits == 5 || (Bits == 8 && !HasMin));
  static constexpr const char* kName = Bits == 8   ? "q8_0"
                                       : Bits == 5 ? (HasMin ? "q5_1" : "q5_0")
                                                   : (HasMin ? "q4_1" : "q4_0");
  static constexpr int kBits = Bits, kGroup = 32, kAlign = 32;
  static constexpr bool kLinear = true, kInteger = true, kOffset = HasMin, kAnyOrder = false;
  static constexpr int kFifth = HasMin ? 4 : 2, kHeader = kFifth + (Bits == 5 ? 4 : 0);
  static constexpr int kBytes = kHeader + (Bits == 8 ? 32 : 16);
  static constexpr int kBias = HasMin || Bits == 8 ? 0 : 1 << (Bits - 1);  // code = field - bias

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
    int v = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
    if constexpr (Bits == 5) v |= int(fifth_bits(q) >> i & 1) << 4;
    return v - kBias;
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    unpack(t, r, c0, n, out);
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    unpack(t, r, c0, n, out);
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    unpack(t, r, c0, n, out);
    for (int64_t i = 0; i < n;) {
      const int64_t g = (c0 + i) / 32, m = piece(c0 + i, n - i);
      const AffineParams a = affine(t, r, g);
      for (int64_t k = 0; k < m; ++k) out[i + k] = HasMin ? a.scale * out[i + k] + a.offset : a.scale * out[i + k];
      i += m;
    }
  }
  // Round-to-nearest on the block's grid, scale and minimum rounded to f16 first. A short last block is filled up with
  // its first value, which leaves its range as it is.
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t g = 0; g < (t.cols + 31) / 32; ++g) {
        float x[32];
        for (int64_t j = 0; j < 32; ++j) x[j] = g * 32 + j < t.cols ? finite(src[i * ld + g * 32 + j], 65504.0f) : x[0];
        encode_block(t.data.row<uint8_t>(r0 + i) + g * kBytes, x, source);
      }
    }
  }

  // One block from its 32 values, all within +-65504.
  QUIRE_HD static void encode_block(uint8_t* p, const float* x, ScaleSource source) {
    constexpr int kLevels = 1 << Bits;
    constexpr float kLo = Bits == 8 ? -127.0f : float(-kBias), kHi = Bits == 8 ? 127.0f : float(kLevels - 1 - kBias);
    if (source == ScaleSource::found) {
      Range range(65504.0f);
      range.see(x, 32);
      const float lo = range.least(), hi = range.most();
      if constexpr (HasMin) {
        store_half(p, (hi - lo) * (1.0f / float(kLevels - 1)));
        store_half(p + 2, lo);
      } else if constexpr (Bits == 8) {
        store_half(p, range.magnitude() * (1.0f / 127.0f));
      } else {
        store_half(p, (hi > -lo ? hi : lo) * (-1.0f / float(kBias)));  // the extreme value has the least code
      }
    }
    const float inv = inverse(f16_to_f32(half_at(p))), offset = HasMin ? f16_to_f32(half_at(p + 2)) : 0.0f;
    uint8_t v[32];
    for (int j = 0; j < 32; ++j) v[j] = uint8_t(int(rne(clamp((x[j] - offset) * inv, kLo, kHi))) + kBias);
    uint8_t* q = p + kHeader;
    if constexpr (Bits == 8) {
      memcpy(q, v, 32);
    } else {
      for (int j = 0; j < 16; ++j) q[j] = uint8_t((v[j] & 15) | (v[j + 16] & 15) << 4);
    }
    if constexpr (Bits == 5) {
      uint32_t fifth = 0;
      for (int j = 0; j < 32; ++j) fifth |= uint32_t(v[j] >> 4) << j;
      memcpy(p + kFifth, &fifth, 4);
    }
  }

 private:
  QUIRE_HD static uint32_t fifth_bits(const uint8_t* q) {
    uint32_t bits;
    memcpy(&bits, q - 4, 4);
    return bits;
  }
  // How many of the n columns from c lie in c's block.
  QUIRE_HD static int64_t piece(int64_t c, int64_t n) { return 32 - c % 32 < n ? 32 - c % 32 : n; }
  template <class Out>
  QUIRE_HD static void unpack(const Tensor& t, int64_t r, int64_t c0, int64_t n, Out* out) {
    for (int64_t i = 0; i < n;) {
      const int64_t c = c0 + i, first = c % 32, m = piece(c, n - i);
      const uint8_t* q = block(t, r, c / 32) + kHeader;
      int8_t v[32];
      if constexpr (Bits == 8) {
        memcpy(v, q, 32);
      } else {
        for (int k = 0; k < 16; ++k) {
          v[k] = int8_t((q[k] & 15) - kBias);
          v[k + 16] = int8_t((q[k] >> 4) - kBias);
        }
        if constexpr (Bits == 5) {
          const uint32_t fifth = fifth_bits(q);
          for (int k = 0; k < 32; ++k) v[k] = int8_t(v[k] + int(fifth >> k & 1) * 16);
        }
      }
      for (int64_t k = 0; k < m; ++k) out[i + k] = Out(v[first + k]);
      i += m;
    }
  }
  QUIRE_HD static void store_half(uint8_t* p, float x) {
    const uint16_t h = f32_to_f16(x);
    p[0] = uint8_t(h & 255);
    p[1] = uint8_t(h >> 8);
  }
};
using Q8_0 = GgufBlock<8, false>;
using Q4_0 = GgufBlock<4, false>;
using Q4_1 = GgufBlock<4, true>;
using Q5_0 = GgufBlock<5, false>;
using Q5_1 = GgufBlock<5, true>;

}  // namespace quire
