// Four-bit codes that index one table of 16 floats, with an f32 scale a group: value = scale * table[code].
//   lut4   bitsandbytes' nf4 and fp4 (QLoRA, arXiv 2305.14314): t.table is f32 (16), shared by all rows and columns
// The table is the file's. Encoding takes the nearest entry, the lower index of two equally near.
#pragma once
#include "quant/bits.h"

namespace quire {

struct Lut4 {
  static constexpr const char* kName = "lut4";
  using Planes = CodePlanes<4, 0>;
  static constexpr int kBits = 4, kGroup = 0, kAlign = Planes::kAlign, kEntries = 16;
  static constexpr bool kLinear = true, kInteger = false, kOffset = false, kAnyOrder = true;
  static constexpr int64_t kTableBytes = kEntries * 4;
  static constexpr bool kTableShared = true;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {Planes::data_bytes(cols), 0, groups * 4, 0};
  }
  QUIRE_HD static const float* table(const Tensor& t) { return t.table.row<const float>(0); }
  QUIRE_HD static int field(const Tensor& t, int64_t r, int64_t c) { return Planes::get(t, r, c); }
  QUIRE_HD static float value(const Tensor& t, int64_t r, int64_t c) { return table(t)[Planes::get(t, r, c)]; }
  QUIRE_HD static AffineParams affine(const Tensor& t, int64_t r, int64_t g) {
    return {t.scale.row<const float>(r)[g], 0.0f};
  }
  QUIRE_HD static void values(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    uint8_t f[kPiece];
    const float* entries = table(t);
    for (int64_t i = 0; i < n; i += kPiece) {
      const int64_t m = n - i < kPiece ? n - i : kPiece;
      Planes::read(t, r, c0 + i, m, f);
      for (int64_t k = 0; k < m; ++k) out[i + k] = entries[f[k]];
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
    if (source == ScaleSource::found) {  // the largest value sits on the largest entry
      float most = 0.0f;
      for (int i = 0; i < kEntries; ++i) {
        const float entry = table(t)[i] < 0.0f ? -table(t)[i] : table(t)[i];
        most = entry > most ? entry : most;
      }
      const float scale = (hi > -lo ? hi : -lo) * inverse(most);
      t.scale.row<float>(r0)[g] = scale < 1.2e-38f ? 0.0f : scale;  // the inverse of less would not be finite
    }
    return {inverse(affine(t, r0, g).scale)};
  }
  QUIRE_HD static uint8_t field_of(const Tensor& t, int64_t, float x, const Grid& grid) {
    const float y = finite(x, kLimit) * grid.inv;
    int best = 0;
    float least = 3.4e38f;
    for (int k = 0; k < kEntries; ++k) {
      const float entry = table(t)[k], d = entry > y ? entry - y : y - entry;
      best = d < least ? k : best;
      least = d < least ? d : least;
    }
    return uint8_t(best);
  }
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    Planes::clear(t, r0, n);
    uint8_t f[kPiece];
    for (int64_t g = 0; g < t.groups(); ++g) {
      const int64_t begin = t.group_begin(g), end = t.group_end(g);
      if (end <= begin) continue;
      Range range(kLimit);
      for (int64_t i = 0; source == ScaleSource::found && i < n; ++i) range.see(src + i * ld + begin, end - begin);
      const Grid to = grid(t, r0, g, range.least(), range.most(), source);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = begin; c < end; c += kPiece) {
          const int64_t m = end - c < kPiece ? end - c : kPiece;
          for (int64_t k = 0; k < m; ++k) f[k] = field_of(t, c + k, src[i * ld + c + k], to);
          Planes::write(t, r0 + i, c, m, f);
        }
      }
    }
  }
};

}  // namespace quire
