// The format is the dtype: a Tensor says how its bytes mean numbers. Ops own loops, codecs (formats.h) own numbers.
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define QUIRE_HD __host__ __device__
#else
#define QUIRE_HD
#endif

namespace quire {

enum class Codec : uint8_t {};  // index into the list in formats.h; `id<Int8>` names one
enum class Device : uint8_t { cpu, cuda };

// In which order a row's codes lie in its planes. Logical column c lies at stored_column(order, cols, c).
enum class Order : uint8_t {
  natural,
  value_tiles,  // KIVI values: dim 16j+2g+e at g*(cols/8)+2j+e, so that a tensor-core lane reads whole bytes
  rope_pairs,   // KVQuant keys before rope: dims i and i+cols/2 side by side for the lane that rotates them
};

QUIRE_HD inline int64_t stored_column(Order order, int64_t cols, int64_t c) {
  if (order == Order::value_tiles) {
    const int64_t j = c / 16, g = c % 16 / 2, e = c % 2;
    return g * (cols / 8) + 2 * j + e;
  }
  if (order == Order::rope_pairs) {
    const int64_t half = c / (cols / 2), in_half = c % (cols / 2), t = in_half / (cols / 8), i = in_half % (cols / 8);
    return t * (cols / 4) + half * (cols / 8) + i;
  }
  return c;
}

// Row r lies at ptr + (r / rows) * pitch. Pitch 0: shared by all rows (per tensor, static). rows 128: block FP8;
// rows 64: one scale for the 64 tokens of a sealed page.
struct Plane {
  std::byte* ptr = nullptr;
  int64_t pitch = 0;
  int32_t rows = 1;

  template <class T>
  QUIRE_HD T* row(int64_t r) const {
    return reinterpret_cast<T*>(ptr + (rows == 1 ? r : int64_t(uint32_t(r) / uint32_t(rows))) * pitch);
  }
};

// A view: rows x cols numbers in `codec`, with a scale for every `group` values along a row (0: the whole row; the last
// group may be short) and every `scale.rows` rows.
struct Tensor {
  Codec codec{};
  Device device = Device::cpu;
  Order order = Order::natural;
  int32_t group = 0;
  int64_t rows = 0, cols = 0;
  Plane data;   // codes; their low bits if they are split over two planes
  Plane high;   // the high bits of 3-bit (2 + 1) and 6-bit (4 + 2) codes
  Plane scale;  // what it holds is the codec's business (f32, or f16 {scale, min})
  Plane aux;    // zeros, second-level scales, or the int32 sums of an activation's codes
  Plane table;  // codebook

  // 32 bits: a division of 64 takes a GPU a hundred instructions.
  QUIRE_HD int64_t groups() const { return group > 0 ? int64_t(uint32_t(cols + group - 1) / uint32_t(group)) : 1; }
  QUIRE_HD int64_t group_of(int64_t c) const { return group > 0 ? int64_t(uint32_t(c) / uint32_t(group)) : 0; }
  QUIRE_HD int64_t group_begin(int64_t g) const { return group > 0 ? g * group : 0; }
  QUIRE_HD int64_t group_end(int64_t g) const {
    const int64_t end = group > 0 ? (g + 1) * group : cols;
    return end < cols ? end : cols;
  }
};

// value = scale * code + offset
struct AffineParams {
  float scale, offset;
};

// Bytes one row of each plane takes (for scale, aux and high: of one span of scale.rows rows where they are shared).
struct RowBytes {
  int64_t data, high = 0, scale = 0, aux = 0;
};

// Whether encode finds the scale from the values or uses the one already in the tensor (static scales, other writers').
enum class ScaleSource : uint8_t { found, given };

// A scale that all rows share is static: writing a row must not change it.
QUIRE_HD inline ScaleSource scale_source(const Tensor& t) {
  return t.scale.ptr && t.scale.pitch == 0 ? ScaleSource::given : ScaleSource::found;
}

}  // namespace quire
