// QoQ's progressive int4 (QServe, arXiv 2405.04532): rows are int8 with one f32 scale in the protective range +-119;
// each group of those integers is 4 bits with an integer step s2 and offset b:  int8 = q4 * s2 + b,  value = scale *
// int8. With +-119, q4*s2 <= 240 and q4*s2 + b stays in [-128, 127], so byte arithmetic never carries (checked
// exhaustively in tests). aux holds {u8 s2, s8 b} per group. To integer matmul this is an int8 matrix with one scale a
// row.
#pragma once
#include "quant/bits.h"

namespace quire {

struct TwoLevel4 {
  static constexpr const char* kName = "qoq4";
  static constexpr int kBits = 4, kGroup = 0, kAlign = 2;
  using Planes = CodePlanes<4, 0>;
  static constexpr bool kLinear = true, kInteger = true, kOffset = false, kAnyOrder = true;
  static constexpr float kRange = 119.0f;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {(cols + 1) / 2, 0, 4, groups * 2};
  }
  QUIRE_HD static int field(const Tensor& t, int64_t r, int64_t c) {
    return (t.data.row<const uint8_t>(r)[c / 2] >> (4 * (c % 2))) & 15;
  }
  QUIRE_HD static int code(const Tensor& t, int64_t r, int64_t c) {
    const uint8_t* second = t.aux.row<const uint8_t>(r) + 2 * t.group_of(c);
    return Planes::get(t, r, c) * second[0] + int(int8_t(second[1]));
  }
  QUIRE_HD static void codes(const Tensor& t, int64_t r, int64_t c0, int64_t n, int16_t* out) {
    unpack(t, r, c0, n, out);
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    unpack(t, r, c0, n, out);
  }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t) {
    return {*t.scale.row<const float>(r), 0.0f};
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    const float scale = affine(t, r, 0).scale;
    unpack(t, r, c0, n, out);
    for (int64_t i = 0; i < n; ++i) out[i] = scale * out[i];
  }
  // Level 2 of one group whose int8 values span [lo, hi].
  QUIRE_HD static void second_level(int lo, int hi, uint8_t* s2, int8_t* b) {
    const int step = int(rne(float(hi - lo) / 15.0f));
    *s2 = uint8_t(step < 1 ? 1 : step);
    *b = int8_t(lo);
  }
  QUIRE_HD static int second_code(int q8, int s2, int b) {
    return int(rne(clamp(float(q8 - b) / float(s2), 0.0f, 15.0f)));
  }
  QUIRE_HD static int first_code(float x, float inv) {
    return int(rne(clamp(finite(x, kLimit) * inv, -kRange, kRange)));
  }

  static constexpr float kLimit = 3.0e38f;
  static constexpr bool kSums = false;
  // Level 1 of a span of rows whose values span [lo, hi]: stored if it is found. Returns what values are multiplied by.
  QUIRE_HD static float first_level(const Tensor& t, int64_t r0, float lo, float hi, ScaleSource source) {
    float* scale = t.scale.row<float>(r0);
    if (source == ScaleSource::given) return inverse(*scale);
    const float amax = hi > -lo ? hi : -lo, s1 = amax * (1.0f / kRange);
    *scale = s1 < 1.2e-38f ? 0.0f : s1;  // the inverse of less would not be finite
    return s1 < 1.2e-38f ? 0.0f : kRange / amax;
  }
  struct Grid {  // as in affine.h, of one group
    float inv;
    int s2, b;
  };
  QUIRE_HD static Grid grid(const Tensor& t, int64_t r0, int64_t g, float inv, float lo, float hi, ScaleSource source) {
    uint8_t* second = t.aux.row<uint8_t>(r0) + 2 * g;
    if (source == ScaleSource::found) {  // the integers are monotone in the values
      int8_t b = 0;
      second_level(first_code(lo, inv), first_code(hi, inv), &second[0], &b);
      second[1] = uint8_t(b);
    }
    return {inv, second[0] > 0 ? second[0] : 1, int8_t(second[1])};
  }
  QUIRE_HD static uint8_t field_of(const Tensor&, int64_t, float x, const Grid& grid) {
    return uint8_t(second_code(first_code(x, grid.inv), grid.s2, grid.b));
  }

  // The rows of a span share both levels.
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    Planes::clear(t, r0, n);
    Range row(kLimit);
    for (int64_t i = 0; source == ScaleSource::found && i < n; ++i) row.see(src + i * ld, t.cols);
    const float inv = first_level(t, r0, row.least(), row.most(), source);
    for (Pieces p(t, 0, t.cols); p.m > 0; p.next()) {
      const bool starts = source == ScaleSource::found && p.c == t.group_begin(p.g);
      Range range(kLimit);
      for (int64_t i = 0; starts && i < n; ++i) range.see(src + i * ld + p.c, t.group_end(p.g) - p.c);
      const Grid to = grid(t, r0, p.g, inv, range.least(), range.most(), starts ? source : ScaleSource::given);
      uint8_t f[kPiece];
      for (int64_t i = 0; i < n; ++i) {
        const float* x = src + i * ld + p.c;
        for (int64_t k = 0; k < p.m; ++k) f[k] = field_of(t, p.c + k, x[k], to);
        Planes::write(t, r0 + i, p.c, p.m, f);
      }
    }
  }

 private:
  template <class Out>
  QUIRE_HD static void unpack(const Tensor& t, int64_t r, int64_t c0, int64_t n, Out* out) {
    uint8_t f[kPiece];
    for (Pieces p(t, c0, n); p.m > 0; p.next()) {
      const uint8_t* second = t.aux.row<const uint8_t>(r) + 2 * p.g;
      const int s2 = second[0], b = int8_t(second[1]);
      Planes::read(t, r, p.c, p.m, f);
      for (int64_t i = 0; i < p.m; ++i) out[p.c - c0 + i] = Out(f[i] * s2 + b);
    }
  }
};

}  // namespace quire
