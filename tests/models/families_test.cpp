// Every family on tiny random models: the logits of transformers, from a directory and from a GGUF file; contexts
// longer than the window and than what the rope was first made for.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "models/checkpoint.h"
#include "models/rope_scaling.h"
#include "tests/engine_logits.h"
#include "tests/expect_error.h"
#include "tests/models/quantized_model.h"
#include "tests/models/tiny_family.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

struct RunOptions {
  std::string scheme = "f32", device = "cpu";
  int64_t chunk = 512, context = 256;
};

// The logits after each token (T, V).
std::vector<std::vector<float>> logits(const std::string& model, const std::vector<int32_t>& tokens,
                                       const RunOptions& o = {}) {
  EngineOptions options;
  options.model = model;
  options.scheme = o.scheme;
  options.device = o.device;
  options.threads = 2;
  options.context = o.context;
  options.cache_tokens = 256;
  options.max_batch = 1;
  options.chunk = o.chunk;
  options.memory_limit = int64_t{1} << 30;
  return logits_of(std::move(options), tokens);
}

class Families : public testing::TestWithParam<size_t> {
 protected:
  const GoldenJson& golden() const { return golden_families()[GetParam()]; }
  std::vector<int32_t> tokens() const { return golden()["tokens"]; }
  // LongRoPE chooses by the context that a model is run with, transformers by the tokens so far.
  int64_t context() const { return golden()["name"] == "phi 3 short" ? 64 : 256; }

  // A logit is relative to its sum of |h||w|, at most `magnitude`. Each of the 8 sums of a layer (norms, four products,
  // scores, weighted values, gate) and the head's rounds once a term of at most K, and rotations by as much as the
  // position is long; in either program. Not counted: keys and values are halfs in the cache, where transformers has
  // f32. That is most of what differs in fact, and less than the worst case of the rest.
  double tolerance() const {
    const GoldenJson& c = golden()["config"];
    const double k = double(std::max(c["intermediate_size"].get<int64_t>(), int64_t(tokens().size())));
    return 2.0 * (8.0 * double(c["num_hidden_layers"]) + 1.0) * k * 0x1p-24 * golden()["magnitude"].get<double>();
  }
  void expect_golden(const std::vector<std::vector<float>>& rows) const {
    ASSERT_EQ(rows.size(), tokens().size());
    const std::vector<size_t> positions = golden()["positions"], columns = golden()["columns"];
    for (size_t i = 0; i < positions.size(); ++i) {
      for (size_t j = 0; j < columns.size(); ++j) {
        EXPECT_NEAR(double(rows[positions[i]][columns[j]]), golden()["logits"][i][j].get<double>(), tolerance())
            << golden()["name"] << ", position " << positions[i] << ", logit " << columns[j];
      }
    }
  }

  // Converters lose the window of a Mistral or a Qwen, and have scores of Gemma's own scale for its largest alone.
  bool has_gguf() const {
    const std::string name = golden()["name"];
    return name != "mistral" && name != "qwen 2 windowed" && name != "gemma 3";
  }
  std::string write_gguf() const;

  TempDir dir_;
};

TEST_P(Families, DirectoryGivesTheLogitsOfTransformers) {
  expect_golden(logits(write_family_directory(golden(), dir_.file("model")), tokens(), {.context = context()}));
}

TEST_P(Families, GgufGivesTheLogitsOfTransformers) {
  if (!has_gguf()) return;
  const std::string path = write_gguf();
  expect_golden(logits(path, tokens(), {.context = context()}));
}

TEST_P(Families, QuantizedDirectoriesOfGgufFilesRunAsTheFileDoes) {
  if (!has_gguf()) return;
  const std::string path = write_gguf(), directory = dir_.file("quantized");
  quantize(path, "w8a8", directory);
  EXPECT_EQ(logits(directory, tokens(), {.scheme = "w8a8", .context = context()}),
            logits(path, tokens(), {.scheme = "w8a8", .context = context()}));
}

std::string Families::write_gguf() const {
  const std::string name = golden()["name"], path = dir_.file("model.gguf");
  std::vector<std::pair<std::string, std::vector<float>>> factors;
  const GoldenJson scaling = golden()["config"].value("rope_scaling", GoldenJson::object());
  float amplitude = 1.0f;
  if (name == "llama 3.1") {  // what converters make of it: the quotient of frequencies
    RopeScaling s;
    s.kind = RopeScaling::Kind::llama3;
    s.factor = scaling["factor"];
    s.original_context = scaling["original_max_position_embeddings"];
    const double theta = golden()["config"]["rope_theta"];
    const std::vector<float> plain = scaled_rope_frequencies({}, 32, theta, 256),
                             scaled = scaled_rope_frequencies(s, 32, theta, 256);
    factors.push_back({"rope_freqs.weight", {}});
    for (size_t i = 0; i < plain.size(); ++i) factors[0].second.push_back(plain[i] / scaled[i]);
  } else if (scaling.contains("long_factor")) {
    factors.push_back({"rope_factors_long.weight", scaling["long_factor"].get<std::vector<float>>()});
    factors.push_back({"rope_factors_short.weight", scaling["short_factor"].get<std::vector<float>>()});
    amplitude = float(longrope_amplitude(256.0 / 64.0, 64));
  }
  return write_family_gguf(golden(), path, factors, amplitude);
}

// LongRoPE's long factors cost accuracy in short texts, so that they are used where they are asked for.
TEST(LongRope, TheUsualContextIsTheOriginalOne) {
  TempDir dir;
  for (const GoldenJson& golden : golden_families()) {
    SCOPED_TRACE(golden["name"].get<std::string>());
    EngineOptions options;
    options.model = write_family_directory(golden, dir.file("model"));
    options.scheme = "f32";
    options.device = "cpu";
    options.threads = 1;
    options.max_batch = 1;
    options.memory_limit = int64_t{1} << 30;
    std::string log;
    options.log = [&](const std::string& line) { log += line + "\n"; };
    const bool factors = golden["config"].value("rope_scaling", GoldenJson::object()).contains("long_factor");
    EXPECT_EQ(Engine::open(options)->context(), factors ? 64 : 256);
    EXPECT_EQ(log.find("the short factors are used") != log.npos, factors) << log;
    log.clear();
    options.context = 100;
    EXPECT_EQ(Engine::open(options)->context(), 100);
    EXPECT_EQ(log.find("the long factors are used") != log.npos, factors) << log;
  }
}

TEST_P(Families, ChunksGiveTheSameBits) {
  const std::string model = write_family_directory(golden(), dir_.file("model"));
  for (const char* scheme : {"f32", "w8a8kv4"}) {
    const auto whole = logits(model, tokens(), {.scheme = scheme, .context = context()});
    EXPECT_EQ(whole, logits(model, tokens(), {.scheme = scheme, .chunk = 7, .context = context()})) << scheme;
    EXPECT_EQ(whole.size(), tokens().size());
  }
}

TEST_P(Families, GpuAgrees) {
  if (!gpu_is_here()) GTEST_SKIP() << "no GPU";
  const std::string model = write_family_directory(golden(), dir_.file("model"));
  const auto rows = logits(model, tokens(), {.device = "cuda", .context = context()});
  expect_golden(rows);
}

INSTANTIATE_TEST_SUITE_P(Golden, Families, testing::Range(size_t(0), golden_families().size()), [](const auto& info) {
  std::string name = golden_families()[info.param]["name"];
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace quire
