// Engines on random weights: what is planned is what they take, on the CPU and on a GPU.
#include <gtest/gtest.h>

#include <fstream>

#include "engine/engine.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

EngineOptions dummy_options(const std::string& config, const char* device, const char* scheme) {
  EngineOptions options;
  options.model = config;
  options.dummy = true;
  options.device = device;
  options.scheme = scheme;
  options.max_batch = 4;
  options.context = 2048;
  return options;
}

Request request_of(int64_t prompt, int64_t answer) {
  Request r;
  for (int64_t i = 0; i < prompt; ++i) r.prompt.push_back(int32_t(i * 37 % 500));
  r.max_tokens = answer;
  return r;
}

int64_t generated_by(Engine& engine) {
  int64_t tokens = 0;
  while (engine.busy()) {
    for (const Event& e : engine.step()) {
      EXPECT_EQ(e.error, "");
      tokens += int64_t(e.tokens.size());
    }
  }
  return tokens;
}

TEST(DummyEngine, PlansAndRuns) {
  const TempDir dir;
  const std::string config = dir.file("small.json");
  std::ofstream(config) << R"({"model_type": "llama", "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500,
    "max_position_embeddings": 256})";
  for (const char* scheme : {"", "f16", "w8a8kv8", "w4a8kv4", "w4a16kv8", "w8a8kv2"}) {
    EngineOptions options = dummy_options(config, "cpu", scheme);
    options.plan_only = true;
    const auto planned = Engine::open(options);
    expect_error([&] { planned->submit(request_of(4, 1)); }, {"plan only"});
    options.plan_only = false;
    const auto engine = Engine::open(options);
    EXPECT_EQ(planned->memory().total(), engine->memory().total()) << scheme;
    EXPECT_EQ(planned->description(), engine->description());
    EXPECT_EQ(engine->context(), 2048);  // beyond what the configuration says: the weights know no positions
    for (int i = 0; i < 3; ++i) engine->submit(request_of(300, 5));
    EXPECT_EQ(generated_by(*engine), 15) << scheme;  // activations and logits stay finite
  }
}

// The device never holds more than the plan and 512 MB, while loading and while running; the weights alone are more
// than that, and so is each matrix of the head in f32.
TEST(DummyEngine, TheGpuHoldsThePlanAndLittleMore) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  if constexpr (kCuda) {
    for (const char* scheme : {"f16", "w8a8kv8", "w4a8kv4", "w4a16kv8"}) {
      const int64_t before = cuda::allocated(), free_before = cuda::free_memory();
      cuda::reset_allocated_peak();
      const auto engine = Engine::open(dummy_options("llama-3-8b", "cuda", scheme));
      const MemoryPlan plan = engine->memory();
      EXPECT_GE(cuda::allocated() - before, plan.weights + plan.cache) << scheme;
      for (int i = 0; i < 4; ++i) engine->submit(request_of(1500, 8));
      EXPECT_EQ(generated_by(*engine), 32) << scheme;
      EXPECT_LE(cuda::allocated_peak() - before, plan.total() + (512 << 20)) << scheme;
      EXPECT_LE(free_before - cuda::free_memory(), plan.total() + (512 << 20)) << scheme;
    }
  }
}

}  // namespace
}  // namespace quire
