// Codes that index a table of centroids (KVQuant's non-uniform quantization, arXiv 2401.18079).
//   nuq4 nuq3 nuq2     a table a column: t.table is f32 (cols, 2^bits), pitch 0; keys before rope, range and centre
//   folded in nuq4v nuq3v nuq2v  one table for all, t.table is f32 (2^bits) within [-1, 1]; scale holds f16
//   {half-range, centre} a group:
//                      value = half-range * table[code] + centre; values of the cache
// Not linear in the code. Encoding takes the nearest centroid, the lower index of two equally near.
#pragma once
#include "quant/bits.h"

namespace quire {

template <int Bits, bool Shared>
struct Codebook {
  static_assert(Bits == 2 || Bits == 3 || Bits == 4);
  static constexpr const char* kName = Bits == 4   ? (Shared ? "nuq4v" : "nuq4")
                                       : Bits == 3 ? (Shared ? "nuq3v" : "nuq3")
                                                   : (Shared ? "nuq2v" : "nuq2");
  using Planes = CodePlanes<Bits == 3 ? 2 : Bits, Bits == 3 ? 1 : 0>;
  static constexpr int kBits = Bits, kGroup = 0, kAlign = Planes::kAlign, kEntries = 1 << Bits;
  static constexpr bool kLinear = false, kInteger = false, kOffset = false, kAnyOrder = true;
  static constexpr int64_t kTableBytes = kEntries * 4;  // of the table of one column, or of all
  static constexpr bool kTableShared = Shared;

  QUIRE_HD static constexpr RowBytes row_bytes(int64_t cols, int64_t groups) {
    return {Planes::data_bytes(cols), Planes::high_bytes(cols), Shared ? groups * 4 : 0, 0};
  }
  QUIRE_HD static const float* table(const Tensor& t, int64_t c) {
    return t.table.row<const float>(0) + (Shared ? 0 : c * kEntries);
  }
  QUIRE_HD static int nearest(const float* centroids, float x) {
    int best = 0;
    float least = 3.4e38f;
    for (int k = 0; k < kEntries; ++k) {
      const float d = centroids[k] > x ? centroids[k] - x : x - centroids[k];
      best = d < least ? k : best;
      least = d < least ? d : least;
    }
    return best;
  }
  QUIRE_HD static void decode(const Tensor& t, int64_t r, int64_t c0, int64_t n, float* out) {
    uint8_t f[kPiece];
    for (Pieces p(t, c0, n); p.m > 0; p.next()) {
      Planes::read(t, r, p.c, p.m, f);
      const AffineParams a = range_of(t, r, p.g);
      for (int64_t i = 0; i < p.m; ++i) {
        const float y = table(t, p.c + i)[f[i]];
        out[p.c - c0 + i] = Shared ? a.scale * y + a.offset : y;
      }
    }
  }
  QUIRE_HD static float decode_at(const Tensor& t, int64_t r, int64_t c) {
    const float y = table(t, c)[Planes::get(t, r, c)];
    if constexpr (!Shared) return y;
    const AffineParams a = range_of(t, r, t.group_of(c));
    return a.scale * y + a.offset;
  }
  struct Grid {  // as in affine.h
    float inv, offset;
  };
  static constexpr float kLimit = Shared ? 65504.0f : 3.0e38f;
  static constexpr bool kSums = false;
  QUIRE_HD static Grid grid(const Tensor& t, int64_t r0, int64_t g, float lo, float hi, ScaleSource source) {
    if (Shared && source == ScaleSource::found) {
      uint16_t* meta = t.scale.row<uint16_t>(r0) + 2 * g;
      meta[0] = f32_to_f16(0.5f * (hi - lo));
      meta[1] = f32_to_f16(0.5f * (hi + lo));
    }
    const AffineParams a = range_of(t, r0, g);
    return {inverse(a.scale), a.offset};
  }
  QUIRE_HD static uint8_t field_of(const Tensor& t, int64_t c, float x, const Grid& grid) {
    return uint8_t(nearest(table(t, c), (finite(x, kLimit) - grid.offset) * grid.inv));
  }
  QUIRE_HD static void encode(const Tensor& t, int64_t r0, int64_t n, const float* src, int64_t ld,
                              ScaleSource source) {
    Planes::clear(t, r0, n);
    uint8_t f[kPiece];
    for (Pieces p(t, 0, t.cols); p.m > 0; p.next()) {
      const bool starts = Shared && source == ScaleSource::found && p.c == t.group_begin(p.g);
      Range range(kLimit);
      for (int64_t i = 0; starts && i < n; ++i) range.see(src + i * ld + p.c, t.group_end(p.g) - p.c);
      const Grid to = grid(t, r0, p.g, range.least(), range.most(), starts ? source : ScaleSource::given);
      for (int64_t i = 0; i < n; ++i) {
        const float* x = src + i * ld + p.c;
        for (int64_t k = 0; k < p.m; ++k) f[k] = field_of(t, p.c + k, x[k], to);
        Planes::write(t, r0 + i, p.c, p.m, f);
      }
    }
  }

 private:
  QUIRE_HD static AffineParams range_of(const Tensor& t, int64_t r, int64_t g) {
    if constexpr (!Shared) return {1.0f, 0.0f};
    const uint16_t* meta = t.scale.row<const uint16_t>(r) + 2 * g;
    return {f16_to_f32(meta[0]), f16_to_f32(meta[1])};
  }
};
using Nuq4 = Codebook<4, false>;
using Nuq3 = Codebook<3, false>;
using Nuq2 = Codebook<2, false>;
using Nuq4V = Codebook<4, true>;
using Nuq3V = Codebook<3, true>;
using Nuq2V = Codebook<2, true>;

// The sparse side of a codebook page, one list a (page, kv head): entries too far out for the tables, kept in half
// precision. They replace what the codes decode to, so an outlier of a half-precision cache is exact.
struct Outlier {
  uint8_t row, dim;
  uint16_t value;  // f16
};
static_assert(sizeof(Outlier) == 4);

struct OutlierList {
  uint16_t* count;
  Outlier* slots;
  int capacity;
};

// Slots of a page when a token keeps `per_token` entries at each end over all its kv heads.
QUIRE_HD inline int outlier_capacity(int per_token, int page_tokens, int kv_heads) {
  return ((4 * per_token * page_tokens + kv_heads - 1) / kv_heads + 31) / 32 * 32;
}

// Adds an entry; a full list gives up the one of the smallest magnitude, which may be the new one.
QUIRE_HD inline void add_outlier(const OutlierList& list, int row, int dim, float value) {
  const Outlier entry{uint8_t(row), uint8_t(dim), f32_to_f16(finite(value, 65504.0f))};
  if (*list.count < list.capacity) {
    list.slots[(*list.count)++] = entry;
    return;
  }
  int smallest = -1;
  int least = entry.value & 0x7fff;  // magnitudes of halves compare as integers
  for (int i = 0; i < list.capacity; ++i) {
    const int magnitude = list.slots[i].value & 0x7fff;
    smallest = magnitude < least ? i : smallest;
    least = magnitude < least ? magnitude : least;
  }
  if (smallest >= 0) list.slots[smallest] = entry;
}

// Puts the outliers of one row into its decoded values (cols).
QUIRE_HD inline void apply_outliers(const OutlierList& list, int row, float* values) {
  for (int i = 0; i < int(*list.count); ++i) {
    if (list.slots[i].row == row) values[list.slots[i].dim] = f16_to_f32(list.slots[i].value);
  }
}

}  // namespace quire
