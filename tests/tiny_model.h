// A small random Llama with a real tokenizer and chat template, as a GGUF file or a HuggingFace directory. The same
// options give the same weights, whatever the container; in float formats both containers hold them bit for bit.
//
//   TempDir dir;
//   const TinyModel model = make_tiny_model({.matrices = id<Q4_1>});
//   const Checkpoint checkpoint = Checkpoint::open(write_tiny_gguf(model, dir.file("tiny.gguf")));
#pragma once
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/tokenizer_data.h"
#include "quant/storage.h"
#include "tests/models/gguf_writer.h"
#include "tests/models/safetensors_writer.h"
#include "tests/random_blocks.h"

namespace quire {

struct TinyModelOptions {
  int64_t layers = 2, hidden = 64, ffn = 96, heads = 4, kv_heads = 2, head_dim = 16, context = 512;
  bool tied = true;
  bool attention_bias = false, mlp_bias = false;
  Codec embedding = id<F32>, matrices = id<F32>;  // norms and biases are f32; a directory holds f32, f16 and bf16 only
  std::map<std::string, Codec> mixed = {};        // matrices in another format, by their last name: "v_proj"
  uint64_t seed = 1;
};

struct TinyTensor {
  std::string name;  // HuggingFace name and order of rows
  OwnedTensor weight;
};

struct TinyModel {
  ModelConfig config;
  TokenizerData tokenizer;  // split_patterns empty: the containers name them ("smollm")
  std::vector<TinyTensor> tensors;

  const Tensor& get(const std::string& name) const {
    for (const TinyTensor& t : tensors) {
      if (t.name == name) return t.weight.tensor;
    }
    fail("the tiny model has no tensor '" + name + "'");
  }
};

// GPT-2's printable alphabet: the character that stands for each byte.
inline std::vector<std::string> byte_alphabet() {
  std::vector<std::string> out;
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const uint32_t code = itself ? b : next++;
    std::string text;
    if (code < 0x80)
      text = {char(code)};
    else
      text = {char(0xC0 | code >> 6), char(0x80 | (code & 63))};
    out.push_back(text);
  }
  return out;
}

// 3 control tokens, 256 bytes, 41 merges: 300 tokens.
inline TokenizerData tiny_tokenizer() {
  TokenizerData t;
  t.model = "bpe";
  t.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  t.kinds.assign(3, TokenKind::control);
  for (const std::string& b : byte_alphabet()) t.tokens.push_back(b);
  t.merges = {"Ġ t", "Ġ a",  "h e",   "i n",  "r e", "o n", "Ġt he", "e r",  "Ġ s", "a t", "Ġ w", "o r", "Ġ o",  "e n",
              "Ġ c", "i s",  "i t",   "e s",  "Ġ f", "a n", "a l",   "in g", "Ġ b", "Ġ p", "e d", "o u", "Ġ in", "Ġo f",
              "a r", "Ġa n", "Ġan d", "Ġt o", "Ġ m", "r o", "l e",   "l l",  "Ġ d", "Ġ h", "Ċ Ċ", "o w", "Ġ is"};
  for (const std::string& merge : t.merges) {
    const size_t space = merge.find(' ');
    t.tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
  }
  t.kinds.resize(t.tokens.size(), TokenKind::normal);
  t.bos = 1;
  t.unknown = 0;
  t.pad = 2;
  t.eos = {2};
  t.chat_template =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
      "'\n'}}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  return t;
}

inline TinyModel make_tiny_model(const TinyModelOptions& o = {}) {
  TinyModel model;
  model.tokenizer = tiny_tokenizer();
  ModelConfig& c = model.config;
  c.family = "llama";
  c.name = "tiny";
  c.layers = o.layers, c.hidden = o.hidden, c.ffn = o.ffn, c.heads = o.heads, c.kv_heads = o.kv_heads;
  c.head_dim = c.rope_dim = o.head_dim;
  c.vocab = int64_t(model.tokenizer.tokens.size());
  c.context = o.context;
  c.tied_embeddings = o.tied;
  c.attention_bias = o.attention_bias;
  c.mlp_bias = o.mlp_bias;
  c.norm_eps = double(1e-5f);  // exact in both containers

  uint64_t state = o.seed * 0x9E3779B97F4A7C15u + 1;
  const auto uniform = [&] {  // [-1, 1), the same everywhere
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return float(int64_t(state >> 40) - (1 << 23)) / float(1 << 23);
  };
  const auto add = [&](const std::string& name, Codec codec, int64_t rows, int64_t cols, float middle, float spread) {
    OwnedTensor weight = make_tensor({codec, 0}, rows, cols);
    if (!info(codec).encode) {
      check(cols % info(codec).align == 0, "rows of {} values are no whole blocks of {}", cols, info(codec).name);
      std::mt19937 rng(uint32_t(state >> 32));
      uniform();
      fill_random_blocks(rng, weight, spread);
      model.tensors.push_back({name, std::move(weight)});
      return;
    }
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) {
      for (float& x : row) x = middle + spread * uniform();
      info(codec).encode(weight.tensor, r, 1, row.data(), cols, ScaleSource::found);
    }
    model.tensors.push_back({name, std::move(weight)});
  };
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    const std::string all = name.substr(0, name.rfind('.'));
    const auto other = o.mixed.find(all.substr(all.rfind('.') + 1));
    const Codec codec = other == o.mixed.end() ? o.matrices : other->second;
    add(name, codec, rows, cols, 0, std::sqrt(3.0f / float(cols)));  // unit gain
  };
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  add("model.embed_tokens.weight", o.embedding, c.vocab, c.hidden, 0, 0.5f);
  for (int64_t l = 0; l < c.layers; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l), attn = layer + "self_attn.", mlp = layer + "mlp.";
    add(layer + "input_layernorm.weight", id<F32>, 1, c.hidden, 1, 0.2f);
    matrix(attn + "q_proj.weight", q, c.hidden);
    matrix(attn + "k_proj.weight", kv, c.hidden);
    matrix(attn + "v_proj.weight", kv, c.hidden);
    matrix(attn + "o_proj.weight", c.hidden, q);
    add(layer + "post_attention_layernorm.weight", id<F32>, 1, c.hidden, 1, 0.2f);
    matrix(mlp + "gate_proj.weight", c.ffn, c.hidden);
    matrix(mlp + "up_proj.weight", c.ffn, c.hidden);
    matrix(mlp + "down_proj.weight", c.hidden, c.ffn);
    if (o.attention_bias) {
      add(attn + "q_proj.bias", id<F32>, 1, q, 0, 0.1f);
      add(attn + "k_proj.bias", id<F32>, 1, kv, 0, 0.1f);
      add(attn + "v_proj.bias", id<F32>, 1, kv, 0, 0.1f);
      add(attn + "o_proj.bias", id<F32>, 1, c.hidden, 0, 0.1f);
    }
    if (o.mlp_bias) {
      add(mlp + "gate_proj.bias", id<F32>, 1, c.ffn, 0, 0.1f);
      add(mlp + "up_proj.bias", id<F32>, 1, c.ffn, 0, 0.1f);
      add(mlp + "down_proj.bias", id<F32>, 1, c.hidden, 0, 0.1f);
    }
  }
  add("model.norm.weight", id<F32>, 1, c.hidden, 1, 0.2f);
  if (!o.tied) matrix("lm_head.weight", c.vocab, c.hidden);
  return model;
}

inline void write_file(const std::string& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), std::streamsize(content.size()));
  check(out.good(), "cannot write '{}'", path);
}

inline std::string_view bytes_of(const Tensor& t) {
  return {reinterpret_cast<const char*>(t.data.ptr), size_t(t.rows * t.data.pitch)};
}

inline std::string gguf_name(const std::string& name) {
  constexpr std::pair<const char*, const char*> kNames[] = {{"model.embed_tokens", "token_embd"},
                                                            {"model.norm", "output_norm"},
                                                            {"lm_head", "output"},
                                                            {"model.layers", "blk"},
                                                            {"input_layernorm", "attn_norm"},
                                                            {"post_attention_layernorm", "ffn_norm"},
                                                            {"self_attn.q_proj", "attn_q"},
                                                            {"self_attn.k_proj", "attn_k"},
                                                            {"self_attn.v_proj", "attn_v"},
                                                            {"self_attn.o_proj", "attn_output"},
                                                            {"mlp.gate_proj", "ffn_gate"},
                                                            {"mlp.up_proj", "ffn_up"},
                                                            {"mlp.down_proj", "ffn_down"}};
  std::string out = name;
  for (const auto& [hf, gguf] : kNames) {
    if (const size_t at = out.find(hf); at != std::string::npos) out.replace(at, std::string(hf).size(), gguf);
  }
  return out;
}

inline uint32_t gguf_type_of(Codec codec) {
  for (uint32_t type = 0; type < 64; ++type) {
    const GgufTensorType* found = find_gguf_type(type);
    if (found && found->codec == codec) return type;
  }
  fail(fmt::format("GGUF has no {}", info(codec).name));
}

// Rows (of a vector: elements) of q and k as converters to GGUF lay them: the two halves of each head interleaved.
inline std::string interleave_heads(const Tensor& t, int64_t head_dim) {
  const bool vector = t.rows == 1;
  const int64_t count = vector ? t.cols : t.rows, size = t.rows * t.data.pitch / count, half = head_dim / 2;
  std::string out;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t head = r / head_dim, i = r % head_dim / 2, h = r % 2;
    out += bytes_of(t).substr(size_t((head * head_dim + h * half + i) * size), size_t(size));
  }
  return out;
}

inline GgufWriter tiny_gguf_writer(const TinyModel& model) {
  GgufWriter w;
  const ModelConfig& c = model.config;
  const TokenizerData& t = model.tokenizer;
  w.text("general.architecture", "llama");
  w.text("general.name", c.name);
  w.u32("llama.block_count", uint32_t(c.layers));
  w.u32("llama.context_length", uint32_t(c.context));
  w.u32("llama.embedding_length", uint32_t(c.hidden));
  w.u32("llama.feed_forward_length", uint32_t(c.ffn));
  w.u32("llama.attention.head_count", uint32_t(c.heads));
  w.u32("llama.attention.head_count_kv", uint32_t(c.kv_heads));
  w.u32("llama.attention.key_length", uint32_t(c.head_dim));
  w.u32("llama.attention.value_length", uint32_t(c.head_dim));
  w.u32("llama.rope.dimension_count", uint32_t(c.rope_dim));
  w.f32("llama.rope.freq_base", float(c.rope_theta));
  w.f32("llama.attention.layer_norm_rms_epsilon", float(c.norm_eps));
  w.text("tokenizer.ggml.model", "gpt2");
  w.text("tokenizer.ggml.pre", "smollm");
  w.texts("tokenizer.ggml.tokens", t.tokens);
  std::vector<int32_t> kinds;
  for (const TokenKind kind : t.kinds) kinds.push_back(int32_t(kind) + 1);
  w.i32s("tokenizer.ggml.token_type", kinds);
  w.texts("tokenizer.ggml.merges", t.merges);
  w.u32("tokenizer.ggml.bos_token_id", uint32_t(t.bos));
  w.u32("tokenizer.ggml.eos_token_id", uint32_t(t.eos.at(0)));
  w.u32("tokenizer.ggml.unknown_token_id", uint32_t(t.unknown));
  w.u32("tokenizer.ggml.padding_token_id", uint32_t(t.pad));
  w.boolean("tokenizer.ggml.add_bos_token", t.add_bos);
  w.text("tokenizer.chat_template", t.chat_template);
  for (const TinyTensor& tensor : model.tensors) {
    const Tensor& x = tensor.weight.tensor;
    const bool rotated =
        tensor.name.find("q_proj") != std::string::npos || tensor.name.find("k_proj") != std::string::npos;
    std::vector<uint64_t> dims = {uint64_t(x.cols)};
    if (x.rows > 1) dims.push_back(uint64_t(x.rows));
    w.tensor(gguf_name(tensor.name), dims, gguf_type_of(x.codec),
             rotated ? interleave_heads(x, c.head_dim) : std::string(bytes_of(x)));
  }
  return w;
}

inline std::string write_tiny_gguf(const TinyModel& model, const std::string& path) {
  write_file(path, tiny_gguf_writer(model).file());
  return path;
}

inline nlohmann::ordered_json tiny_hf_config(const TinyModel& model) {
  const ModelConfig& c = model.config;
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"_name_or_path", c.name},
          {"hidden_act", "silu"},
          {"hidden_size", c.hidden},
          {"intermediate_size", c.ffn},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"max_position_embeddings", c.context},
          {"rope_theta", c.rope_theta},
          {"rope_scaling", nullptr},
          {"rms_norm_eps", c.norm_eps},
          {"vocab_size", c.vocab},
          {"tie_word_embeddings", c.tied_embeddings},
          {"attention_bias", c.attention_bias},
          {"mlp_bias", c.mlp_bias},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

inline nlohmann::ordered_json tiny_hf_tokenizer(const TinyModel& model) {
  using Json = nlohmann::ordered_json;
  const TokenizerData& t = model.tokenizer;
  Json added = Json::array(), vocab = Json::object();
  for (size_t i = 0; i < t.tokens.size(); ++i) {
    vocab[t.tokens[i]] = i;
    if (t.kinds[i] != TokenKind::control) continue;
    added.push_back({{"id", i},
                     {"content", t.tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {digits, byte_level}}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", "<|endoftext|>"},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", t.merges}}}};
}

inline nlohmann::ordered_json tiny_hf_tokenizer_config(const TinyModel& model) {
  return {{"tokenizer_class", "GPT2Tokenizer"},
          {"bos_token", "<|im_start|>"},
          {"eos_token", "<|im_end|>"},
          {"unk_token", "<|endoftext|>"},
          {"pad_token", "<|im_end|>"},
          {"add_prefix_space", false},
          {"chat_template", model.tokenizer.chat_template}};
}

inline const char* safetensors_type_of(Codec codec) {
  check(codec == id<F32> || codec == id<F16> || codec == id<BF16>, "a HuggingFace directory of {} is not written here",
        info(codec).name);
  return codec == id<F32> ? "F32" : codec == id<F16> ? "F16" : "BF16";
}

// `dir` is made if it is not there. With more than one shard, tensors are dealt out in turn and an index is written.
inline std::string write_tiny_hf(const TinyModel& model, const std::string& dir, int shards = 1) {
  std::filesystem::create_directories(dir);
  std::vector<SafetensorsWriter> files(static_cast<size_t>(shards));
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  const auto file_name = [&](size_t i) {
    return shards == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards);
  };
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const Tensor& x = model.tensors[i].weight.tensor;
    std::vector<int64_t> shape = {x.cols};
    if (x.rows > 1) shape.insert(shape.begin(), x.rows);
    files[i % files.size()].tensor(model.tensors[i].name, safetensors_type_of(x.codec), shape, bytes_of(x));
    map[model.tensors[i].name] = file_name(i % files.size());
  }
  for (size_t i = 0; i < files.size(); ++i) write_file(dir + "/" + file_name(i), files[i].file());
  if (shards > 1) {
    write_file(dir + "/model.safetensors.index.json",
               nlohmann::ordered_json{{"metadata", nlohmann::ordered_json::object()}, {"weight_map", map}}.dump());
  }
  write_file(dir + "/config.json", tiny_hf_config(model).dump(2));
  write_file(dir + "/tokenizer.json", tiny_hf_tokenizer(model).dump());
  write_file(dir + "/tokenizer_config.json", tiny_hf_tokenizer_config(model).dump(2));
  write_file(dir + "/generation_config.json", R"({"bos_token_id": 1, "eos_token_id": 2})");
  return dir;
}

}  // namespace quire
