// How packed weights lie for the CPU's fast kernels: panels of 16 rows, one row a vector lane, k in order along the
// panel. A panel is one forward stream. Rows and codes that pad it are zero.
//   float_panels   f32, f16 or bf16 as the source is: element (row, k) at [k][row]
//   byte_panels    8-bit codes, 64 bytes = 16 rows x 4 k: the order of vpdpbusd
//   nibble_panels  codes of up to 4 bits, 64 bytes = 16 rows x 8 k: byte [row][j] holds k = j low, k = 4 + j high.
//                  Of 6-bit codes the lower 4 lie so; the upper 2 follow, 64 bytes = 16 rows x 16 k: byte [row][j]
//                  holds k = j, 4 + j, 8 + j, 12 + j from its lowest bits up
//   spqr_panels    tiles of 16 rows x 16 columns, kSpqrTile bytes: the codec's 20 bytes of scales and zeros, then the
//                  codes of 3 bits, 48 bits a row: the lower 32 of all rows, then the upper 16
//   e8_panels      codes of 8 values (quant/e8.h): for 8 k 16 rows of u16, then those of the second book; at the end of
//                  a panel the factor of that
// Codes lie as unsigned fields, or as indices of 16 such; code = second * field + zero: so an int8 activation is the
// signed operand as it lies.
#pragma once
#include "kernels/cpu/matmul_cpu.h"

namespace quire::cpu {

constexpr int64_t kPanel = 16;

constexpr int64_t kSpqrTile = Spqr3::kTileBytes + 16 * 6;

extern const WeightLayout kFloatPanels, kBytePanels, kNibblePanels, kSpqrPanels, kE8Panels;

// How a field becomes the code, an integer.
enum class Second : uint8_t {
  bias,   // field - bias, the same everywhere
  zero,   // field - z, a zero of the group
  steps,  // field * s2 + b, of the group (two-level)
};

// Or it is a small float: sign, exponent, mantissa from the top; bits 0: it is none. Or an index of 16 floats
// (table_at).
struct SmallFloat {
  int bits, mantissa;
  float power;  // moves the exponent's bias
};

// Geometry of byte and nibble panels. A row is cut into subs: runs in which w and x have one scale, zero and step. Each
// sub is padded to whole chunks. A panel is its codes, their upper bits, the meta of its weight groups, and (two-level)
// its scales.
struct IntPanels {
  int64_t n, k;
  int64_t chunk;             // codes of a row in 64 bytes: 4 or 8
  int64_t sub, subs;         // codes in a sub (the last may be short), subs in a row
  int64_t subs_per_segment;  // segment: a sub, or all subs between two scales
  int64_t subs_per_group;    // of the weight
  int64_t subs_per_x;        // of the activation; 0: one scale a row
  int64_t upper_at, meta_at, group_bytes, row_scale_at, table_at, panel_bytes;  // 0: there is none
  SmallFloat small;
  int bias;
  Second second;
  int super;             // groups that share an f16 scale (and offset), which integers of theirs multiply; 0: none do
  bool half;             // scales (and offsets) are f16
  bool offset;           // an offset follows the scale
  bool row_rule;         // w and x have one scale a row
  bool leveled;          // the field that lies there is an index of 16 fields:
  std::byte levels[64];  // four times the same 16

  int64_t groups() const { return (subs + subs_per_group - 1) / subs_per_group; }
  int64_t sub_end(int64_t i) const { return (i + 1) * sub < k ? (i + 1) * sub : k; }
  int64_t chunks(int64_t i) const { return (sub_end(i) - i * sub + chunk - 1) / chunk; }
  int64_t sub_chunks() const { return (sub + chunk - 1) / chunk; }
  int64_t padded_k() const { return ((subs - 1) * sub_chunks() + chunks(subs - 1)) * chunk; }
  int64_t upper_chunks(int64_t chunks) const { return upper_at ? (chunks + 1) / 2 : 0; }  // beside so many of a sub
  bool dense() const { return padded_k() == k; }  // x lies as the panels want it
  // Two levels: meta of group g is s8 scale[16], s8 offset[16]; after all of it f16 scale[16], offset[16] of `super`.
  bool two_levels() const { return super > 0; }
  int64_t super_at(int64_t g) const { return meta_at + groups() * group_bytes + g / super * (offset ? 64 : 32); }
  // meta of group g: scale[16], offset[16], then u8 zero[16] or u8 s2[16] s8 b[16]
  int64_t scale_bytes() const { return half ? 32 : 64; }
  int64_t second_at() const { return row_scale_at ? 0 : scale_bytes() * (offset ? 2 : 1); }
};
IntPanels int_panels(const MatmulProblem& problem);

// Geometry of E8 panels, and the books: 256 words each.
struct E8Panels {
  const uint32_t *first_book, *second_book;
  int second;           // bytes of a code of the second book; 0: there is none
  int64_t block_bytes;  // of 8 k
  int64_t factor_at, panel_bytes;
};
E8Panels e8_panels(const MatmulProblem& problem);

}  // namespace quire::cpu
