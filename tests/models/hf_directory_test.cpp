// HuggingFace directories: what is refused by name, what defaults mean, and that no file outside the directory is
// touched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "models/checkpoint.h"
#include "models/hf_config.h"
#include "models/tokenizer.h"
#include "tests/models/hf_directory.h"

namespace quire {
namespace {

TEST_F(HfDirectory, NamesWhatIsMissing) {
  expect_error([&] { Checkpoint::open(dir_.file("nothing")); }, {"there is no model at", "nothing"});
  expect_error([&] { Checkpoint::open(dir_.path()); }, {"config.json is missing"});
  expect_error([&] { Checkpoint::open(path() + "/model.safetensors"); }, {"not a GGUF file", "give the directory"});
  remove("tokenizer.json");
  expect_refused({"tokenizer.json' is missing"});
  write("tokenizer.model", "x");
  expect_refused({"tokenizer.model'", "the file ends inside a field"});
  remove("model.safetensors");
  expect_refused({"neither model.safetensors nor model.safetensors.index.json"});
}

TEST_F(HfDirectory, RefusesNetworksItCannotRun) {
  expect_config_refused("architectures", {"MixtralForCausalLM"}, {"MixtralForCausalLM", "known: LlamaForCausalLM"});
  expect_config_refused("architectures", {"MistralForCausalLM"}, {"model_type 'llama' does not go with Mistral"});
  expect_config_refused("architectures", Ordered::array(), {"is not supported"});
  expect_config_refused("model_type", "mixtral", {"model_type 'mixtral'"});
  expect_config_refused("auto_map", {{"AutoModel", "x.py"}}, {"auto_map"});
  expect_config_refused("quantization_config", {{"quant_method", "hqq"}}, {"quantized by 'hqq' cannot be read"});
  expect_config_refused("hidden_act", "gelu", {"hidden_act 'gelu'"});
  expect_config_refused("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}, {"'low_freq_factor' is missing"});
  expect_config_refused("rope_scaling", {{"type", "linear"}, {"factor", 0}}, {"factor is 0", "positive"});
  expect_config_refused("rope_scaling", {{"type", "dynamic"}, {"factor", 2}}, {"rope scaling 'dynamic'", "llama3"});
  expect_config_refused("rope_parameters", {{"rope_type", "yarn"}}, {"'factor' is missing"});
  expect_config_refused("rope_scaling", {{"rope_type", "longrope"}, {"long_factor", {1, 2}}}, {"'short_factor' has 0"});
  expect_config_refused("rope_parameters", {{"rope_theta", 5.0}}, {"rope_theta is 5 here and 10000 outside"});
  expect_config_refused("sliding_window", 4096, {"'sliding_window' = 4096"});
  expect_config_refused("num_local_experts", 8, {"'num_local_experts' = 8"});
  expect_config_refused("final_logit_softcapping", 30.0, {"'final_logit_softcapping' = 30.0"});
  expect_config_refused("partial_rotary_factor", 0.5, {"'partial_rotary_factor' = 0.5"});
  expect_config_refused("rope_interleaved", true, {"'rope_interleaved' = true"});
  expect_config_refused("layer_types", {"sliding_attention"},
                        {"layer 0 attends to a window", "'sliding_window' is not set"});
  expect_config_refused("attention_bias", true, {"'model.layers.0.self_attn.q_proj.bias' is missing"});
  expect_config_refused("mlp_bias", true, {"'model.layers.0.mlp.gate_proj.bias' is missing"});
  expect_config_refused("tie_word_embeddings", false, {"'lm_head.weight' is missing"});
}

TEST_F(HfDirectory, CodeOfItsOwnIsThatOfPhi3Alone) {
  const auto phi3 = [&](const Ordered& map) {
    Ordered config = tiny_hf_config(model_);
    config["architectures"] = {"Phi3ForCausalLM"};
    config["model_type"] = "phi3";
    config["auto_map"] = map;
    return read_hf_config(JsonObject(config, "config"));
  };
  EXPECT_EQ(phi3({{"AutoConfig", "configuration_phi3.Phi3Config"},
                  {"AutoModelForCausalLM", "modeling_phi3.Phi3ForCausalLM"},
                  {"AutoTokenizer", "Xenova/gpt-4o"}})
                .family,
            "phi3");
  for (const Ordered& map : {Ordered{{"AutoModelForCausalLM", "modeling_phi3_small.Phi3SmallForCausalLM"}},
                             Ordered{{"AutoModelForCausalLM", 3}}, Ordered("modeling_phi3.Phi3ForCausalLM")}) {
    expect_error([&] { phi3(map); }, {"'auto_map' asks for the model's own Python code"});
  }
}

TEST_F(HfDirectory, NeutralKeysAreRead) {
  for (const auto& [key, value] : {std::pair<std::string, Ordered>("sliding_window", nullptr),
                                   {"rope_scaling", {{"rope_type", "default"}}},
                                   {"rope_interleaved", false},
                                   {"layer_types", {"full_attention"}},
                                   {"hidden_act", "swish"},
                                   {"something_new", "yes"},
                                   {"quantization_config", nullptr}}) {
    EXPECT_NO_THROW(open_with(key, value)) << key;
  }
}

TEST_F(HfDirectory, RefusesConfigurationsThatCannotBe) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings", "vocab_size"}) {
    for (const Ordered& value :
         {Ordered(0), Ordered(-1), Ordered(uint64_t(1) << 63), Ordered(1 << 30), Ordered("8"), Ordered(2.5)}) {
      if (value == 1 << 30 && key == std::string("max_position_embeddings")) continue;  // possible
      SCOPED_TRACE(value.dump());
      expect_config_refused(key, value, {"model"});
    }
  }
  // Every number possible, their product not.
  Ordered config = tiny_hf_config(model_);
  config["num_attention_heads"] = config["num_key_value_heads"] = config["head_dim"] = 1 << 24;
  write("config.json", config.dump());
  expect_refused({"16777216 heads of 16777216 dimensions"});
  expect_config_refused("rms_norm_eps", -1.0, {"epsilon is -1"});
  expect_config_refused("rope_theta", 0, {"the rope base is 0"});
  write("config.json", "{\"hidden_size\": 32,");
  expect_refused({"config.json", "not valid JSON"});
  write("config.json", "[]");
  expect_refused({"config.json", "an object is needed"});
  write("config.json", R"({"a": {"b": 1, "c": {"b": 2}}, "b": 3, "a": 4})");
  expect_refused({"config.json", "key 'a' appears twice"});
  remove("config.json");
  ASSERT_EQ(mkfifo((path() + "/config.json").c_str(), 0600), 0);
  expect_refused({"config.json", "not a regular file"});
}

TEST_F(HfDirectory, DefaultsAreThoseOfTransformers) {
  Ordered config = tiny_hf_config(model_);
  for (const char* key :
       {"head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "attention_bias", "mlp_bias"})
    config.erase(key);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  write("config.json", config.dump());
  const Checkpoint c = open();
  EXPECT_EQ(c.config().head_dim, 16);
  EXPECT_EQ(c.config().context, 2048);
  EXPECT_EQ(c.config().norm_eps, 1e-6);
  EXPECT_EQ(c.config().rope_theta, 500000.0);
  config.erase("num_key_value_heads");  // as many as query heads, which k_proj contradicts
  write("config.json", config.dump());
  expect_refused({"'model.layers.0.self_attn.k_proj.weight' is (16, 32) where the configuration says (32, 32)"});
}

TEST_F(HfDirectory, RefusesTensorsThatAreNotOfTheNetwork) {
  const auto with_tensor = [&](const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
                               size_t bytes) {
    SafetensorsWriter w;
    for (const TinyTensor& t : model_.tensors) {
      if (t.name == name) continue;
      const Tensor& x = t.weight.tensor;
      w.tensor(t.name, safetensors_type_of(x.codec),
               x.rows > 1 ? std::vector<int64_t>{x.rows, x.cols} : std::vector<int64_t>{x.cols}, bytes_of(x));
    }
    w.tensor(name, dtype, shape, std::string(bytes, 'x'));
    write("model.safetensors", w.file());
  };
  with_tensor("model.layers.0.self_attn.q_norm.weight", "F32", {16}, 64);
  expect_refused({"q_norm.weight' is not part of a llama network"});
  with_tensor("model.layers.0.self_attn.q_proj.bias", "F32", {32}, 128);  // attention_bias is false
  expect_refused({"q_proj.bias' is not part of a llama network"});
  with_tensor("model.norm.weight", "I32", {32}, 128);
  expect_refused({"'model.norm.weight' is in I32, which cannot be read", "F32, F16 and BF16 can"});
  with_tensor("model.norm.weight", "F32", {31}, 124);
  expect_refused({"'model.norm.weight' is (1, 31)"});
  with_tensor("model.norm.weight", "F32", {2, 4, 4}, 128);
  expect_refused({"'model.norm.weight' has 3 dimensions"});
  with_tensor("model.norm.weight", "F32", {}, 4);
  expect_refused({"'model.norm.weight' has 0 dimensions"});
  with_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {8}, 32);
  EXPECT_EQ(open().tensors().size(), model_.tensors.size());
  with_tensor("lm_head.weight", "F32", {300, 32}, 300 * 32 * 4);  // tied: the embedding stands for it
  EXPECT_EQ(open().find("lm_head.weight"), nullptr);
}

TEST_F(HfDirectory, MisalignedTensorsAreCopied) {
  for (const size_t shift : {1, 2, 3}) {
    SafetensorsWriter w;
    for (const TinyTensor& t : model_.tensors) {
      const Tensor& x = t.weight.tensor;
      w.tensor(t.name, safetensors_type_of(x.codec),
               x.rows > 1 ? std::vector<int64_t>{x.rows, x.cols} : std::vector<int64_t>{x.cols}, bytes_of(x));
    }
    w.shift = shift;
    write("model.safetensors", w.file());
    const Checkpoint c = open();
    for (const TinyTensor& t : model_.tensors) {
      const Tensor& x = c.get(t.name);
      EXPECT_EQ(bytes_of(x), bytes_of(t.weight.tensor)) << t.name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data.ptr) % (x.codec == id<F32> ? 4 : 2), 0u) << t.name;
    }
  }
}

TEST_F(HfDirectory, ShardsAreExactlyThoseOfTheIndex) {
  remove("model.safetensors");
  write_tiny_hf(model_, path(), 2);
  const std::string first = "model-00001-of-00002.safetensors", index = "model.safetensors.index.json";
  Ordered good = Ordered::parse(read_text_file(path() + "/" + index, 1 << 20));
  EXPECT_EQ(open().tensors().size(), model_.tensors.size());
  const auto refused = [&](const std::string& tensor, const Ordered& file, std::initializer_list<std::string> parts) {
    Ordered changed = good;
    if (file.is_null())
      changed["weight_map"].erase(tensor);
    else
      changed["weight_map"][tensor] = file;
    write(index, changed.dump());
    expect_refused(parts);
  };
  // A real file outside, which must not be read.
  std::filesystem::copy(path() + "/" + first, dir_.file("outside.safetensors"));
  for (const std::string& file :
       {std::string("../outside.safetensors"), dir_.file("outside.safetensors"), std::string("a\\b.safetensors"),
        std::string("x\0.safetensors", 14), std::string(".."), std::string(""), std::string(".safetensors"), index}) {
    refused("model.norm.weight", file, {"is not the name of a safetensors file in this directory"});
  }
  refused("model.norm.weight", 7, {"'model.norm.weight' must name a file, not 7"});
  refused("model.norm.weight", "another.safetensors", {"cannot open", "another.safetensors"});
  refused("model.norm.weight", nullptr, {"'model.norm.weight' is not in the index"});
  refused("model.extra.weight", first, {"'model.extra.weight' should be here by the index, but is not"});
  write(index, "{\"weight_map\": {}}");
  expect_refused({"'weight_map' is empty"});
  write(index, "{}");
  expect_refused({"'weight_map' is missing"});
  write(index, "{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"y.safetensors\"}}");
  expect_refused({"key 'a' appears twice"});
  write(index, good.dump());
  remove(first);
  expect_refused({"cannot open", first});
  std::filesystem::create_symlink(first, path() + "/" + first);  // a link to itself
  expect_refused({"cannot open", first});
}

TEST_F(HfDirectory, OneTensorInTwoShardsIsRefused) {
  remove("model.safetensors");
  write_tiny_hf(model_, path(), 2);
  std::filesystem::copy(path() + "/model-00001-of-00002.safetensors", path() + "/copy.safetensors");
  Ordered index = Ordered::parse(read_text_file(path() + "/model.safetensors.index.json", 1 << 20));
  index["weight_map"]["model.embed_tokens.weight"] = "copy.safetensors";
  write("model.safetensors.index.json", index.dump());
  expect_refused({"is not in the index"});
}

// Tiny files may hold nothing but tiny values: the bound on a parsed text's memory is no matter there.
TEST_F(HfDirectory, TinyJsonIsRead) {
  write("generation_config.json", R"({"a":[1]})");
  EXPECT_NO_THROW(open());
}

// Whatever a byte of a JSON file becomes: the model is read, or there is one error.
TEST_F(HfDirectory, AChangedByteIsReadOrRefused) {
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    const std::string whole = read_text_file(path() + "/" + name, 1 << 20);
    size_t refused = 0;
    for (size_t i = 0; i<whole.size(); i += whole.size()> 2000 ? 5 : 1) {
      std::string changed = whole;
      changed[i] = char(changed[i] ^ (1 << i % 7));
      write(name, i % 3 == 0 ? whole.substr(0, i) : changed);
      try {
        const Checkpoint c = open();
        const Tokenizer tokenizer(c.tokenizer());
      } catch (const Error& e) {
        ++refused;
        EXPECT_GT(std::string(e.what()).size(), 10u);
      }
    }
    EXPECT_GT(refused, 0u) << name;
    write(name, whole);
  }
  EXPECT_NO_THROW(open());
}

}  // namespace
}  // namespace quire
