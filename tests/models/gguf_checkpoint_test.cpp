// GGUF files as checkpoints: what is refused by name, what is neutral, and that no damage goes further than an error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/checkpoint.h"
#include "models/gguf_config.h"
#include "models/tokenizer.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using testing::ElementsAre;

class GgufCheckpoint : public testing::Test {
 protected:
  Checkpoint open(const GgufWriter& w) { return Checkpoint::open(dir_.write("tiny.gguf", w.file())); }
  void expect_refused(const GgufWriter& w, std::initializer_list<std::string> parts) {
    expect_error([&] { open(w); }, parts);
  }
  // The tiny model's file with one key changed.
  GgufWriter with(const std::string& key, uint32_t type, const std::string& value) {
    GgufWriter w = writer_;
    if (model_file_has(key)) w.erase(key);
    w.raw(key, type, value);
    return w;
  }
  GgufWriter with(const std::string& key, uint32_t value) { return with(key, 4, GgufWriter::bytes_of(value)); }
  GgufWriter with(const std::string& key, float value) { return with(key, 6, GgufWriter::bytes_of(value)); }
  GgufWriter with(const std::string& key, bool value) { return with(key, 7, GgufWriter::bytes_of(uint8_t(value))); }
  GgufWriter with(const std::string& key, const char* value) { return with(key, 8, GgufWriter::string_of(value)); }
  bool model_file_has(const std::string& key) const {
    return writer_.header().find(GgufWriter::string_of(key)) != std::string::npos;
  }

  TempDir dir_;
  TinyModel model_ = make_tiny_model({.layers = 1, .hidden = 32, .ffn = 32, .heads = 2, .kv_heads = 1});
  GgufWriter writer_ = tiny_gguf_writer(model_);
};

TEST_F(GgufCheckpoint, RefusesOtherArchitecturesByName) {
  expect_refused(with("general.architecture", "mamba"),
                 {"tiny.gguf", "'mamba' is not supported", "known: llama, qwen2"});
  expect_refused(with("general.architecture", 3u), {"general.architecture", "must be a string"});
  expect_refused(with("general.type", "adapter"), {"holds 'adapter', not a model"});
  expect_refused(with("split.count", 4u), {"first of 4 parts", "does not end in '-00001-of-00004.gguf'"});
  EXPECT_NO_THROW(open(with("split.count", 1u)));
  EXPECT_NO_THROW(open(with("general.type", "model")));
}

TEST_F(GgufCheckpoint, RefusesKeysThatChangeTheNetwork) {
  const auto neutral_and_not = [&](const std::string& key, auto neutral, auto other) {
    EXPECT_NO_THROW(open(with("llama." + key, neutral))) << key;
    expect_refused(with("llama." + key, other), {"llama." + key, "supported"});
  };
  neutral_and_not("rope.scaling.type", "none", "su");
  neutral_and_not("rope.scale_linear", 1.0f, 2.0f);
  neutral_and_not("rope.scaling.attn_factor", 1.0f, 1.5f);
  neutral_and_not("expert_count", 0u, 8u);
  neutral_and_not("expert_used_count", 0u, 2u);
  neutral_and_not("attention.sliding_window", 0u, 4096u);
  neutral_and_not("attention.scale", 0.0f, 0.25f);
  neutral_and_not("attn_logit_softcapping", 0.0f, 50.0f);
  neutral_and_not("final_logit_softcapping", 0.0f, 30.0f);
  neutral_and_not("logit_scale", 1.0f, 0.5f);
  neutral_and_not("embedding_scale", 1.0f, 12.0f);
  neutral_and_not("residual_scale", 1.0f, 0.2f);
  neutral_and_not("attention.causal", true, false);
  neutral_and_not("use_parallel_residual", false, true);
  EXPECT_NO_THROW(open(with("llama.rope.scaling.original_context_length", 512u)));
  expect_refused(with("llama.attention.frobnicate", 1u), {"unknown key llama.attention.frobnicate = 1"});
}

TEST_F(GgufCheckpoint, RefusesConfigurationsThatCannotBe) {
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count",
        "llama.context_length", "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model",
        "tokenizer.ggml.tokens", "tokenizer.ggml.merges", "general.architecture"}) {
    GgufWriter w = writer_;
    w.erase(key);
    expect_refused(w, {key, "is missing"});
  }
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count",
        "llama.attention.head_count_kv", "llama.context_length", "llama.attention.key_length"}) {
    for (const uint32_t value : {0u, UINT32_MAX}) {
      SCOPED_TRACE(key);
      expect_refused(with(key, value), {"tiny.gguf"});
    }
  }
  expect_refused(with("llama.block_count", 2000000000u), {"2000000000 layers are announced"});
  expect_refused(with("llama.attention.head_count_kv", 3u), {"2 query heads cannot share 3"});
  expect_refused(with("llama.rope.dimension_count", 8u), {"rotating 8 of 16 dimensions"});
  expect_refused(with("llama.attention.value_length", 8u), {"values of 8 dimensions beside keys of 16"});
  expect_refused(with("llama.rope.freq_base", -1.0f), {"the rope base is -1"});
  expect_refused(with("llama.rope.freq_base", NAN), {"the rope base is"});
  expect_refused(with("llama.attention.layer_norm_rms_epsilon", -1.0f), {"epsilon is -1"});
  expect_refused(with("llama.vocab_size", 299u), {"llama.vocab_size is 299, but the embedding has 300 rows"});
  EXPECT_NO_THROW(open(with("llama.vocab_size", 300u)));
}

TEST_F(GgufCheckpoint, DefaultsFollowTheFormat) {
  GgufWriter w = writer_;
  for (const char* key : {"llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count",
                          "llama.rope.freq_base", "tokenizer.ggml.add_bos_token", "tokenizer.chat_template"}) {
    w.erase(key);
  }
  const Checkpoint c = open(w);
  EXPECT_EQ(c.config().head_dim, 16);
  EXPECT_EQ(c.config().rope_dim, 16);
  EXPECT_EQ(c.config().rope_theta, 10000.0);
  EXPECT_EQ(c.tokenizer().chat_template, "");
}

TEST_F(GgufCheckpoint, EveryTensorMustBeThereWithItsShape) {
  for (const TinyTensor& t : model_.tensors) {
    GgufWriter w = writer_;
    w.erase_tensor(gguf_name(t.name));
    expect_refused(w, {t.name == "model.embed_tokens.weight" ? "token_embd.weight" : t.name, "is missing"});
  }
  GgufWriter w = writer_;
  w.erase_tensor("blk.0.ffn_up.weight");
  w.tensor("blk.0.ffn_up.weight", {32, 31}, 0, std::string(32 * 31 * 4, 'x'));
  expect_refused(w, {"'blk.0.ffn_up.weight' is (31, 32) where the configuration says (32, 32)"});
  w = writer_;
  w.erase_tensor("blk.0.attn_k.weight");
  w.tensor("blk.0.attn_k.weight", {32, 8}, 0, std::string(32 * 8 * 4, 'x'));
  expect_refused(w, {"'blk.0.attn_k.weight' has 8 rows where the configuration says 16"});
  w = writer_;
  w.erase_tensor("blk.0.attn_v.weight");
  w.tensor("blk.0.attn_v.weight", {4, 8, 16}, 0, std::string(32 * 16 * 4, 'x'));
  expect_refused(w, {"'blk.0.attn_v.weight' has 3 dimensions"});
}

TEST_F(GgufCheckpoint, RefusesTensorsThatAreNotOfTheNetwork) {
  for (const char* name :
       {"blk.0.attn_q_norm.weight", "blk.1.attn_norm.weight", "blk.00.attn_norm.weight", "blk.0.attn_q.bias.x",
        "blk..attn_norm.weight", "blk.0.attn_output.bias", "blk.-1.ffn_norm.weight", "v.patch_embd.weight", "blk.0"}) {
    GgufWriter w = writer_;
    w.tensor(name, {32}, 0, std::string(128, 'x'));
    expect_refused(w, {std::string("'") + name + "' is not part of a llama network of 1 layers"});
  }
  GgufWriter w = writer_;  // the same tensor under two names
  w.tensor("model.norm.weight", {32}, 0, std::string(128, 'x'));
  expect_refused(w, {"'model.norm.weight' appears twice"});
}

TEST_F(GgufCheckpoint, NamesTypesThatCannotBeRead) {
  GgufWriter w = writer_;
  w.erase_tensor("blk.0.attn_v.weight");
  w.tensor("blk.0.attn_v.weight", {32, 16}, 9, std::string(16 * 36, 'x'));
  expect_refused(w, {"'blk.0.attn_v.weight' is in Q8_1, which cannot be read", "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0",
                     "Q4_K", "MXFP4 can", "llama-quantize"});
  w = writer_;
  w.erase_tensor("output_norm.weight");
  w.tensor("output_norm.weight", {32}, 8, std::string(34, 'x'));
  expect_refused(w, {"'output_norm.weight' is a vector in q8_0"});
}

TEST_F(GgufCheckpoint, RopeFactorsScaleUnlessTheyAreOne) {
  for (const float factor : {1.0f, 8.0f}) {
    GgufWriter w = writer_;
    std::string factors;
    for (int i = 0; i < 8; ++i) factors += GgufWriter::bytes_of(i == 7 ? factor : 1.0f);
    w.tensor("rope_freqs.weight", {8}, 0, factors);
    const Checkpoint c = open(w);
    EXPECT_EQ(c.find("rope_freqs.weight"), nullptr);
    if (factor == 1.0f) {
      EXPECT_TRUE(c.config().rope_scaling == RopeScaling{});
    } else {
      EXPECT_EQ(c.config().rope_scaling.short_factors.at(7), 8.0f);
      EXPECT_EQ(c.config().rope_scaling.long_factors.at(7), 8.0f);
    }
  }
  GgufWriter w = writer_;
  w.tensor("rope_freqs.weight", {8}, 0, std::string(32, '\0'));
  expect_refused(w, {"'rope_freqs.weight' holds 0", "positive"});
  w = writer_;
  w.tensor("rope_freqs.weight", {4}, 0, std::string(16, 'x'));
  expect_refused(w, {"'rope_freqs.weight' is not one f32 factor for each of 8 pairs"});
}

TEST_F(GgufCheckpoint, ReadsTheWindowsOfGemma) {
  const auto config = [&](std::optional<uint32_t> pattern, std::optional<float> theta) {
    GgufWriter w;
    w.text("general.architecture", "gemma3");
    for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                            "attention.head_count", "attention.key_length", "attention.value_length"}) {
      w.u32(std::string("gemma3.") + key, 8);
    }
    w.u32("gemma3.attention.sliding_window", 512);
    w.f32("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    w.f32("gemma3.rope.freq_base", 1e6f);
    if (pattern) w.u32("gemma3.attention.sliding_window_pattern", *pattern);
    if (theta) w.f32("gemma3.rope.freq_base_swa", *theta);
    return read_gguf_config(GgufFile(MappedFile(dir_.write("gemma.gguf", w.file()))));
  };
  EXPECT_EQ(config({}, {}).rope_theta_windowed, 10000.0);
  EXPECT_EQ(config({}, 10000.0f), config({}, {}));
  EXPECT_EQ(config({}, 5000.0f).rope_theta_windowed, 5000.0);
  EXPECT_EQ(config({}, 5000.0f).rope_theta, 1e6);
  EXPECT_THAT(config({}, {}).windowed, ElementsAre(1, 1, 1, 1, 1, 0, 1, 1));
  EXPECT_EQ(config(6u, {}), config({}, {}));
  EXPECT_THAT(config(3u, {}).windowed, ElementsAre(1, 1, 0, 1, 1, 0, 1, 1));
  EXPECT_EQ(config(1u, {}).window, 0);
  expect_error([&] { config(0u, {}); }, {"sliding_window_pattern is 0"});
  expect_error([&] { config({}, -1.0f); }, {"rope.freq_base_swa is -1"});
  expect_refused(with("llama.rope.freq_base_swa", 1e4f), {"unknown key llama.rope.freq_base_swa"});
}

TEST_F(GgufCheckpoint, RefusesTokenizersItCannotRun) {
  expect_refused(with("tokenizer.ggml.model", "llama"), {"'tokenizer.ggml.scores' is missing"});
  expect_refused(with("tokenizer.ggml.pre", "mystery"), {"'mystery'"});
  expect_refused(with("tokenizer.ggml.add_eos_token", true), {"tokenizer.ggml.add_eos_token = true is not supported"});
  for (const char* key :
       {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.padding_token_id", "tokenizer.ggml.eot_token_id"}) {
    expect_refused(with(key, 300u), {"300", "300 tokens"});
  }
  GgufWriter w = writer_;
  w.erase("tokenizer.ggml.token_type");
  EXPECT_NO_THROW(open(w));
  w.i32s("tokenizer.ggml.token_type", {1, 1, 1});
  expect_refused(w, {"300 tokens, but 3 token types"});
  w.erase("tokenizer.ggml.token_type");
  w.i32s("tokenizer.ggml.token_type", {1, 7, 1});
  expect_refused(w, {"token 1 has type 7"});
  w = writer_;
  w.erase("tokenizer.ggml.tokens");
  w.texts("tokenizer.ggml.tokens", std::vector<std::string>(301, "x"));
  expect_refused(w, {"301 tokens, the embedding only 300 rows"});
}

TEST_F(GgufCheckpoint, MergesTheEndTokensOfEveryPlace) {
  GgufWriter w = with("tokenizer.ggml.eot_token_id", 7u);
  w.u32("tokenizer.ggml.eom_token_id", 2);
  w.i32s("tokenizer.ggml.eos_token_ids", {7, 0, 2});
  const Checkpoint c = open(w);
  EXPECT_THAT(c.tokenizer().eos, ElementsAre(2, 7, 0));
  EXPECT_EQ(open(with("tokenizer.ggml.padding_token_id", UINT32_MAX)).tokenizer().pad, -1);
  EXPECT_TRUE(open(with("tokenizer.ggml.add_bos_token", true)).tokenizer().add_bos);
  w = with("tokenizer.ggml.add_bos_token", true);
  w.erase("tokenizer.ggml.bos_token_id");
  expect_refused(w, {"a bos token should be added, but none is named"});
}

TEST_F(GgufCheckpoint, MisalignedTensorsAreTheSame) {
  for (const uint64_t alignment : {1, 2, 8}) {
    GgufWriter w = writer_;
    w.alignment = alignment;
    // A header of odd length puts everything off alignment.
    w.text("general.description", w.header().size() % 2 == 0 ? "x" : "xx");
    const Checkpoint c = Checkpoint::open(dir_.write("odd.gguf", w.file()));
    for (const TinyTensor& t : model_.tensors) {
      const Tensor& x = c.get(t.name);
      EXPECT_EQ(bytes_of(x), bytes_of(t.weight.tensor)) << t.name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data.ptr) % 4, 0u) << t.name;
    }
  }
}

// Reads the first and the last value of every tensor, so that a view outside the file would be seen.
float touch(const Checkpoint& c) {
  float sum = 0;
  for (const CheckpointTensor& t : c.tensors()) {
    const int64_t n = std::min<int64_t>(32, t.tensor.cols);
    float values[32];
    info(t.tensor.codec).decode(t.tensor, 0, 0, n, values);
    sum += values[0];
    info(t.tensor.codec).decode(t.tensor, t.tensor.rows - 1, t.tensor.cols - n, n, values);
    sum += values[n - 1];
  }
  return sum;
}

TEST_F(GgufCheckpoint, ACutFileIsAnError) {
  const std::string whole = writer_.file();
  const size_t header = writer_.header().size();
  for (size_t n = 1; n < whole.size(); n += n < header ? 7 : 97) {
    EXPECT_THROW(Checkpoint::open(dir_.write("cut.gguf", std::string_view(whole).substr(0, n))), Error) << n;
  }
}

TEST_F(GgufCheckpoint, AChangedHeaderIsReadOrRefused) {
  const std::string whole = writer_.file();
  const std::string path = dir_.write("changed.gguf", whole);
  const size_t header = writer_.header().size();
  size_t opened = 0;
  for (size_t i = 0; i < header; ++i) {
    const char changed = char(whole[i] ^ (i % 9 == 8 ? 0xFF : 1 << i % 9));
    {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(std::streamoff(i)).put(changed);
    }
    try {
      const Checkpoint c = Checkpoint::open(path);
      ++opened;
      touch(c);
      const Tokenizer tokenizer(c.tokenizer());
      tokenizer.decode(tokenizer.encode("the <|im_end|> of 12 things"));
    } catch (const Error& e) {
      EXPECT_GT(std::string(e.what()).size(), 10u);
    }
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(std::streamoff(i)).put(whole[i]);
  }
  EXPECT_GT(opened, 0u);      // spellings of tokens may change
  EXPECT_LT(opened, header);  // lengths, types and names may not
  EXPECT_NO_THROW(Checkpoint::open(path));
}

}  // namespace
}  // namespace quire
