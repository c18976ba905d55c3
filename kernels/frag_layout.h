// frag8 and frag16: weights in the order in which a tensor core's A operand lies in registers, so that one 16-byte load
// of a lane is a whole fragment (m16n8k32 and m16n8k16, weights as A: rows of w on the MMA's M).
//
// A panel is 64 rows, a tile 64 rows x 128 columns, the tiles of a panel follow each other along k. A tile is its
// codes, four blocks of 16 rows, then its own meta. A block is vectors of 512 bytes: 16 bytes a lane (g = lane / 4,
// t = lane % 4). In the MMA a0 is row g, a1 row g + 8, a2 and a3 the same rows in the upper half of its columns.
//   frag8   4 bit: 64 columns, word 2s + h of k32 step s: high nibbles a(2h), low a(2h+1), byte j = column 16h + 4t + j
//           8 bit: 32 columns, word i = ai
//   frag16  4 bit: 64 columns, word s of k16 step s: nibbles i and i + 4 = ai, columns 2t and 2t + 1 (+ 8 for a2, a3)
//           8 bit: 32 columns, word 2s + h: bytes 0, 1 = a(2h), 2, 3 = a(2h+1)
//           16 bit: 16 columns, word i = ai
// Meta: an entry for every `entry` columns: f32 scale[64] (segmented sums only; nibble_offset: {f16 scale, f16
// offset}[64], which is what its formats hold), then {u8 step, u8 offset + 128}[64] (nibble_affine: code = field * step
// + offset) or u16 zero[64] (half_nibble: code = field - zero). After a panel's tiles: f32 row_scale[64], f32
// row_offset[64]. Rows and columns that pad are zero.
#pragma once
#include <type_traits>

#include "quant/affine.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_k_blocks.h"
#include "quant/minifloat.h"
#include "quant/plain.h"
#include "quant/two_level.h"

namespace quire {

enum class FragCode : uint8_t {
  int8,           // frag8: codes as they are
  nibble_signed,  // frag8: two's complement, the MMA sees 16 times the code
  nibble_affine,  // frag8: unsigned field * step + offset
  nibble_offset,  // frag8: unsigned field; value = scale * field + offset
  e4m3,           // frag8
  half_nibble,    // frag16: unsigned field - zero
  half_byte,      // frag16: int8 codes
  half_float,     // frag16: f16 or bf16 as it is
  half_e4m3,      // frag16
};

constexpr int64_t kFragRows = 64, kFragCols = 128;

struct FragShape {
  int64_t n = 0, k = 0;
  FragCode code = FragCode::int8;
  int32_t entry = 128;  // 32, 64 or 128
  int32_t segment = 0;  // columns summed before a scale is applied: 32, 64, 128 or 256; 0: the row
  bool offset = false;  // value = scale * code + offset

  QUIRE_HD bool half() const { return code >= FragCode::half_nibble; }
  QUIRE_HD int bits() const {
    const bool nibble = code == FragCode::nibble_signed || code == FragCode::nibble_affine ||
                        code == FragCode::nibble_offset || code == FragCode::half_nibble;
    return nibble ? 4 : code == FragCode::half_float ? 16 : 8;
  }
  QUIRE_HD bool second() const { return code == FragCode::nibble_affine || code == FragCode::half_nibble; }
  QUIRE_HD bool scaled() const { return segment > 0 && code != FragCode::half_float; }
  QUIRE_HD int64_t panels() const { return (n + kFragRows - 1) / kFragRows; }
  QUIRE_HD int64_t k_tiles() const { return (k + kFragCols - 1) / kFragCols; }
  QUIRE_HD int vectors() const { return bits() / 2; }  // of a block in a tile
  QUIRE_HD int vector_cols() const { return int(kFragCols) / vectors(); }
  QUIRE_HD int64_t code_bytes() const { return kFragRows * kFragCols * bits() / 8; }
  QUIRE_HD int64_t entry_bytes() const { return (scaled() ? 256 : 0) + (second() ? 128 : 0); }
  QUIRE_HD int64_t tile_bytes() const { return code_bytes() + kFragCols / entry * entry_bytes(); }
  QUIRE_HD int64_t panel_bytes() const { return k_tiles() * tile_bytes() + 2 * kFragRows * 4; }
  QUIRE_HD int64_t bytes() const { return panels() * panel_bytes(); }
  QUIRE_HD int64_t tile_at(int64_t panel, int64_t k_tile) const {
    return panel * panel_bytes() + k_tile * tile_bytes();
  }
  QUIRE_HD int64_t row_scale_at(int64_t row) const { return tile_at(row / kFragRows, k_tiles()) + row % kFragRows * 4; }
  QUIRE_HD int64_t row_offset_at(int64_t row) const { return row_scale_at(row) + kFragRows * 4; }
};

// Where the field of (row, column) of a tile lies: a byte of the tile and a shift in it (16 bit: the lower byte).
struct FragPlace {
  int64_t byte;
  int shift;
};
QUIRE_HD inline FragPlace frag_place(const FragShape& s, int row, int col) {
  const int block = row / 16, g = row % 8, lower = row % 16 / 8;  // lower: rows g + 8
  const int vector = col / s.vector_cols(), c = col % s.vector_cols(), bits = s.bits();
  int t, word, byte, shift = 0;
  if (!s.half()) {
    const int step = c / 32, h = c % 32 / 16;
    t = c % 16 / 4;
    byte = c % 4;
    word = bits == 4 ? 2 * step + h : 2 * h + lower;
    if (bits == 4) shift = lower ? 0 : 4;
  } else {
    const int step = c / 16, h = c % 16 / 8, e = c % 2;
    t = c % 8 / 2;
    if (bits == 4) {
      const int nibble = 2 * h + lower + 4 * e;
      word = step;
      byte = nibble / 2;
      shift = nibble % 2 * 4;
    } else if (bits == 8) {
      word = 2 * step + h;
      byte = 2 * lower + e;
    } else {
      word = 2 * h + lower;
      byte = 2 * e;
    }
  }
  return {block * (s.code_bytes() / 4) + vector * 512 + (4 * g + t) * 16 + word * 4 + byte, shift};
}

// The columns and rows that word `word` of a lane's vector holds, as fn(place in the word in bits, row, column).
template <class Fn>
QUIRE_HD void frag_word(const FragShape& s, int block, int vector, int lane, int word, Fn&& fn) {
  const int g = lane / 4, t = lane % 4, bits = s.bits(), col0 = vector * s.vector_cols(), row0 = block * 16 + g;
  for (int at = 0; at < 32; at += bits) {
    int lower, col;
    if (!s.half()) {
      const int h = bits == 4 ? word % 2 : word / 2, step = bits == 4 ? word / 2 : 0;
      lower = bits == 4 ? (at % 8 == 0) : word % 2;
      col = 32 * step + 16 * h + 4 * t + at / 8;
    } else {
      const int i = bits == 4 ? at / 4 % 4 : bits == 8 ? word % 2 * 2 + at / 16 : word;
      const int e = bits == 4 ? at / 16 : bits == 8 ? at / 8 % 2 : at / 16;
      const int step = bits == 4 ? word : bits == 8 ? word / 2 : 0;
      lower = i % 2;
      col = 16 * step + 8 * (i / 2) + 2 * t + e;
    }
    fn(at, row0 + 8 * lower, col0 + col);
  }
}

// What codec C's value becomes as a field of this kind.
template <class C>
QUIRE_HD uint32_t frag_field(const Tensor& t, int64_t r, int64_t c, FragCode kind) {
  if constexpr (C::kBits == 16) {
    return t.data.row<const uint16_t>(r)[c];
  } else if constexpr (requires { C::field(t, r, c); } && C::kBits == 4) {
    const int field = C::field(t, r, c);
    return uint32_t(kind == FragCode::nibble_signed ? field ^ 8 : field) & 15u;
  } else {
    const int code = int(C::code(t, r, c));
    const bool as_it_is = kind == FragCode::nibble_signed || kind == FragCode::nibble_offset;
    const bool byte = kind == FragCode::int8 || kind == FragCode::half_byte;
    if (C::kBits == 4 && !byte) return uint32_t(as_it_is ? code : code + 8) & 15u;
    return uint32_t(code) & 255u;
  }
}

// The second number of an entry of meta, for the weight's group g.
template <class C>
QUIRE_HD uint16_t frag_second(const Tensor& t, int64_t r, int64_t g, FragCode kind) {
  int step = 1, zero = 0;
  if constexpr (std::is_same_v<C, TwoLevel4>) {
    const uint8_t* second = t.aux.row<const uint8_t>(r) + 2 * g;
    step = second[0];
    zero = -int(int8_t(second[1]));
  } else if constexpr (std::is_same_v<C, Int4Z>) {
    zero = t.aux.row<const uint8_t>(r)[g];
  } else if constexpr (!C::kOffset) {
    zero = 8;
  }
  if (kind == FragCode::half_nibble) return uint16_t(zero);
  return uint16_t(step | (128 - zero) << 8);
}

template <class C>
QUIRE_HD AffineParams frag_affine(const Tensor& t, int64_t r, int64_t g) {
  return C::affine(t, r, t.group > 0 || C::kGroup > 0 ? g : 0);
}
template <class C>
QUIRE_HD int64_t frag_group(const Tensor& t, int64_t c) {
  const int64_t group = t.group > 0 ? t.group : C::kGroup;
  return group > 0 ? c / group : 0;
}

// One word of codes; src holds the rows from row0 on.
template <class C>
QUIRE_HD uint32_t frag_pack_word(const FragShape& s, const Tensor& src, int64_t row0, int64_t panel, int64_t k_tile,
                                 int block, int vector, int lane, int word) {
  uint32_t out = 0;
  frag_word(s, block, vector, lane, word, [&](int at, int row, int col) {
    const int64_t r = panel * kFragRows + row - row0, c = k_tile * kFragCols + col;
    if (r >= 0 && r < src.rows && c < s.k) out |= frag_field<C>(src, r, c, s.code) << at;
  });
  return out;
}

// Row `row` (of the packed matrix) of the meta of one tile's entry, into the tile.
template <class C>
QUIRE_HD void frag_pack_entry(const FragShape& s, const Tensor& src, int64_t row0, int64_t row, int64_t k_tile,
                              int entry, std::byte* tile) {
  const int64_t r = row - row0, c = k_tile * kFragCols + entry * s.entry;
  const bool inside = r >= 0 && r < src.rows && c < s.k;
  std::byte* at = tile + s.code_bytes() + entry * s.entry_bytes();
  const int64_t lane = row % kFragRows, g = inside ? frag_group<C>(src, c) : 0;
  if (s.scaled()) {
    const AffineParams a = inside ? frag_affine<C>(src, r, g) : AffineParams{0.0f, 0.0f};
    if (s.code == FragCode::nibble_offset) {
      reinterpret_cast<uint32_t*>(at)[lane] = f32_to_f16(a.scale) | uint32_t(f32_to_f16(a.offset)) << 16;
    } else {
      reinterpret_cast<float*>(at)[lane] = a.scale;
    }
    at += 256;
  }
  if constexpr (C::kBits == 4) {
    if (s.second()) reinterpret_cast<uint16_t*>(at)[lane] = inside ? frag_second<C>(src, r, g, s.code) : uint16_t(0);
  }
}

// What one row of the packed matrix is scaled with when all of it is summed first.
template <class C>
QUIRE_HD void frag_pack_row(const FragShape& s, const Tensor& src, int64_t row0, int64_t row, std::byte* dst) {
  const int64_t r = row - row0;
  AffineParams a{0.0f, 0.0f};
  if (r >= 0 && r < src.rows) a = C::affine(src, r, 0);
  *reinterpret_cast<float*>(dst + s.row_scale_at(row)) = a.scale;
  *reinterpret_cast<float*>(dst + s.row_offset_at(row)) = a.offset;
}

// All of it on the host; the device does the same with a thread a vector (frag_pack.cu).
template <class C>
void frag_pack_rows(const FragShape& s, const Tensor& src, int64_t row0, std::byte* dst) {
  const int64_t end = (row0 + src.rows + kFragRows - 1) / kFragRows;
  for (int64_t panel = row0 / kFragRows; panel < end; ++panel) {
    for (int64_t kt = 0; kt < s.k_tiles(); ++kt) {
      std::byte* tile = dst + s.tile_at(panel, kt);
      for (int i = 0; i < s.code_bytes() / 4; ++i) {
        const int word = i % 4, lane = i / 4 % 32, vector = i / 128 % s.vectors(), block = i / 128 / s.vectors();
        const uint32_t u = frag_pack_word<C>(s, src, row0, panel, kt, block, vector, lane, word);
        memcpy(tile + i * 4, &u, 4);
      }
      for (int e = 0; e < kFragCols / s.entry; ++e) {
        for (int64_t r = 0; r < kFragRows; ++r) frag_pack_entry<C>(s, src, row0, panel * kFragRows + r, kt, e, tile);
      }
    }
    for (int64_t r = 0; r < kFragRows; ++r) frag_pack_row<C>(s, src, row0, panel * kFragRows + r, dst);
  }
}

// The value of (row, column) as the codec decodes it.
QUIRE_HD inline float frag_value(const FragShape& s, const std::byte* packed, int64_t row, int64_t col, bool bf16) {
  const std::byte* tile = packed + s.tile_at(row / kFragRows, col / kFragCols);
  const FragPlace p = frag_place(s, int(row % kFragRows), int(col % kFragCols));
  const uint8_t* at = reinterpret_cast<const uint8_t*>(tile + p.byte);
  if (s.bits() == 16)
    return bf16 ? bf16_to_f32(uint16_t(at[0] | at[1] << 8)) : f16_to_f32(uint16_t(at[0] | at[1] << 8));
  const int field = s.bits() == 4 ? at[0] >> p.shift & 15 : at[0];
  const int64_t entry = col % kFragCols / s.entry;
  const std::byte* meta = tile + s.code_bytes() + entry * s.entry_bytes();
  float scale = *reinterpret_cast<const float*>(packed + s.row_scale_at(row));
  float offset = *reinterpret_cast<const float*>(packed + s.row_offset_at(row));
  if (s.scaled()) {
    const uint32_t halfs = reinterpret_cast<const uint32_t*>(meta)[row % kFragRows];
    const bool both = s.code == FragCode::nibble_offset;
    scale = both ? f16_to_f32(uint16_t(halfs)) : reinterpret_cast<const float*>(meta)[row % kFragRows];
    if (both) offset = f16_to_f32(uint16_t(halfs >> 16));
    meta += 256;
  }
  const int second = s.second() ? reinterpret_cast<const uint16_t*>(meta)[row % kFragRows] : 0;
  float q = 0.0f;
  switch (s.code) {
    case FragCode::int8:
    case FragCode::half_byte:
      q = float(int8_t(field));
      break;
    case FragCode::nibble_signed:
      q = float(field - (field & 8) * 2);
      break;
    case FragCode::nibble_affine:
      q = float(field * (second & 255) + (second >> 8) - 128);
      break;
    case FragCode::half_nibble:
      q = float(field - second);
      break;
    case FragCode::nibble_offset:
      q = float(field);
      break;
    case FragCode::e4m3:
    case FragCode::half_e4m3:
      q = E4M3Scalar::decode(uint32_t(field));
      break;
    case FragCode::half_float:
      break;
  }
  return s.offset ? scale * q + offset : scale * q;
}

}  // namespace quire
