// The tiny model as Phi 3's files hold it: q, k, v and gate, up as one matrix each, one part after the other.
#pragma once
#include "tests/tiny_model.h"

namespace quire {

// Of a fused module "model.layers.0.self_attn.qkv_proj": the network's, in the order of its rows; of others: itself.
inline std::vector<std::string> parts_of(const std::string& module) {
  const std::pair<const char*, std::vector<const char*>> kFused[] = {{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
                                                                     {"gate_up_proj", {"gate_proj", "up_proj"}}};
  for (const auto& [fused, names] : kFused) {
    if (!module.ends_with(fused)) continue;
    std::vector<std::string> parts;
    for (const char* name : names) parts.push_back(module.substr(0, module.rfind('.') + 1) + name);
    return parts;
  }
  return {module};
}

inline TinyModel make_fused_model(const TinyModelOptions& options) {
  TinyModel split = make_tiny_model(options), model;
  model.config = split.config;
  model.tokenizer = split.tokenizer;
  for (TinyTensor& t : split.tensors) {
    const std::string layer = t.name.substr(0, t.name.find("_proj"));  // "model.layers.0.self_attn.q"
    const bool q = layer.ends_with(".q"), gate = layer.ends_with(".gate");
    const bool later = layer.ends_with(".k") || layer.ends_with(".v") || layer.ends_with(".up");
    if (later) continue;  // went with the first
    if (!q && !gate) {
      model.tensors.push_back({t.name, std::move(t.weight)});
      continue;
    }
    const std::string module = layer + (q ? "kv_proj" : "_up_proj");
    std::string bytes;
    int64_t rows = 0;
    for (const std::string& part : parts_of(module)) {
      const Tensor& x = split.get(part + ".weight");
      bytes += bytes_of(x);
      rows += x.rows;
    }
    OwnedTensor whole = make_tensor(format_of(t.weight.tensor), rows, t.weight.tensor.cols);
    check(bytes_of(whole.tensor).size() == bytes.size(), "rows of '{}' are padded", module);
    std::memcpy(whole.tensor.data.ptr, bytes.data(), bytes.size());
    model.tensors.push_back({module + ".weight", std::move(whole)});
  }
  return model;
}

inline nlohmann::ordered_json phi3_config(const TinyModel& model) {
  nlohmann::ordered_json config = tiny_hf_config(model);
  config["architectures"] = {"Phi3ForCausalLM"};
  config["model_type"] = "phi3";
  return config;
}

}  // namespace quire
