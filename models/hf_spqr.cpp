// SpQR as its inference library writes it: 3-bit codes in tiles of 16 x 16 with scales and zeros that are 3-bit codes
// themselves, and a list of outliers. Of a module (O, I): dense_weights I64, a word for each row of a tile, tiles in
// order of rows; of a word, lowest bits first: 3 bits of the row's scale, 3 of its zero, 16 codes of 3 bits, and 8 bits
// of the tile's u64 of four F16 (scale of scales, scale of zeros, zero of scales, zero of zeros), byte k / 2 in row k.
// Then
//   s = ss (code_s - zs),  z = sz (code_z - zz),  value = s (code - z) + outlier,
// each step rounded to F16. Outliers: row_offsets I32, O + 1 (rows one after the other) or O / 16 + 1 (entry j of 16
// rows is of row j % 16, padded with zeros); col_vals I32, the column in the low half, an F16 in the high one. in_perm
// I32, two columns a word. It runs as spqr3 with the outliers beside it, every number as the file has it.
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

  // Of the tile whose first word this is: scale of scales, scale of zeros, zero of scales, zero of zeros.
  uint64_t second_bits(int64_t first) const {
    uint64_t bits = 0;
    for (int64_t k = 0; k < kSide; ++k) bits |= (word(first + k) >> 54 & 0xFF) << (8 * (k / 2));
    return bits;
  }
  std::array<float, 4> second_level(int64_t first) const {
    const uint64_t bits = second_bits(first);
    std::array<float, 4> part;
    for (size_t i = 0; i < 4; ++i) part[i] = f16_to_f32(uint16_t(bits >> (16 * i)));
    return part;
  }

  // f(row, column, value) for the outliers of span after span, without padding.
  template <class Fn>
  void for_outliers(Fn&& f) const {
    for (int64_t span = 0; span < spans; ++span) {
      for (int64_t j = offset(span); j < offset(span + 1); ++j) {
        const uint32_t entry = load_word(col_vals.data(), j);
        if (spans < rows && (entry >> 16 & 0x7FFF) == 0) continue;
        f(row_of(span, j), int64_t(entry & 0xFFFF), uint16_t(entry >> 16));
      }
    }
  }

  SparseMatrix outliers() const {
    SparseMatrix made;
    made.cols = cols;
    made.begins.assign(size_t(rows + 1), 0);
    for_outliers([&](int64_t r, int64_t, uint16_t) { ++made.begins[size_t(r + 1)]; });
    for (size_t r = 0; r < size_t(rows); ++r) made.begins[r + 1] += made.begins[r];
    made.entries.resize(size_t(made.begins.back()));
    std::vector<int32_t> next(made.begins.begin(), made.begins.end() - 1);
    for_outliers([&](int64_t r, int64_t c, uint16_t value) {
      made.entries[size_t(next[size_t(r)]++)] = uint32_t(c) | uint32_t(value) << 16;
    });
    return made;
  }

  // Into zeroed planes.
  void fill(const Tensor& to) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t g = 0; g < to.groups(); ++g) {
        const int64_t first = (r / kSide * to.groups() + g) * kSide;
        const uint64_t w = word(first + r % kSide), second = second_bits(first);
        uint8_t* tile = to.scale.row<uint8_t>(r) + g * Spqr3::kTileBytes;
        std::memcpy(tile, &second, 8);
        Spqr3::put_codes(tile, int(r % kSide), uint32_t(w & 7), uint32_t(w >> 3 & 7));
        uint8_t codes[kSide];
        for (int64_t c = 0; c < kSide; ++c) codes[c] = uint8_t(w >> (6 + 3 * c) & 7);
        Spqr3::Planes::write(to, r, to.group_begin(g), to.group_end(g) - to.group_begin(g), codes);
      }
    }
  }
};

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
    check(module != "model.embed_tokens", "'{}': the embedding is quantized by SpQR, which cannot be read",
          source_.path());
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
    const int64_t outliers = check_matrix(module, m);
    const std::string name = module + ".weight";
    CheckpointTensor& t = source_.builder.add_made(name, name, {id<Spqr3>, Spqr3::kGroup}, shape.rows, shape.cols,
                                                   {m.words}, [m](const Tensor& to) { m.fill(to); });
    t.input = order_of(module, shape.cols);
    if (outliers > 0) {
      source_.builder.add_outliers(outliers, {m.offsets, m.col_vals}, [m] { return m.outliers(); });
    }
  }

  std::string words() const {
    check(modules_ > 0,
          "'{}': the configuration says that weights are quantized by SpQR, but there is no "
          "'.dense_weights'",
          source_.path());
    return "SpQR, 3 bits in tiles of 16 x 16 and outliers";
  }

 private:
  // Gives the number of outliers.
  int64_t check_matrix(const std::string& module, const SpqrMatrix& m) const {
    const auto bad = [&](const char* what) {
      fail(fmt::format("'{}': '{}' {}", source_.path(), printable(module), what));
    };
    const int64_t entries = int64_t(m.col_vals.size()) / 4;
    if (m.offset(0) != 0) bad("has outliers that begin after 0");
    for (int64_t i = 0; i < m.spans; ++i) {
      if (m.offset(i + 1) < m.offset(i) || m.offset(i + 1) > entries) bad("has row_offsets out of range");
    }
    float outlier = 0, dense = 0;
    int64_t outliers = 0;
    m.for_outliers([&](int64_t, int64_t c, uint16_t bits) {
      const float v = f16_to_f32(bits);
      if (c >= m.cols) bad("has an outlier beyond its columns");
      if (!std::isfinite(v)) bad("has an outlier that is not finite");
      outlier = std::max(outlier, std::abs(v));
      ++outliers;
    });
    // Nothing may leave F16: neither scales and zeros nor what they give. NaN fails too.
    for (int64_t tile = 0; tile < m.rows * ((m.cols + kSide - 1) / kSide); tile += kSide) {
      const auto part = m.second_level(tile);
      const float s = std::abs(part[0]) * (7 + std::abs(part[2])), z = std::abs(part[1]) * (7 + std::abs(part[3]));
      if (!(s <= kMost && z <= kMost && s * (7 + z) <= kMost)) bad("has second-level scales or zeros that leave F16");
      dense = std::max(dense, s * (7 + z));
    }
    // The library's own sum of the two is an F16.
    if (dense + outlier > kMostF16) bad("has outliers that leave F16 with what they are added to");
    return outliers;
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
