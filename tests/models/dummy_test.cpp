// Checkpoints of random weights, and the plan of what loading makes of any checkpoint.
#include "models/dummy.h"

#include <gtest/gtest.h>

#include <fstream>

#include "kernels/random.h"
#include "models/decoder.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

constexpr const char* kTiny = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 192,
  "intermediate_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "vocab_size": 520, "max_position_embeddings": 256, "attention_bias": true, "tie_word_embeddings": TIED})";

std::string write_config(const TempDir& dir, bool tied) {
  std::string text = kTiny;
  text.replace(text.find("TIED"), 4, tied ? "true" : "false");
  const std::string path = dir.file(tied ? "tied.json" : "own.json");
  std::ofstream(path) << text;
  return path;
}

TEST(Dummy, EveryConfigurationInTheProgramOpens) {
  ASSERT_GE(known_configs().size(), 3u);
  for (const KnownConfig& known : known_configs()) {
    const Checkpoint checkpoint = open_dummy(std::string(known.name));
    EXPECT_EQ(checkpoint.config().name, known.name);
    EXPECT_TRUE(checkpoint.dummy().has_value());
    int64_t values = 0;
    for (const CheckpointTensor& t : checkpoint.list()) values += t.tensor.rows * t.tensor.cols;
    EXPECT_GT(values, 1'000'000'000) << known.name;
  }
  int64_t values = 0;
  const Checkpoint big = open_dummy("llama-3-8b");
  for (const CheckpointTensor& t : big.list()) values += t.tensor.rows * t.tensor.cols;
  EXPECT_EQ(values, 8'030'261'248);  // what the model card says
}

TEST(Dummy, SaysWhatItTakes) {
  expect_error([] { open_dummy("llama-9"); }, {"llama-9", "config.json", "llama-3-8b"});
  const TempDir dir;
  std::ofstream(dir.file("bad.json")) << "[1]";
  expect_error([&] { open_dummy(dir.file("bad.json")); }, {"bad.json", "object"});
}

TEST(Dummy, TheContextCanBeLonger) {
  EXPECT_EQ(open_dummy("llama-3-8b").config().context, 8192);
  EXPECT_EQ(open_dummy("llama-3-8b", 131072).config().context, 131072);
  EXPECT_EQ(open_dummy("llama-3-8b", 100).config().context, 8192);
}

TEST(Dummy, SlicesAreTheMatrixWhateverTheirSize) {
  const TempDir dir;
  const Checkpoint checkpoint = open_dummy(write_config(dir, false));
  Machines machines;
  SliceReader reader(machines.context(), checkpoint);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const std::vector<float> whole = decoded(reader.read(name, 0, 320));
  const std::vector<float> part = decoded(reader.read(name, 77, 3));
  EXPECT_EQ(first_difference(part.data(), whole.data() + 77 * 192, 3 * 192), "");
  EXPECT_NE(whole, decoded(reader.read("model.layers.0.mlp.up_proj.weight", 0, 320)));
  EXPECT_EQ(reader.read_vector("model.norm.weight"), std::vector<float>(192, 1.0f));
  EXPECT_NE(reader.read_vector("model.layers.0.self_attn.q_proj.bias")[5], 0.0f);
}

// What the plan says is what loading makes, for dummies and files, tied and not, in formats that are kept or made.
TEST(DecoderPlan, IsWhatLoadingMakes) {
  const TempDir dir;
  Machines machines;
  const std::string tied = write_tiny_gguf(make_tiny_model({.matrices = id<Q8_0>}), dir.file("tied.gguf"));
  const std::string own =
      write_tiny_gguf(make_tiny_model({.tied = false, .attention_bias = true}), dir.file("own.gguf"));
  const auto expect_planned = [&](const Context& ctx, const Checkpoint& checkpoint, const char* word) {
    const Scheme scheme = choose_scheme(word, "", checkpoint.stored_scheme());
    const DecoderPlan plan = Decoder::plan(ctx, checkpoint, scheme);
    EXPECT_EQ(plan.weight_bytes, Decoder::load(ctx, checkpoint, scheme, 64).weight_bytes()) << word;
    EXPECT_FALSE(plan.description.empty());
  };
  for (const char* word : {"", "f32", "f16", "w8a8", "w4a8", "w4a16"}) {
    std::vector<Context> contexts = {machines.context(Isa::baseline), machines.context()};
    if (gpu_is_here()) contexts.push_back(machines.gpu());
    for (const Context& ctx : contexts) {
      for (const bool tie : {true, false}) {
        expect_planned(ctx, open_dummy(write_config(dir, tie)), word);
        expect_planned(ctx, Checkpoint::open(tie ? tied : own), word);
      }
    }
  }
}

}  // namespace
}  // namespace quire
