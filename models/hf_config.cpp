#include "models/hf_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "models/hf_rope.h"
#include "models/neutral_key.h"

namespace quire {

namespace {

constexpr int64_t kMostLayers = 10000;  // a bound for lists of one entry a layer

// An architecture as transformers names it, with the defaults of its configuration class.
struct Architecture {
  const char *name, *model_type, *family;
  int64_t context;
  std::string_view reads[4];  // of the keys below those it has a meaning for itself
};

constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM", "llama", "llama", 2048, {}},
    {"QuarotLlamaForCausalLM", kQuarotModel, "llama", 2048, {}},
    {"MistralForCausalLM", "mistral", "mistral", 131072, {"sliding_window"}},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", 32768, {"sliding_window"}},
};

// Keys of other networks. What an architecture itself does not know has no effect there and none here.
constexpr NeutralKey kNeutralKeys[] = {
    {"sliding_window", {0, 0}},
    {"num_experts", {0, 0}},
    {"num_local_experts", {0, 0}},
    {"n_routed_experts", {0, 0}},
    {"num_experts_per_tok", {0, 0}},
    {"attn_logit_softcapping", {0, 0}},
    {"final_logit_softcapping", {0, 0}},
    {"embedding_multiplier", {1, 1}},
    {"attention_multiplier", {0, 0}},
    {"residual_multiplier", {1, 1}},
    {"logits_scaling", {1, 1}},
    {"logit_scale", {1, 1}},
    {"partial_rotary_factor", {1, 1}},
    {"query_pre_attn_scalar", {0, 0}},
    {"rope_interleaved", {0, 0}},
    {"use_qk_norm", {0, 0}},
    {"qk_norm", {0, 0}},
    {"clip_qkv", {0, 0}},
    {"alibi", {0, 0}},
    {"is_encoder_decoder", {0, 0}},
    {"use_parallel_residual", {0, 0}},
    {"parallel_residual", {0, 0}},
    {"scale_embeddings", {0, 0}},
};

const Architecture& find_architecture(const JsonObject& o) {
  const Json* names = o.array("architectures");
  const std::string type = o.text("model_type").value_or("");
  std::string known;
  for (const Architecture& a : kArchitectures) {
    const bool named = names && names->size() == 1 && (*names)[0] == a.name;
    if (named || (!names && type == a.model_type)) {
      check(type == a.model_type || type.empty(), "{}: model_type '{}' does not go with {}; '{}' does", o.where(),
            printable(type), a.name, a.model_type);
      return a;
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", a.name);
  }
  fail(fmt::format("{}: architecture {} (model_type '{}') is not supported; known: {}", o.where(),
                   names ? printable_json(*names) : "unnamed", printable(type), known));
}

void check_loadable(const JsonObject& o) {
  // That of QuaRot is known: hf_quarot.cpp.
  check(!o.find("auto_map") || o.text("model_type") == kQuarotModel,
        "{}: 'auto_map' asks for the model's own Python code, which cannot run here", o.where());
}

void check_neutral(const JsonObject& o, const Architecture& a) {
  for (const NeutralKey& n : kNeutralKeys) {
    const Json* v = o.find(std::string(n.key));
    if (!v || std::find(std::begin(a.reads), std::end(a.reads), n.key) != std::end(a.reads)) continue;
    const double x = v->is_boolean() ? double(v->get<bool>()) : v->is_number() ? v->get<double>() : NAN;
    check(n.allows(x), "{}: '{}' = {} changes the network in a way that is not supported", o.where(), n.key,
          printable_json(*v));
  }
  const std::string act = o.text("hidden_act").value_or("silu");
  check(act == "silu" || act == "swish", "{}: hidden_act '{}' is not supported; 'silu' is", o.where(), printable(act));
}

// Which layers see a window only: layer_types where it is spelled out, else `by_default`.
template <class Fn>
void read_windowed(const JsonObject& o, ModelConfig& c, Fn&& by_default) {
  const Json* types = o.array("layer_types");
  check(!types || int64_t(types->size()) == c.layers, "{}: layer_types has {} entries for {} layers", o.where(),
        types ? types->size() : 0, c.layers);
  bool some = false, all = true;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    bool windowed = by_default(layer);
    if (types) {
      const Json& type = (*types)[size_t(layer)];
      windowed = type == "sliding_attention";
      check(windowed || type == "full_attention",
            "{}: a layer of type {} is not supported; \"full_attention\" and \"sliding_attention\" are", o.where(),
            printable_json(type));
    }
    check(!windowed || c.window > 0, "{}: layer {} attends to a window, but 'sliding_window' is not set", o.where(),
          layer);
    c.windowed.push_back(windowed);
    some = some || windowed;
    all = all && windowed;
  }
  if (!some) c.window = 0;
  if (!some || all) c.windowed.clear();
}

int64_t read_window(const JsonObject& o, int64_t by_default) {
  if (o.json().contains("sliding_window") && !o.find("sliding_window")) return 0;  // null: none
  const int64_t window = o.integer("sliding_window").value_or(by_default);
  check(window > 0, "{}: sliding_window is {}; it must be positive, or null", o.where(), window);
  return window;
}

void read_attention(const JsonObject& o, ModelConfig& c) {
  const auto nowhere = [](int64_t) { return false; };
  if (c.family == "mistral") {
    c.window = read_window(o, 4096);
    read_windowed(o, c, [&](int64_t) { return c.window > 0; });
  } else if (c.family == "qwen2") {
    c.window = o.boolean("use_sliding_window").value_or(false) ? read_window(o, 4096) : 0;
    const int64_t first = o.integer("max_window_layers").value_or(28);
    read_windowed(o, c, [&](int64_t layer) { return c.window > 0 && layer >= first; });
    c.attention_bias = true;
  } else {
    read_windowed(o, c, nowhere);
    c.attention_bias = o.boolean("attention_bias").value_or(false);
    c.mlp_bias = o.boolean("mlp_bias").value_or(false);
  }
}

}  // namespace

ModelConfig read_hf_config(const JsonObject& o) {
  const Architecture& architecture = find_architecture(o);
  check_loadable(o);
  check_neutral(o, architecture);
  ModelConfig c;
  c.family = architecture.family;
  c.name = o.text("_name_or_path").value_or("");
  c.hidden = o.needed_integer("hidden_size");
  c.ffn = o.needed_integer("intermediate_size");
  c.layers = o.needed_integer("num_hidden_layers");
  check(c.layers >= 1 && c.layers <= kMostLayers, "{}: num_hidden_layers is {}; 1 to {} are allowed in this model",
        o.where(), c.layers, kMostLayers);
  c.heads = o.needed_integer("num_attention_heads");
  c.vocab = o.needed_integer("vocab_size");
  c.kv_heads = o.integer("num_key_value_heads").value_or(c.heads);
  check(c.heads > 0, "{}: num_attention_heads is {}", o.where(), c.heads);
  const auto head_dim = o.integer("head_dim");
  check(head_dim || c.hidden % c.heads == 0, "{}: {} dimensions do not divide into {} heads", o.where(), c.hidden,
        c.heads);
  c.head_dim = c.rope_dim = head_dim ? *head_dim : c.hidden / c.heads;
  c.context = o.integer("max_position_embeddings").value_or(architecture.context);
  c.norm_eps = o.number("rms_norm_eps").value_or(1e-6);
  c.tied_embeddings = o.boolean("tie_word_embeddings").value_or(false);
  read_attention(o, c);
  read_hf_rope(o, c);
  return c;
}

}  // namespace quire
