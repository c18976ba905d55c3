// The tiny models of tools/golden_families.py: weights are made from names, as there; a directory or a GGUF file of
// them.
#pragma once
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/test_data.h"
#include "tests/tiny_model.h"

namespace quire {

using GoldenJson = nlohmann::json;

inline const GoldenJson& golden_families() {
  static const GoldenJson golden = [] {
    std::ifstream file(source_file("tests/models/golden_families.json"));
    return GoldenJson::parse(file);
  }();
  return golden;
}

inline std::string model_type_of(const GoldenJson& golden) { return golden["config"]["model_type"]; }

inline std::vector<float> family_weight(const std::string& name, const std::vector<int64_t>& shape, bool gemma) {
  uint32_t seed = 2166136261u;
  for (const char c : name) seed = (seed ^ uint8_t(c)) * 16777619u;
  const int64_t count = shape.size() == 2 ? shape[0] * shape[1] : shape[0];
  float spread = 0.25f, middle = gemma || name.ends_with(".bias") ? 0.0f : 1.0f;
  if (shape.size() == 2) {
    spread = name == "model.embed_tokens.weight" ? 0.5f : std::sqrt(3.0f / float(shape[1]));
    middle = 0.0f;
  }
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t x = (uint64_t(i) + seed) * 0x9E3779B97F4A7C15u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    const float u = float(int64_t(x >> 40) - (1 << 23)) / float(1 << 23);
    out.push_back(u * spread + middle);
  }
  return out;
}

// fn(name, shape, values) of each tensor.
template <class Fn>
void each_family_tensor(const GoldenJson& golden, Fn&& fn) {
  for (const GoldenJson& t : golden["tensors"]) {
    const std::string name = t[0];
    const auto shape = t[1].get<std::vector<int64_t>>();
    fn(name, shape, family_weight(name, shape, model_type_of(golden) == "gemma3_text"));
  }
}

inline std::string_view bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * 4};
}

inline std::string write_family_directory(const GoldenJson& golden, const std::string& dir) {
  const TinyModel tiny = make_tiny_model();  // for its tokenizer
  write_tiny_hf(tiny, dir);
  SafetensorsWriter w;
  each_family_tensor(golden, [&](const std::string& name, const std::vector<int64_t>& shape, const auto& values) {
    w.tensor(name, "F32", shape, std::string(bytes_of(values)));
  });
  write_file(dir + "/model.safetensors", w.file());
  write_file(dir + "/config.json", golden["config"].dump());
  return dir;
}

inline Tensor f32_rows(std::vector<float>& values, int64_t rows, int64_t cols) {
  Tensor t;
  t.codec = id<F32>;
  t.rows = rows;
  t.cols = cols;
  t.data = {reinterpret_cast<std::byte*>(values.data()), cols * 4, 1};
  return t;
}

// As converters to GGUF write it; `factors` and `amplitude`: of the rope, where they write them.
inline std::string write_family_gguf(const GoldenJson& golden, const std::string& path,
                                     const std::vector<std::pair<std::string, std::vector<float>>>& factors = {},
                                     float amplitude = 1.0f) {
  const GoldenJson& c = golden["config"];
  const std::string type = model_type_of(golden), arch = type == "gemma3_text" ? "gemma3"
                                                         : type == "mistral"   ? "llama"
                                                                               : type;
  const int64_t heads = c["num_attention_heads"], hidden = c["hidden_size"];
  const int64_t head_dim = c.value("head_dim", hidden / heads);
  GgufWriter w;
  w.text("general.architecture", arch);
  const auto u32 = [&](const std::string& key, const GoldenJson& value) { w.u32(arch + "." + key, value); };
  u32("block_count", c["num_hidden_layers"]);
  u32("context_length", c["max_position_embeddings"]);
  u32("embedding_length", c["hidden_size"]);
  u32("feed_forward_length", c["intermediate_size"]);
  u32("attention.head_count", c["num_attention_heads"]);
  u32("attention.head_count_kv", c["num_key_value_heads"]);
  u32("attention.key_length", head_dim);
  u32("attention.value_length", head_dim);
  u32("rope.dimension_count", int64_t(double(head_dim) * c.value("partial_rotary_factor", 1.0)));
  if (c.contains("original_max_position_embeddings")) {
    u32("rope.scaling.original_context_length", c["original_max_position_embeddings"]);
  }
  if ((arch == "gemma3" || arch == "phi3") && c.contains("sliding_window")) {
    u32("attention.sliding_window", c["sliding_window"]);
  }
  if (c.contains("sliding_window_pattern")) u32("attention.sliding_window_pattern", c["sliding_window_pattern"]);
  if (c.contains("rope_local_base_freq")) w.f32(arch + ".rope.freq_base_swa", c["rope_local_base_freq"]);
  w.f32(arch + ".rope.freq_base", c.value("rope_theta", 10000.0f));
  w.f32(arch + ".attention.layer_norm_rms_epsilon", c["rms_norm_eps"]);
  const GoldenJson scaling = c.value("rope_scaling", GoldenJson::object());
  if (scaling.contains("factor") && factors.empty()) {
    w.text(arch + ".rope.scaling.type", scaling.value("rope_type", scaling.value("type", "")));
    w.f32(arch + ".rope.scaling.factor", scaling["factor"]);
    if (scaling.contains("original_max_position_embeddings")) {
      u32("rope.scaling.original_context_length", scaling["original_max_position_embeddings"]);
    }
  }
  if (amplitude != 1.0f) w.f32(arch + ".rope.scaling.attn_factor", amplitude);
  const TokenizerData t = tiny_tokenizer();
  w.text("tokenizer.ggml.model", "gpt2");
  w.text("tokenizer.ggml.pre", "smollm");
  w.texts("tokenizer.ggml.tokens", t.tokens);
  w.texts("tokenizer.ggml.merges", t.merges);
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, const std::string& bytes) {
    std::vector<uint64_t> dims(shape.rbegin(), shape.rend());
    w.tensor(name, dims, 0, bytes);
  };
  each_family_tensor(
      golden, [&](const std::string& name, const std::vector<int64_t>& shape, std::vector<float> values) {
        if (arch == "gemma3" && shape.size() == 1) {
          for (float& x : values) x = 1.0f + x;  // converters do
        }
        constexpr std::pair<const char*, const char*> kNames[] = {{"model.embed_tokens", "token_embd"},
                                                                  {"model.norm", "output_norm"},
                                                                  {"lm_head", "output"},
                                                                  {"model.layers", "blk"},
                                                                  {"self_attn.q_proj", "attn_q"},
                                                                  {"self_attn.k_proj", "attn_k"},
                                                                  {"self_attn.v_proj", "attn_v"},
                                                                  {"self_attn.o_proj", "attn_output"},
                                                                  {"self_attn.qkv_proj", "attn_qkv"},
                                                                  {"self_attn.q_norm", "attn_q_norm"},
                                                                  {"self_attn.k_norm", "attn_k_norm"},
                                                                  {"mlp.gate_up_proj", "ffn_up"},
                                                                  {"mlp.gate_proj", "ffn_gate"},
                                                                  {"mlp.up_proj", "ffn_up"},
                                                                  {"mlp.down_proj", "ffn_down"},
                                                                  {"input_layernorm", "attn_norm"},
                                                                  {"pre_feedforward_layernorm", "ffn_norm"},
                                                                  {"post_feedforward_layernorm", "post_ffw_norm"}};
        std::string gguf = name;
        const auto put = [&](const std::string& from, const std::string& to) {
          if (const size_t at = gguf.find(from); at != std::string::npos) gguf.replace(at, from.size(), to);
        };
        for (const auto& [from, to] : kNames) put(from, to);
        put("post_attention_layernorm", arch == "gemma3" ? "post_attention_norm" : "ffn_norm");
        std::string bytes(bytes_of(values));
        if (arch == "llama" && (name.find("q_proj") != name.npos || name.find("k_proj") != name.npos)) {
          const int64_t rows = shape[0], cols = shape.size() == 2 ? shape[1] : 1;
          bytes = interleave_heads(f32_rows(values, rows, cols), head_dim);
        }
        add(gguf, shape, bytes);
      });
  for (const auto& [name, values] : factors) add(name, {int64_t(values.size())}, std::string(bytes_of(values)));
  write_file(path, w.file());
  return path;
}

}  // namespace quire
