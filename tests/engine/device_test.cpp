// Which device an engine takes, and that a GPU gives what the CPU gives.
#include "engine/device.h"

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

TEST(EngineDevice, Names) {
  const EngineDevice cpu("cpu");
  EXPECT_EQ(cpu.kind(), Device::cpu);
  EXPECT_EQ(cpu.name(), "cpu");
  EXPECT_EQ(cpu.stream(), nullptr);
  for (const char* bad : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "CPU"}) {
    expect_error([&] { EngineDevice d(bad); }, {"device", bad, "auto, cpu, cuda, cuda:N"});
  }
  expect_error([&] { EngineDevice d("cuda:4096"); }, {"there is no device cuda:4096", "cpu"});
  const EngineDevice best("auto");
  EXPECT_EQ(best.kind(), gpu_is_here() ? Device::cuda : Device::cpu);
  if (!gpu_is_here()) expect_error([&] { EngineDevice d("cuda"); }, {"there is no device cuda", "cpu only"});
}

using Tokens = std::map<int64_t, std::vector<int32_t>>;

Tokens generate(const std::string& path, const char* scheme, const char* device) {
  EngineOptions options;
  options.model = path;
  options.scheme = scheme;
  options.device = device;
  options.max_batch = 3;
  options.chunk = 40;
  options.context = 256;
  const auto engine = Engine::open(options);
  for (int i = 0; i < 6; ++i) {
    Request r;
    for (int j = 0; j < 5 + i * 33; ++j) r.prompt.push_back(3 + (i * 7919 + j * j * 31 + j * 17) % 290);
    r.max_tokens = 20 + i;
    r.ignore_eos = true;
    r.sampler.seed = uint64_t(i);
    r.sampler.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    if (i == 3) r.sampler.top_k = 20, r.sampler.repetition_penalty = 1.2f;
    if (i == 5) r.sampler.top_p = 0.9f, r.sampler.frequency_penalty = 0.3f, r.sampler.logit_bias = {{7, 2.0f}};
    if (i == 4) r.top_logprobs = 2;  // logits come to the host
    engine->submit(std::move(r));
  }
  Tokens out;
  while (engine->busy()) {
    for (const Event& e : engine->step()) {
      EXPECT_EQ(e.error, "");
      for (const GeneratedToken& t : e.tokens) out[e.request].push_back(t.token);
    }
  }
  return out;
}

TEST(EngineDevice, AGpuGivesTheTokensOfTheCpu) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  TempDir dir;
  const std::string path = write_tiny_gguf(make_tiny_model({.head_dim = 32, .matrices = id<Q4_1>}), dir.file("t.gguf"));
  for (const char* scheme : {"f32", "", "w8a8kv8", "w4a8kv4", "w8a8g64kv2"}) {
    const Tokens expected = generate(path, scheme, "cpu");
    EXPECT_EQ(expected.size(), 6u);
    EXPECT_EQ(generate(path, scheme, "cuda"), expected) << scheme;
  }
}

}  // namespace
}  // namespace quire
