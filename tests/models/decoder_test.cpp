// The network against golden references, and its independence of batch, chunking and paging.
#include "models/decoder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/test_data.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

struct Machine {
  ThreadPool pool{2};
  Scratch scratch;
  Context ctx;
  Machine() {
    ctx.pool = &pool;
    ctx.scratch = &scratch;
  }
};

KvCacheConfig cache_config(const ModelConfig& c, const Scheme& scheme, int64_t tokens, int64_t slots) {
  KvCacheConfig cache;
  cache.layers = c.layers;
  cache.kv_heads = c.kv_heads;
  cache.head_dim = c.head_dim;
  cache.scheme = scheme.kv;
  cache.slots = slots;
  cache.max_tokens = tokens;
  cache.pages = slots * ((tokens + kPageTokens - 1) / kPageTokens);
  return cache;
}

struct Piece {
  int32_t slot;
  std::vector<int32_t> tokens;
};

// One step over pieces of several sequences; the logits of every row (T, V).
std::vector<std::vector<float>> step(Machine& m, const Decoder& d, KvCache& cache, const std::vector<Piece>& pieces) {
  Batch batch;
  for (const Piece& p : pieces) {
    const int64_t position = cache.length(p.slot);
    EXPECT_TRUE(cache.reserve(p.slot, int64_t(p.tokens.size())));
    batch.sequences.push_back({p.slot, batch.size(), int64_t(p.tokens.size()), position});
    for (size_t i = 0; i < p.tokens.size(); ++i) {
      batch.logits_rows.push_back(int32_t(batch.size()));
      batch.tokens.push_back(p.tokens[i]);
      batch.positions.push_back(int32_t(position + int64_t(i)));
    }
  }
  const OwnedTensor logits = make_tensor({id<F32>, 0}, batch.size(), d.config().vocab);
  d.forward(m.ctx, batch, cache, logits);
  std::vector<std::vector<float>> rows;
  for (int64_t r = 0; r < batch.size(); ++r) {
    const float* p = logits.tensor.data.row<const float>(r);
    rows.emplace_back(p, p + d.config().vocab);
  }
  return rows;
}

class GoldenGreedy : public testing::TestWithParam<const char*> {};

TEST_P(GoldenGreedy, MatchesTransformers) {
  QUIRE_NEEDS_FILE(test_model());
  std::ifstream file(source_file("tests/engine/golden_smollm2.json"));
  const nlohmann::json golden = nlohmann::json::parse(file);
  Machine m;
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  const Scheme scheme = parse_scheme(GetParam());
  const Decoder d = Decoder::load(m.ctx, checkpoint, scheme, 512);
  for (const auto& example : golden) {
    KvCache cache(cache_config(d.config(), scheme, 512, 1));
    const int32_t slot = cache.open();
    // The whole continuation in one go: the same bits as token by token (below and in tests/engine), and much faster.
    const std::vector<int32_t> prompt = example["prompt_ids"], greedy = example["greedy_ids"];
    std::vector<int32_t> tokens = prompt;
    tokens.insert(tokens.end(), greedy.begin(), greedy.end() - 1);
    const auto logits = step(m, d, cache, {{slot, tokens}});
    for (size_t i = 0; i < greedy.size(); ++i) {
      const std::vector<float>& row = logits[prompt.size() - 1 + i];
      const int32_t best = int32_t(std::max_element(row.begin(), row.end()) - row.begin());
      ASSERT_EQ(best, greedy[i]) << "token " << i << " after " << example["prompt"];
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Exact, GoldenGreedy, testing::Values("f32", "f16"));

}  // namespace
}  // namespace quire
