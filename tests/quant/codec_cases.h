// What the codec tests share: every codec of the list, in every shape it allows, in memory with guards.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "quant/storage.h"

namespace quire::testing_quant {

struct CodecCase {
  Format format;
  int32_t span = 1;
  Order order = Order::natural;
  int64_t cols = 0;

  std::string name() const {
    return fmt::format("{} span {} order {} cols {}", to_string(format), span, int(order), cols);
  }
};

inline bool has_scale(Codec codec) { return info(codec).row_bytes(1, 1).scale > 0; }

// Every codec with every group, span and order it allows, for one width.
inline std::vector<CodecCase> codec_cases(int64_t cols) {
  std::vector<CodecCase> cases;
  for (int i = 0; i < Codecs::kSize; ++i) {
    const Codec codec = Codec(i);
    const CodecInfo& c = info(codec);
    if (!c.encode) continue;  // only read
    const bool free_group = c.group == 0 && has_scale(codec);
    const std::vector<int32_t> groups =
        free_group ? std::vector<int32_t>{0, 1, 7, 32, 64, 128} : std::vector<int32_t>{c.group};
    for (const int32_t group : groups) {
      for (const int32_t span : free_group ? std::vector<int32_t>{1, 32, 64} : std::vector<int32_t>{1}) {
        for (const Order order : {Order::natural, Order::value_tiles, Order::rope_pairs}) {
          if (order != Order::natural && (!c.any_order || cols % 16 != 0)) continue;
          cases.push_back({{codec, group}, span, order, cols});
        }
      }
    }
  }
  return cases;
}

enum class Fill { normal, shifted, outlier, tiny, large };

inline std::vector<float> random_values(std::mt19937& rng, int64_t n, Fill fill = Fill::normal) {
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) {
    v = normal(rng);
    if (fill == Fill::shifted) v = v * 0.25f + 9.0f;
    if (fill == Fill::outlier && rng() % 16 == 0) v *= 100.0f;
    if (fill == Fill::tiny) v *= 1.0e-6f;
    if (fill == Fill::large) v *= 3000.0f;
  }
  return x;
}

// Sorted centroids, different for every column (shared tables: within [-1, 1]).
inline void fill_table(std::mt19937& rng, const Tensor& t) {
  const CodecInfo& c = info(t.codec);
  if (c.table_bytes == 0) return;
  const int64_t entries = c.table_bytes / 4, tables = c.table_shared ? 1 : t.cols;
  std::uniform_real_distribution<float> jitter(-0.4f, 0.4f);
  float* out = t.table.row<float>(0);
  for (int64_t k = 0; k < tables; ++k) {
    for (int64_t i = 0; i < entries; ++i) {
      const float step = 2.0f / float(entries - 1);
      const bool end = i == 0 || i == entries - 1;
      out[k * entries + i] = -1.0f + step * (float(i) + (end ? 0.0f : jitter(rng)));
    }
  }
}

inline OwnedTensor make_case(std::mt19937& rng, const CodecCase& c, int64_t rows) {
  StorageOptions options;
  options.span = c.span;
  options.order = c.order;
  OwnedTensor t = make_tensor(c.format, rows, c.cols, options);
  fill_table(rng, t);
  return t;
}

// Encodes all rows, span by span.
inline void encode_all(const Tensor& t, const float* src, ScaleSource source = ScaleSource::found) {
  const int64_t span = t.scale.ptr ? t.scale.rows : 1;
  for (int64_t r = 0; r < t.rows; r += span) {
    info(t.codec).encode(t, r, std::min<int64_t>(span, t.rows - r), src + r * t.cols, t.cols, source);
  }
}

inline std::vector<float> decode_all(const Tensor& t) {
  std::vector<float> out(static_cast<size_t>(t.rows * t.cols));
  for (int64_t r = 0; r < t.rows; ++r) info(t.codec).decode(t, r, 0, t.cols, out.data() + r * t.cols);
  return out;
}

// A tensor whose planes lie apart, every row followed by a gap, everything filled with `poison` at first.
class GuardedTensor {
 public:
  GuardedTensor(const CodecCase& c, int64_t rows, uint8_t poison) : poison_(poison) {
    StorageOptions options;
    options.span = c.span;
    options.order = c.order;
    t = place_tensor(nullptr, c.format, rows, c.cols, options);
    const RowBytes bytes = info(t.codec).row_bytes(t.cols, t.groups());
    place(t.data, bytes.data, rows);
    place(t.high, bytes.high, rows);
    place(t.scale, bytes.scale, rows);
    place(t.aux, bytes.aux, rows);
  }
  Tensor t;

  // The bytes of rows [r0, r0 + n), plane after plane.
  std::vector<uint8_t> row_bytes(int64_t r0, int64_t n) const {
    std::vector<uint8_t> out;
    for (const Part& part : parts_) {
      for (int64_t r = r0; r < r0 + n; r += part.plane.rows) {
        const uint8_t* p = part.plane.row<const uint8_t>(r);
        out.insert(out.end(), p, p + part.bytes);
      }
    }
    return out;
  }
  // Bytes outside rows [r0, r0 + n) that are no longer poison.
  int64_t touched_outside(int64_t r0, int64_t n) const {
    int64_t touched = 0;
    for (const Part& part : parts_) {
      std::vector<uint8_t> rest = *part.memory;
      for (int64_t r = r0; r < r0 + n; r += part.plane.rows) {
        const int64_t at = part.plane.row<const uint8_t>(r) - part.memory->data();
        std::fill_n(rest.begin() + at, part.bytes, poison_);
      }
      for (const uint8_t b : rest) touched += b != poison_;
    }
    return touched;
  }

 private:
  struct Part {
    Plane plane;
    int64_t bytes;
    std::unique_ptr<std::vector<uint8_t>> memory;
  };
  void place(Plane& plane, int64_t bytes, int64_t rows) {
    if (bytes == 0) return;
    plane.pitch = (bytes + 3) / 4 * 4 + 64;
    const int64_t spans = (rows + plane.rows - 1) / plane.rows;
    auto memory = std::make_unique<std::vector<uint8_t>>(size_t(64 + spans * plane.pitch), poison_);
    plane.ptr = reinterpret_cast<std::byte*>(memory->data() + 64);
    parts_.push_back({plane, bytes, std::move(memory)});
  }
  uint8_t poison_;
  std::vector<Part> parts_;
};

}  // namespace quire::testing_quant
