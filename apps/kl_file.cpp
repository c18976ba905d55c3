#include "apps/kl_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/scalar.h"

namespace quire {

namespace {

constexpr char kMagic[9] = "QUIREKL1";
constexpr int64_t kHeader = 40;

int64_t rows_offset(const KlShape& s) { return kHeader + s.chunks * s.context * int64_t(sizeof(int32_t)); }
int64_t row_bytes(const KlShape& s) { return s.vocab * int64_t(sizeof(uint16_t)); }
int64_t row_offset(const KlShape& s, int64_t chunk, int64_t i) {
  return rows_offset(s) + (chunk * s.scored + i) * row_bytes(s);
}

}  // namespace

KlWriter::KlWriter(std::string path, const KlShape& shape, std::span<const int32_t> tokens)
    : file_(std::move(path)), shape_(shape), row_(size_t(shape.vocab)) {
  const std::array<int64_t, 4> numbers = {shape.context, shape.vocab, shape.chunks, shape.scored};
  file_.write_at(0, std::as_bytes(std::span(kMagic, 8)));
  file_.write_at(8, std::as_bytes(std::span(numbers)));
  file_.write_at(kHeader, std::as_bytes(tokens));
}

void KlWriter::write_row(int64_t chunk, int64_t i, std::span<const float> logits, double shift) {
  constexpr double kLeast = -65504.0;  // f16 has no more
  for (size_t v = 0; v < row_.size(); ++v) row_[v] = f32_to_f16(float(std::max(double(logits[v]) - shift, kLeast)));
  file_.write_at(row_offset(shape_, chunk, i), std::as_bytes(std::span(row_)));
}

KlReader::KlReader(const std::string& path, const KlShape& shape, std::span<const int32_t> tokens)
    : file_(path), shape_(shape) {
  const std::byte* bytes = file_.bytes().data();
  const int64_t size = int64_t(file_.bytes().size());
  check(size >= kHeader && std::memcmp(bytes, kMagic, 8) == 0, "'{}' is no file that --kl-base wrote", path);
  int64_t numbers[4];
  std::memcpy(numbers, bytes + 8, sizeof(numbers));
  const auto [context, vocab, chunks, scored] = numbers;
  check(context == shape.context && vocab == shape.vocab && scored == shape.scored,
        "'{}' is of context {} and vocabulary {}; here they are {} and {}", path, context, vocab, shape.context,
        shape.vocab);
  check(chunks >= shape.chunks, "'{}' holds {} chunks, {} are to be compared; --chunks {} would do", path, chunks,
        shape.chunks, chunks);
  check(chunks <= size / (context * int64_t(sizeof(int32_t))), "'{}' announces {} chunks, and has {} bytes", path,
        chunks,
        size);  // so that the sizes below are numbers
  const KlShape whole{context, vocab, chunks, scored};
  check(size == row_offset(whole, chunks, 0), "'{}' has {} bytes and should have {}", path, size,
        row_offset(whole, chunks, 0));
  check(std::memcmp(bytes + kHeader, tokens.data(), tokens.size_bytes()) == 0, "'{}' was made from another text", path);
  rows_ = bytes + rows_offset(whole);
}

KlRow KlReader::compare(int64_t chunk, int64_t i, std::span<const float> logits, double shift, int32_t next) const {
  std::vector<uint16_t> row(size_t(shape_.vocab));
  std::memcpy(row.data(), rows_ + (chunk * shape_.scored + i) * row_bytes(shape_), row.size() * sizeof(uint16_t));
  double mass = 0.0, sum = 0.0;
  size_t top = 0, reference_top = 0;
  float highest = -INFINITY;
  for (size_t v = 0; v < row.size(); ++v) {
    const float reference = f16_to_f32(row[v]);
    const double p = double(std::exp(reference));
    mass += p;
    sum += p * (double(reference) - (double(logits[v]) - shift));
    if (logits[v] > logits[top]) top = v;
    if (reference > highest) {
      highest = reference;
      reference_top = v;
    }
  }
  // Several tokens may share the reference's rounded maximum: agreeing with any of them is agreeing.
  const bool same = top == reference_top || f16_to_f32(row[top]) == highest;
  const double normaliser = std::log(mass);
  return {sum / mass - normaliser, same, normaliser - double(f16_to_f32(row[size_t(next)]))};
}

}  // namespace quire
