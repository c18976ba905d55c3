// The file of --kl-base: what a reference model said at every scored position of a text, to compare others with.
//
//   offset 0   char[8]  "QUIREKL1"
//          8   int64    context, vocabulary, chunks, scored positions a chunk
//         40   int32    the tokens (chunks, context): a reader checks that it scores the same text
//         then f16      log-probabilities (chunks, scored, vocabulary), natural logarithm
//
// Little endian. f16 rounds a log-probability l by at most |l| / 2048. A reader normalises each row again, so that the
// rounding enters the KL divergence only squared: about 1e-6 nats, which is the floor of what it can tell apart.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/output_file.h"

namespace quire {

struct KlShape {
  int64_t context, vocab, chunks, scored;
};

// Rows may come in any order; finish() puts the file in place whole. Without it nothing stays behind.
class KlWriter {
 public:
  KlWriter(std::string path, const KlShape& shape, std::span<const int32_t> tokens);
  void write_row(int64_t chunk, int64_t i, std::span<const float> logits, double shift);  // logits (V)
  void finish() { file_.commit(); }

 private:
  OutputFile file_;
  KlShape shape_;
  std::vector<uint16_t> row_;
};

struct KlRow {
  double divergence;     // of the model from the reference
  bool same_top;         // both find the same token likeliest
  double reference_nll;  // of the token that follows
};

class KlReader {
 public:
  // Error if the file is damaged, or about another text, vocabulary or context.
  KlReader(const std::string& path, const KlShape& shape, std::span<const int32_t> tokens);
  KlRow compare(int64_t chunk, int64_t i, std::span<const float> logits, double shift, int32_t next) const;

 private:
  MappedFile file_;
  KlShape shape_;
  const std::byte* rows_ = nullptr;
};

}  // namespace quire
