// SpQR as its inference library writes it: 3-bit codes in tiles of 16 x 16 with scales and zeros that are 3-bit codes
// themselves, and a list of outliers. Of a module (O, I): dense_weights I64, a word for each row of a tile, tiles in
// order of rows; of a word, lowest bits first: 3 bits of the row's scale, 3 of its zero, 16 codes of 3 bits, and 8 bits
// of the tile's u64 of four F16 (scale of scales, scale of zeros, zero of scales, zero of zeros), byte k / 2 in row k.
// Then
//   s = ss (code_s - zs),  z = sz (code_z - zz),  value = s (code - z) + outlier,
// each step rounded to F16. Outliers: row_offsets I32, O + 1 (rows one after the other) or O / 16 + 1 (entry j of 16
// rows is of row j % 16); col_vals I32, the column in the low half, an F16 in the high one. in_perm I32, two columns a
// word. It runs as the F16 matrix that the library's own `dequantize` gives: bit for bit its values, in 16 bits.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "models/hf_quantized.h"

namespace quire {

namespace {

using Bytes = std::span<const std::byte>;
constexpr int64_t kSide = 16;
constexpr float kMost = 60000.0f, kMostF16 = 65504.0f;

float half(float x) { return f16_to_f32(f32_to_f16(x)); }

struct SpqrMatrix {
  int64_t rows, cols;
  Bytes words, offsets, col_vals;
  int64_t spans;  // of rows that an entry of offsets begins: rows or rows / 16

  uint64_t word(int64_t i) const {
    uint64_t w;
    std::memcpy(&w, words.data() + 8 * i, 8);
    return w;
  }
  int64_t offset(int64_t i) const { return int32_t(load_word(offsets.data(), i)); }
  int64_t row_of(int64_t span, int64_t j) const { return spans == rows ? span : span * kSide + j % kSide; }

  // Scale of scales, scale of zeros, zero of scales, zero of zeros of the tile whose first word this is.
  std::array<float, 4> second_level(int64_t first) const {
    uint64_t bits = 0;
    for (int64_t k = 0; k < kSide; ++k) bits |= (word(first + k) >> 54 & 0xFF) << (8 * (k / 2));
    std::array<float, 4> part;
    for (size_t i = 0; i < 4; ++i) part[i] = f16_to_f32(uint16_t(bits >> (16 * i)));
    return part;
  }

  void decode_tile(int64_t tile_row, int64_t tile_col, float* out) const {  // out (16, cols) from its first column
    const int64_t first = (tile_row * ((cols + kSide - 1) / kSide) + tile_col) * kSide;
    const std::array<float, 4> part = second_level(first);
    for (int64_t k = 0; k < kSide; ++k) {
      const uint64_t w = word(first + k);
      const float s = half(part[0] * half(float(w & 7) - part[2]));
      const float z = half(part[1] * half(float(w >> 3 & 7) - part[3]));
      for (int64_t c = tile_col * kSide; c < std::min(cols, (tile_col + 1) * kSide); ++c) {
        const int q = int(w >> (6 + 3 * (c % kSide)) & 7);
        out[k * cols + c] = half(s * half(float(q) - z));
      }
    }
  }

  // f(row, column, value) for the outliers of spans [begin, end).
  template <class Fn>
  void for_outliers(int64_t begin, int64_t end, Fn&& f) const {
    for (int64_t span = begin; span < end; ++span) {
      for (int64_t j = offset(span); j < offset(span + 1); ++j) {
        const uint32_t entry = load_word(col_vals.data(), j);
        f(row_of(span, j), int64_t(entry & 0xFFFF), f16_to_f32(uint16_t(entry >> 16)));
      }
    }
  }
};

void fill_spqr(const SpqrMatrix& m, const Tensor& to) {
  std::vector<float> block(size_t(kSide * m.cols));
  for (int64_t tile_row = 0; tile_row < m.rows / kSide; ++tile_row) {
    for (int64_t tile_col = 0; tile_col * kSide < m.cols; ++tile_col) m.decode_tile(tile_row, tile_col, block.data());
    const int64_t per_tile = m.spans == m.rows ? kSide : 1, first = tile_row * per_tile;
    m.for_outliers(first, first + per_tile,
                   [&](int64_t r, int64_t c, float v) { block[size_t(r % kSide * m.cols + c)] += v; });
    info(id<F16>).encode(to, tile_row * kSide, kSide, block.data(), m.cols, ScaleSource::found);
  }
}

class SpqrReader {
 public:
  explicit SpqrReader(const QuantizedSource& source) : source_(source) {
    for (const auto& [key, wanted] : {std::pair{"bits", 3}, {"beta1", 16}, {"beta2", 16}}) {
      const int64_t value = source.options.integer(key).value_or(wanted);
      check(value == wanted, "{}: {} is {}; SpQR with {} can be read", source.options.where(), key, value, wanted);
    }
  }

  void add(const std::string& module, TensorShape shape) {
    if (!source_.entries.has(module + ".dense_weights")) return;  // in floats, which the frame adds
    ++modules_;
    check(shape.rows % kSide == 0 && shape.cols <= 65536,
          "'{}': '{}' ({}, {}) is no matrix of SpQR: 16 n outputs, at most 65536 inputs", source_.path(),
          printable(module), shape.rows, shape.cols);
    const auto length = [&](const char* name, int64_t bytes) {
      const SafetensorsTensor* t = source_.entries.find(module + name);
      check(t != nullptr, "'{}': tensor '{}{}' is missing", source_.path(), printable(module), name);
      return int64_t(t->bytes.size()) / bytes;
    };
    const int64_t words = shape.rows * ((shape.cols + kSide - 1) / kSide), starts = length(".row_offsets", 4) - 1;
    check(starts == shape.rows || starts == shape.rows / kSide,
          "'{}': tensor '{}.row_offsets' has {} values for {} rows", source_.path(), printable(module), starts + 1,
          shape.rows);
    SpqrMatrix m{shape.rows,
                 shape.cols,
                 source_.entries.take(module + ".dense_weights", "I64", {words}),
                 source_.entries.take(module + ".row_offsets", "I32", {starts + 1}),
                 source_.entries.take(module + ".col_vals", "I32", {length(".col_vals", 4)}),
                 starts};
    check_matrix(module, m);
    const std::string name = module + ".weight";
    CheckpointTensor& t =
        source_.builder.add_made(name, name, {id<F16>, 0}, shape.rows, shape.cols, {m.words, m.offsets, m.col_vals},
                                 [m](const Tensor& to) { fill_spqr(m, to); });
    t.input = order_of(module, shape.cols);
  }

  std::string words() const {
    check(modules_ > 0,
          "'{}': the configuration says that weights are quantized by SpQR, but there is no "
          "'.dense_weights'",
          source_.path());
    return "SpQR, 3 bits in tiles of 16 x 16 and outliers, as f16";
  }

 private:
  void check_matrix(const std::string& module, const SpqrMatrix& m) const {
    const auto bad = [&](const char* what) {
      fail(fmt::format("'{}': '{}' {}", source_.path(), printable(module), what));
    };
    const int64_t entries = int64_t(m.col_vals.size()) / 4;
    if (m.offset(0) != 0) bad("has outliers that begin after 0");
    for (int64_t i = 0; i < m.spans; ++i) {
      if (m.offset(i + 1) < m.offset(i) || m.offset(i + 1) > entries) bad("has row_offsets out of range");
    }
    float outlier = 0, dense = 0;
    m.for_outliers(0, m.spans, [&](int64_t, int64_t c, float v) {
      if (c >= m.cols) bad("has an outlier beyond its columns");
      if (!std::isfinite(v)) bad("has an outlier that is not finite");
      outlier = std::max(outlier, std::abs(v));
    });
    // Nothing may leave F16: neither scales and zeros nor what they give. NaN fails too.
    for (int64_t tile = 0; tile < m.rows * ((m.cols + kSide - 1) / kSide); tile += kSide) {
      const auto part = m.second_level(tile);
      const float s = std::abs(part[0]) * (7 + std::abs(part[2])), z = std::abs(part[1]) * (7 + std::abs(part[3]));
      if (!(s <= kMost && z <= kMost && s * (7 + z) <= kMost)) bad("has second-level scales or zeros that leave F16");
      dense = std::max(dense, s * (7 + z));
    }
    if (dense + outlier > kMostF16) bad("has outliers that leave F16 with what they are added to");
  }

  std::shared_ptr<const InputTransform> order_of(const std::string& module, int64_t cols) const {
    const std::string name = module + ".in_perm";
    const SafetensorsTensor* t = source_.entries.find(name);
    if (!t) return nullptr;
    const auto bytes =
        source_.entries.take(name, "I32", t->bytes.empty() ? std::vector<int64_t>{0} : std::vector<int64_t>{cols / 2});
    auto input = std::make_shared<InputTransform>();
    std::vector<bool> seen(size_t(cols), false);
    bool moved = false;
    for (int64_t c = 0; c < int64_t(bytes.size()) / 2; ++c) {
      uint16_t column;
      std::memcpy(&column, bytes.data() + 2 * c, 2);
      check(column < cols && !seen[column], "'{}': tensor '{}' is no order of {} columns", source_.path(),
            printable(name), cols);
      seen[column] = true;
      moved = moved || column != c;
      input->order.push_back(column);
    }
    return moved ? input : nullptr;
  }

  const QuantizedSource& source_;
  int64_t modules_ = 0;
};

}  // namespace

std::string add_spqr_tensors(const QuantizedSource& source) {
  SpqrReader reader(source);
  source.for_each_matrix([&](const std::string& module, TensorShape shape) { reader.add(module, shape); });
  return reader.words();
}

}  // namespace quire
