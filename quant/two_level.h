// QoQ's progressive int4 (QServe, arXiv 2405.04532): rows are int8 with one f32 scale in the protective range +-119; each
// group of those integers is 4 bits with an integer step s2 and offset b:  int8 = q4 * s2 + b,  value = scale * int8.
// With +-119, q4*s2 <= 240 and q4*s2 + b stays in [-128, 127], so byte arithmetic never carries (checked exhaustively in tests).
// aux holds {u8 s2, s8 b} per group. To integer matmul this is an int8 matrix with one scale a row.
#pragma once
#include "quant/scalar.h"

namespace quire {

struct TwoLevel4 {
  static constexpr const char* kName = "qoq4";
  static constexpr int kBits = 4, kGroup = 0, kAlign = 2;
  static constexpr bool kLinear = true, kInteger = true, kOffset = false;
  static constexpr float kRange = 119.0f;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {(cols + 1) / 2, 0, 4, groups * 2};
  }
  QUIRE_HD static int field(const Tensor& t, int64_t r, int64_t c) {
    return (t.data.row<const uint8_t>(r)[c / 2] >> (4 * (c % 2))) & 15;
  }
  QUIRE_HD static int code(const Tensor& t, int64_t r, int64_t c) {
    const uint8_t* second = t.aux.row<const uint8_t>(r) + 2 * t.group_of(c);
    return field(t, r, c) * second[0] + int(int8_t(second[1]));
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = int16_t(code(t, r, c0 + i));
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = float(code(t, r, c0 + i));
  }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t) { return {*t.scale.row<const float>(r), 0.0f}; }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    const float scale = affine(t, r, 0).scale;
    for (int64_t i = 0; i < n; ++i) out[i] = scale * float(code(t, r, c0 + i));
  }
  // Level 2 of one group whose int8 values span [lo, hi].
  QUIRE_HD static void second_level(int lo, int hi, uint8_t* s2, int8_t* b) {
    const int step = int(rne(float(hi - lo) / 15.0f));
    *s2 = uint8_t(step < 1 ? 1 : step);
    *b = int8_t(lo);
  }
  QUIRE_HD static int second_code(int q8, int s2, int b) {
    const int q = int(rne(float(q8 - b) / float(s2)));
    return q < 0 ? 0 : q > 15 ? 15 : q;
  }
  QUIRE_HD static int first_code(float x, float inv) {
    float q = x * inv;
    q = !(q == q) ? 0.0f : q > kRange ? kRange : q < -kRange ? -kRange : q;
    return int(rne(q));
  }

  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld, ScaleSource source) {
    for (int64_t i = 0; i < n; ++i) {
      const float* in = src + i * ld;
      const int64_t r = r0 + i;
      float inv = 0.0f;
      if (source == ScaleSource::found) {
        float amax = 0.0f;
        for (int64_t c = 0; c < t.cols; ++c) {
          const float a = in[c] < 0.0f ? -in[c] : in[c];
          if (a > amax) amax = a > 3.0e38f ? 3.0e38f : a;  // NaN compares false
        }
        float scale = amax * (1.0f / kRange);
        if (scale < 1.2e-38f) scale = 0.0f;
        *t.scale.row<float>(r) = scale;
        inv = scale == 0.0f ? 0.0f : kRange / amax;
      } else {
        const float scale = *t.scale.row<const float>(r);
        inv = scale == 0.0f ? 0.0f : 1.0f / scale;
      }
      uint8_t* data = t.data.row<uint8_t>(r);
      for (int64_t b = 0; b < (t.cols + 1) / 2; ++b) data[b] = 0;
      for (int64_t g = 0; g < t.groups(); ++g) {
        uint8_t* second = t.aux.row<uint8_t>(r) + 2 * g;
        if (source == ScaleSource::found) {
          int lo = 127, hi = -128;
          for (int64_t c = t.group_begin(g); c < t.group_end(g); ++c) {
            const int q = first_code(in[c], inv);
            lo = q < lo ? q : lo;
            hi = q > hi ? q : hi;
          }
          int8_t b;
          second_level(lo, hi, &second[0], &b);
          second[1] = uint8_t(b);
        }
        for (int64_t c = t.group_begin(g); c < t.group_end(g); ++c) {
          const int q = second_code(first_code(in[c], inv), second[0], int8_t(second[1]));
          data[c / 2] |= uint8_t(q << (4 * (c % 2)));
        }
      }
    }
  }
};

}  // namespace quire
