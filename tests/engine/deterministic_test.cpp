// With EngineOptions.deterministic a request gives the same bits alone, beside others and however its prompt is cut.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/engine.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

struct Answer {
  std::vector<std::vector<float>> logits;  // of every prompt position
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};

Request request(int seed, int64_t prompt, int64_t tokens) {
  Request r;
  for (int64_t i = 0; i < prompt; ++i) r.prompt.push_back(int32_t(3 + (seed * 7919 + i * i * 31 + i * 17) % 290));
  r.max_tokens = tokens;
  r.ignore_eos = true;
  r.top_logprobs = 0;
  return r;
}

// One request among `others`, in steps of at most `chunk` prompt tokens.
Answer answer(const std::string& path, const char* scheme, bool deterministic, int others, int64_t chunk) {
  EngineOptions options;
  options.model = path;
  options.scheme = scheme;
  options.context = 256;
  options.max_batch = 8;
  options.chunk = chunk;
  options.deterministic = deterministic;
  const auto engine = Engine::open(options);
  for (int i = 0; i < others / 2; ++i) engine->submit(request(i + 1, 1 + 29 * i, 25));
  Answer out;
  Request r = request(0, 150, 30);
  r.on_logits = [&](int64_t, std::span<const float> row) { out.logits.emplace_back(row.begin(), row.end()); };
  const int64_t id = engine->submit(std::move(r));
  for (int i = others / 2; i < others; ++i) engine->submit(request(i + 1, 2 + 31 * i, 40));
  while (engine->busy()) {
    for (const Event& e : engine->step()) {
      EXPECT_EQ(e.error, "");
      for (const GeneratedToken& t : e.tokens) {
        if (e.request != id) continue;
        out.tokens.push_back(t.token);
        out.logprobs.push_back(t.logprob);
      }
    }
  }
  EXPECT_EQ(out.logits.size(), 150u);
  EXPECT_EQ(out.tokens.size(), 30u);
  return out;
}

class Deterministic : public testing::TestWithParam<const char*> {};

TEST_P(Deterministic, NeitherTheBatchNorChunksMatter) {
  const char* scheme = GetParam();
  TempDir dir;
  // Heads of 64: what attention on tensor cores takes.
  const std::string path =
      write_tiny_gguf(make_tiny_model({.hidden = 128, .head_dim = 64, .matrices = id<F16>}), dir.file("tiny.gguf"));
  const Answer alone = answer(path, scheme, true, 0, 512);
  const auto expect_same = [&](const Answer& got, const std::string& what) {
    ASSERT_EQ(got.logits.size(), alone.logits.size());
    for (size_t i = 0; i < got.logits.size(); ++i)
      ASSERT_EQ(first_difference(got.logits[i], alone.logits[i]), "") << scheme << " " << what << ", position " << i;
    EXPECT_EQ(got.tokens, alone.tokens) << scheme << " " << what;
    EXPECT_EQ(first_difference(got.logprobs, alone.logprobs), "") << scheme << " " << what;
  };
  expect_same(answer(path, scheme, true, 7, 512), "in a batch of 8");
  expect_same(answer(path, scheme, true, 0, 17), "in chunks of 17");
  expect_same(answer(path, scheme, true, 3, 5), "in chunks of 5 beside 3");
  if (!gpu_is_here()) return expect_same(answer(path, scheme, false, 7, 40), "by default on the CPU");
  // The default takes other cuts of the same sums: as much as rounding q and the weights of attention to f16 may
  // change, in the mean square (tests/models/decoder_invariants_test.cpp), where no code of a quantized activation or
  // cache can fall on the other side.
  if (std::string(scheme) != "f32" && std::string(scheme) != "f16") return;
  const Answer usual = answer(path, scheme, false, 7, 40);
  double error = 0, size = 0;
  for (size_t i = 0; i < usual.logits.size(); ++i) {
    for (size_t v = 0; v < usual.logits[i].size(); ++v) {
      error += std::pow(double(usual.logits[i][v]) - alone.logits[i][v], 2);
      size += std::pow(double(alone.logits[i][v]), 2);
    }
  }
  EXPECT_LE(std::sqrt(error), 2 * (4 * 2 + 1) * 0x1.0p-11 * std::sqrt(size)) << scheme;
}

INSTANTIATE_TEST_SUITE_P(Schemes, Deterministic,
                         testing::Values("f32", "f16", "w8a8kv8", "w4a16kv4", "w4a8kv4row", "w8a8g64kv2"));

}  // namespace
}  // namespace quire
