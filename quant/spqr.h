// The dense part of SpQR (arXiv 2306.03078): 3-bit codes in tiles of 16 x 16. For 16 columns of a row a scale and a
// zero that are 3-bit codes themselves, four f16 a tile that say what these mean:
//   s = ss (code_s - zs),  z = sz (code_z - zz),  value = s (code - z), each step rounded to f16, as SpQR's own library
// computes them. Not linear in the code, because of the roundings. Outliers lie apart (kernels/sparse.h).
//
// The scale plane has 20 bytes a tile, the tiles of 16 rows side by side: f16 ss, sz, zs, zz, then three u32; bits 2i
// and 2i + 1 of the j-th are bits 2j and 2j + 1 of code_s + 8 code_z of row i: every row's at once for vector
// lanes. 3.625 bits a weight. Files come in it, nothing is written.
#pragma once
#include "quant/bits.h"

namespace quire {

struct Spqr3 {
  static constexpr const char* kName = "spqr3";
  using Planes = CodePlanes<2, 1>;
  static constexpr int kBits = 3, kGroup = 16, kSpan = 16, kAlign = Planes::kAlign;
  static constexpr int64_t kTileBytes = 20;  // of scales and zeros
  static constexpr bool kLinear = false, kInteger = false, kOffset = false, kAnyOrder = false;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {Planes::data_bytes(cols), Planes::high_bytes(cols), groups * kTileBytes};
  }
  QUIRE_HD static float half(float x) { return f16_to_f32(f32_to_f16(x)); }

  struct Level {
    float scale, zero;
  };
  // Of row i (0..15) of the tile whose scales lie at `tile`.
  QUIRE_HD static Level level_at(const uint8_t* tile, int i) {
    uint16_t second[4];
    uint32_t fields[3];
    memcpy(second, tile, 8);
    memcpy(fields, tile + 8, 12);
    uint32_t codes = 0;
    for (int j = 0; j < 3; ++j) codes |= (fields[j] >> (2 * i) & 3) << (2 * j);
    const float ss = f16_to_f32(second[0]), sz = f16_to_f32(second[1]);
    const float zs = f16_to_f32(second[2]), zz = f16_to_f32(second[3]);
    return {half(ss * half(float(codes & 7) - zs)), half(sz * half(float(codes >> 3) - zz))};
  }
  // Puts a row's codes into a tile that was zeroed.
  QUIRE_HD static void put_codes(uint8_t* tile, int i, uint32_t code_s, uint32_t code_z) {
    uint32_t fields[3];
    memcpy(fields, tile + 8, 12);
    for (int j = 0; j < 3; ++j) fields[j] |= ((code_s | code_z << 3) >> (2 * j) & 3) << (2 * i);
    memcpy(tile + 8, fields, 12);
  }
  QUIRE_HD static const uint8_t* tile_at(const Tensor& t, int64_t r, int64_t g) {
    return t.scale.row<const uint8_t>(r) + g * kTileBytes;
  }
  QUIRE_HD static Level level(const Tensor& t, int64_t r, int64_t g) {
    return level_at(tile_at(t, r, g), int(r % kSpan));
  }
  QUIRE_HD static float value(Level level, int code) { return half(level.scale * half(float(code) - level.zero)); }

  QUIRE_HD static float decode_at(const Tensor& t, int64_t r, int64_t c) {
    return value(level(t, r, c / kGroup), Planes::get(t, r, c));
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    uint8_t f[kPiece];
    for (Pieces p(t, c0, n); p.m > 0; p.next()) {
      const Level l = level(t, r, p.g);
      Planes::read(t, r, p.c, p.m, f);
      for (int64_t i = 0; i < p.m; ++i) out[p.c - c0 + i] = value(l, f[i]);
    }
  }
};

}  // namespace quire
