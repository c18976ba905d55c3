// Perplexity of a text in chunks, as llama.cpp measures it, and divergence from a reference.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "apps/kl_file.h"
#include "engine/engine.h"

namespace quire {

// The text cut into chunks of `context` tokens without overlap; a rest is left out. Each chunk stands alone. Of each
// the second half is scored: the tokens at positions context/2 + 1 .. context - 1, predicted from everything before
// them.
struct ChunkedText {
  std::vector<int32_t>
      tokens;  // (chunks, context); the first of each is the beginning-of-text token where models want one
  int64_t context = 0, chunks = 0;

  std::span<const int32_t> chunk(int64_t c) const {
    return std::span(tokens).subspan(size_t(c * context), size_t(context));
  }
  int64_t first() const { return context / 2; }             // the first position whose prediction is scored
  int64_t scored() const { return context - 1 - first(); }  // predictions a chunk
};
// chunks < 0: all. Error if the text is shorter than one chunk.
ChunkedText chunk_text(const Tokenizer& tokenizer, const std::string& text, int64_t context, int64_t chunks);

struct PerplexityResult {
  int64_t tokens = 0;  // scored
  double nll = 0.0;    // mean, nats
  double perplexity = 0.0, uncertainty = 0.0;
  bool compared = false;  // the rest is against a reference
  double kl_mean = 0.0, kl_uncertainty = 0.0, kl_median = 0.0, kl_p99 = 0.0, kl_max = 0.0;
  double same_top = 0.0;  // fraction of positions
  double reference_perplexity = 0.0;
};

struct PerplexityJob {
  int64_t parallel = 1;        // chunks in the engine at once
  KlWriter* writer = nullptr;  // at most one of the two
  const KlReader* reader = nullptr;
  std::function<void(int64_t done, int64_t chunks, double perplexity)> on_chunk;
};
PerplexityResult measure_perplexity(Engine& engine, const ChunkedText& text, const PerplexityJob& job);

}  // namespace quire
