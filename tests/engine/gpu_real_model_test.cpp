// The real model on a GPU against the CPU: logits, perplexity and greedy ids. Both round sums, exponentials and norms
// in other orders, and a value that falls on the other side of a rounding boundary becomes another code. At worst that
// draws all of the scheme's rounding errors anew: the difference of two draws is sqrt(2) of one, which is the bound.
#include <gtest/gtest.h>

#include <cmath>

#include "base/mapped_file.h"
#include "engine/engine.h"
#include "kernels/sample.h"
#include "tests/op_test.h"
#include "tests/test_data.h"

namespace quire {
namespace {

constexpr int64_t kPrompt = 256, kAnswer = 48, kLayers = 30;

struct Answer {
  std::vector<std::vector<float>> logits;  // of every prompt position
  std::vector<int32_t> tokens;             // greedy after it
  std::vector<float> margins;              // of each: the largest logit less the next
};

std::vector<int32_t> prompt_of(const Engine& engine) {
  const MappedFile text(test_text());
  const std::string_view head(reinterpret_cast<const char*>(text.bytes().data()), 4000);
  std::vector<int32_t> ids = engine.tokenizer().encode(std::string(head));
  ids.resize(size_t(kPrompt));
  return ids;
}

Answer run_on(const char* device, const char* scheme) {
  EngineOptions options;
  options.model = test_model();
  options.scheme = scheme;
  options.device = device;
  options.max_batch = 1;
  options.context = 512;
  const auto engine = Engine::open(options);
  Answer out;
  Request r;
  r.prompt = prompt_of(*engine);
  r.max_tokens = kAnswer;
  r.ignore_eos = true;
  r.top_logprobs = 2;
  r.on_logits = [&](int64_t, std::span<const float> row) { out.logits.emplace_back(row.begin(), row.end()); };
  engine->submit(std::move(r));
  while (engine->busy()) {
    for (const Event& e : engine->step()) {
      EXPECT_EQ(e.error, "");
      for (const GeneratedToken& t : e.tokens) {
        out.tokens.push_back(t.token);
        out.margins.push_back(t.top.at(0).logprob - t.top.at(1).logprob);
      }
    }
  }
  EXPECT_EQ(int64_t(out.logits.size()), kPrompt);
  EXPECT_EQ(int64_t(out.tokens.size()), kAnswer);
  return out;
}

struct Difference {
  double rms = 0.0, largest = 0.0;
};
Difference difference(const Answer& a, const Answer& b) {
  Difference d;
  double squares = 0.0;
  for (size_t i = 0; i < a.logits.size(); ++i) {
    for (size_t v = 0; v < a.logits[i].size(); ++v) {
      const double e = std::fabs(double(a.logits[i][v]) - double(b.logits[i][v]));
      squares += e * e;
      d.largest = std::max(d.largest, e);
    }
  }
  d.rms = std::sqrt(squares / double(a.logits.size() * a.logits[0].size()));
  return d;
}

double nll(const Answer& r, std::span<const int32_t> ids) {
  double sum = 0.0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    sum += log_sum_exp(r.logits[i]) - double(r.logits[i][size_t(ids[i + 1])]);
  }
  return sum / double(ids.size() - 1);
}

class GpuRealModel : public testing::TestWithParam<const char*> {};

TEST_P(GpuRealModel, AgreesWithTheCpu) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  QUIRE_NEEDS_FILE(test_model());
  QUIRE_NEEDS_FILE(test_text());
  static const Answer exact = run_on("cpu", "f32");
  const std::string scheme = GetParam();
  const Answer cpu = scheme == "f32" ? exact : run_on("cpu", GetParam());
  const Answer gpu = run_on("cuda", GetParam());
  const Difference device = difference(cpu, gpu);
  // What the scheme costs. For f32, which costs nothing, a part of 2^-11: what rounding the model to halfs would.
  // Float activations become halfs on a GPU: four roundings a block and one before the head, independent of each other,
  // each at most 2^-11 (bf16: 2^-8) of what it rounds.
  Answer zero = exact;
  for (auto& row : zero.logits) std::fill(row.begin(), row.end(), 0.0f);
  const double size = difference(exact, zero).rms;
  double own = difference(cpu, exact).rms;
  if (scheme == "f32") own = size / 2048.0;
  if (scheme.find("16") != std::string::npos) {
    const double unit = scheme.rfind("bf16", 0) == 0 ? 0x1p-8 : 0x1p-11, roundings = 4 * kLayers + 1;
    own = std::hypot(own, std::sqrt(roundings) * unit * size);
  }
  EXPECT_LT(device.rms, std::sqrt(2.0) * own) << scheme;

  EngineOptions options;
  options.model = test_model();
  options.device = "cpu";
  options.context = 512;
  const auto engine = Engine::open(options);
  const std::vector<int32_t> ids = prompt_of(*engine);
  // A prediction's NLL is the difference of two numbers that are each off by device.rms; four deviations of their mean.
  EXPECT_NEAR(nll(gpu, ids), nll(cpu, ids), 4.0 * std::sqrt(2.0 / double(kPrompt - 1)) * device.rms) << scheme;

  for (size_t i = 0; i < cpu.tokens.size(); ++i) {
    if (cpu.tokens[i] == gpu.tokens[i]) continue;
    EXPECT_LT(cpu.margins[i], 2.0 * device.largest) << scheme << ": token " << i;
    break;  // from here on they read different texts
  }
  RecordProperty("device_rms", std::to_string(device.rms));
  RecordProperty("scheme_rms", std::to_string(own));
  RecordProperty("nll_cpu", std::to_string(nll(cpu, ids)));
  RecordProperty("nll_gpu", std::to_string(nll(gpu, ids)));
}

std::string name_of(const testing::TestParamInfo<const char*>& p) { return *p.param ? p.param : "own"; }
INSTANTIATE_TEST_SUITE_P(Schemes, GpuRealModel,
                         testing::Values("f32", "f16", "bf16", "", "w8a8", "w8a8g64", "w4a8", "w3a8", "w2a8", "w8a16",
                                         "w6a16", "wfp8a16", "w4a16", "w8a8kv8", "f16kvfp8", "w4a8kv4", "w8a8kv2",
                                         "f16kv3row"),
                         name_of);

}  // namespace
}  // namespace quire
