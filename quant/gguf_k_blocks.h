// The blocks of GGUF files that are only read. All in the data plane, as in the file.
//   256 values, value = d * scale_j * q [- dmin * min_j] with small integers scale_j, min_j for every 16 or 32 values:
//   q2_k    scale and min nibbles [16], codes [64], f16 d, dmin            q = 0..3, groups of 16
//   q3_k    high bits [32], codes [64], scales [12], f16 d                 q = -4..3, groups of 16
//   q4_k    f16 d, dmin, scales [12], codes [128]                          q = 0..15, groups of 32
//   q5_k    f16 d, dmin, scales [12], high bits [32], codes [128]          q = 0..31, groups of 32
//   q6_k    lower nibbles [128], upper bits [64], s8 scales [16], f16 d    q = -32..31, groups of 16
//   iq4_xs  f16 d, u16 and u8 [4] scales, codes [128]                      q = kIq4[code], groups of 32
//   32 values, one scale:
//   iq4_nl  f16 d, codes [16]                 d * kIq4[code]
//   mxfp4   u8 exponent, codes [16] (e2m1)    2^(exponent - 128) * q, q = twice the e2m1 value
// scale * code and dmin * min are exact in f32, so a value is rounded where its writer's dequantization rounds it.
#pragma once
#include "quant/bits.h"

namespace quire {

// A block B: kValues of kBytes, groups of kGroup; code(p, i) of value i, and for group j of the block
//   two levels (kSuper groups share d):  d(p), scale(p, j) and, with kOffset, dmin(p), min(p, j): integers within s8
//   one (kSuper 0):                      scale(p) in f32
// kField: bits of the unsigned field code + kBias; with level(field), of the index of a code.
template <class B>
struct ReadBlock {
  using Block = B;
  static constexpr const char* kName = B::kName;
  static constexpr int kBits = B::kBits, kGroup = B::kGroup, kAlign = B::kValues;
  static constexpr bool kLinear = true, kInteger = true, kOffset = B::kOffset, kAnyOrder = false;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t) {
    return {(cols + B::kValues - 1) / B::kValues * B::kBytes};
  }
  QUIRE_HD static const uint8_t* block(const Tensor& t, int64_t r, int64_t c) {
    return t.data.row<const uint8_t>(r) + c / B::kValues * B::kBytes;
  }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    const uint8_t* p = block(t, r, g * kGroup);
    if constexpr (B::kSuper == 0) {
      return {B::scale(p), 0.0f};
    } else {
      const int j = int(g % B::kSuper);
      AffineParams a{f16_to_f32(B::d(p)) * float(B::scale(p, j)), 0.0f};
      if constexpr (kOffset) a.offset = -(f16_to_f32(B::dmin(p)) * float(B::min(p, j)));
      return a;
    }
  }
  QUIRE_HD static int code(const Tensor& t, int64_t r, int64_t c) {
    return B::code(block(t, r, c), int(c % B::kValues));
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = int16_t(code(t, r, c0 + i));
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = float(code(t, r, c0 + i));
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    values(t, r, c0, n, out);
    for (Pieces p(t, c0, n); p.m > 0; p.next()) {
      const AffineParams a = affine(t, r, p.g);
      float* o = out + (p.c - c0);
      for (int64_t i = 0; i < p.m; ++i) o[i] = kOffset ? a.scale * o[i] + a.offset : a.scale * o[i];
    }
  }
};

namespace gguf {

QUIRE_HD inline uint16_t half_at(const uint8_t* p) { return uint16_t(p[0] | p[1] << 8); }

struct Q2K {
  static constexpr const char* kName = "q2_k";
  static constexpr int kBits = 2, kValues = 256, kBytes = 84, kGroup = 16, kSuper = 16, kField = 4, kBias = 0;
  static constexpr bool kOffset = true;
  QUIRE_HD static uint16_t d(const uint8_t* p) { return half_at(p + 80); }
  QUIRE_HD static uint16_t dmin(const uint8_t* p) { return half_at(p + 82); }
  QUIRE_HD static int scale(const uint8_t* p, int j) { return p[j] & 15; }
  QUIRE_HD static int min(const uint8_t* p, int j) { return p[j] >> 4; }
  QUIRE_HD static int code(const uint8_t* p, int i) { return p[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3; }
};

struct Q3K {
  static constexpr const char* kName = "q3_k";
  static constexpr int kBits = 3, kValues = 256, kBytes = 110, kGroup = 16, kSuper = 16, kField = 4, kBias = 4;
  static constexpr bool kOffset = false;
  QUIRE_HD static uint16_t d(const uint8_t* p) { return half_at(p + 108); }
  QUIRE_HD static int scale(const uint8_t* p, int j) {
    const int low = p[96 + j % 8] >> j / 8 * 4 & 15, high = p[104 + j % 4] >> j / 4 * 2 & 3;
    return (low | high << 4) - 32;
  }
  QUIRE_HD static int code(const uint8_t* p, int i) {
    const int low = p[32 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
    return (low | (p[i % 32] >> i / 32 & 1) << 2) - 4;
  }
};

// What q4_k and q5_k share: eight 6-bit scales and minima in 12 bytes.
struct SixBitScales {
  QUIRE_HD static uint16_t d(const uint8_t* p) { return half_at(p); }
  QUIRE_HD static uint16_t dmin(const uint8_t* p) { return half_at(p + 2); }
  QUIRE_HD static int scale(const uint8_t* p, int j) {
    const uint8_t* s = p + 4;
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
  }
  QUIRE_HD static int min(const uint8_t* p, int j) {
    const uint8_t* s = p + 4;
    return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
  }
};

struct Q4K : SixBitScales {
  static constexpr const char* kName = "q4_k";
  static constexpr int kBits = 4, kValues = 256, kBytes = 144, kGroup = 32, kSuper = 8, kField = 4, kBias = 0;
  static constexpr bool kOffset = true;
  QUIRE_HD static int code(const uint8_t* p, int i) { return p[16 + i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15; }
};

struct Q5K : SixBitScales {
  static constexpr const char* kName = "q5_k";
  static constexpr int kBits = 5, kValues = 256, kBytes = 176, kGroup = 32, kSuper = 8, kField = 8, kBias = 0;
  static constexpr bool kOffset = true;
  QUIRE_HD static int code(const uint8_t* p, int i) {
    const int low = p[48 + i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
    return low | (p[16 + i % 32] >> i / 32 & 1) << 4;
  }
};

struct Q6K {
  static constexpr const char* kName = "q6_k";
  static constexpr int kBits = 6, kValues = 256, kBytes = 210, kGroup = 16, kSuper = 16, kField = 8, kBias = 32;
  static constexpr bool kOffset = false;
  QUIRE_HD static uint16_t d(const uint8_t* p) { return half_at(p + 208); }
  QUIRE_HD static int scale(const uint8_t* p, int j) { return int8_t(p[192 + j]); }
  QUIRE_HD static int code(const uint8_t* p, int i) {
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const int low = p[half * 64 + quarter % 2 * 32 + l] >> quarter / 2 * 4 & 15;
    return (low | (p[128 + half * 32 + l] >> quarter * 2 & 3) << 4) - 32;
  }
};

// The 16 levels of IQ4, as the bytes of two words each way: tables in memory cost a GPU more than shifts.
QUIRE_HD inline int iq4_level(int code) {
  constexpr uint64_t kLow = 0xf6eaddcfbfad9881u, kHigh = 0x7159453526190d01u;
  return int8_t((code < 8 ? kLow : kHigh) >> code % 8 * 8 & 255);
}

struct Iq4Xs {
  static constexpr const char* kName = "iq4_xs";
  static constexpr int kBits = 4, kValues = 256, kBytes = 136, kGroup = 32, kSuper = 8, kField = 4, kBias = 128;
  static constexpr bool kOffset = false;
  QUIRE_HD static uint16_t d(const uint8_t* p) { return half_at(p); }
  QUIRE_HD static int scale(const uint8_t* p, int j) {
    const int low = p[4 + j / 2] >> j % 2 * 4 & 15, high = half_at(p + 2) >> 2 * j & 3;
    return (low | high << 4) - 32;
  }
  QUIRE_HD static int level(int field) { return iq4_level(field); }
  QUIRE_HD static int field(const uint8_t* p, int i) { return p[8 + i / 32 * 16 + i % 16] >> i % 32 / 16 * 4 & 15; }
  QUIRE_HD static int code(const uint8_t* p, int i) { return level(field(p, i)); }
};

struct Iq4Nl {
  static constexpr const char* kName = "iq4_nl";
  static constexpr int kBits = 4, kValues = 32, kBytes = 18, kGroup = 32, kSuper = 0, kField = 4, kBias = 128;
  static constexpr bool kOffset = false, kHalf = true;
  QUIRE_HD static float scale(const uint8_t* p) { return f16_to_f32(half_at(p)); }
  QUIRE_HD static int level(int field) { return iq4_level(field); }
  QUIRE_HD static int field(const uint8_t* p, int i) { return p[2 + i % 16] >> i / 16 * 4 & 15; }
  QUIRE_HD static int code(const uint8_t* p, int i) { return level(field(p, i)); }
};

struct Mxfp4 {
  static constexpr const char* kName = "mxfp4";
  static constexpr int kBits = 4, kValues = 32, kBytes = 17, kGroup = 32, kSuper = 0, kField = 4, kBias = 12;
  static constexpr bool kOffset = false, kHalf = false;
  // 2^(e - 128): below 2 it is subnormal.
  QUIRE_HD static float scale(const uint8_t* p) {
    return f32_from_bits(p[0] < 2 ? 0x00200000u << p[0] : uint32_t(p[0] - 1) << 23);
  }
  QUIRE_HD static int level(int field) {
    const int magnitude = int(0xc8643210u >> field % 8 * 4 & 15);
    return field < 8 ? magnitude : -magnitude;
  }
  QUIRE_HD static int field(const uint8_t* p, int i) { return p[1 + i % 16] >> i / 16 * 4 & 15; }
  QUIRE_HD static int code(const uint8_t* p, int i) { return level(field(p, i)); }
};

}  // namespace gguf

using Q2_K = ReadBlock<gguf::Q2K>;
using Q3_K = ReadBlock<gguf::Q3K>;
using Q4_K = ReadBlock<gguf::Q4K>;
using Q5_K = ReadBlock<gguf::Q5K>;
using Q6_K = ReadBlock<gguf::Q6K>;
using IQ4_NL = ReadBlock<gguf::Iq4Nl>;
using IQ4_XS = ReadBlock<gguf::Iq4Xs>;
using MXFP4 = ReadBlock<gguf::Mxfp4>;

}  // namespace quire
