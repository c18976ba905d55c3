#include "models/hf_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "models/family.h"
#include "models/hf_rope.h"
#include "models/neutral_key.h"

namespace quire {

namespace {

constexpr int64_t kMostLayers = 10000;  // a bound for lists of one entry a layer

// An architecture as transformers names it, with the defaults of its configuration class.
struct Architecture {
  const char *name, *model_type, *family;
  int64_t context;
  int64_t kv_heads = 0;  // 0: as many as query heads
  int64_t head_dim = 0;  // 0: hidden / heads
  double norm_eps = 1e-6, rope_theta = 1e4;
  bool tied = false;
  std::string_view reads[2] = {};  // of the keys below those it has a meaning for itself
};

constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM", "llama", "llama", 2048},
    {"QuarotLlamaForCausalLM", kQuarotModel, "llama", 2048},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .family = "mistral",
     .context = 131072,
     .kv_heads = 8,
     .reads = {"sliding_window"}},
    {.name = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .family = "qwen2",
     .context = 32768,
     .kv_heads = 32,
     .reads = {"sliding_window"}},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .family = "qwen3",
     .context = 32768,
     .kv_heads = 32,
     .head_dim = 128,
     .reads = {"sliding_window"}},
    {.name = "Gemma3ForCausalLM",
     .model_type = "gemma3_text",
     .family = "gemma3",
     .context = 131072,
     .kv_heads = 4,
     .head_dim = 256,
     .rope_theta = 1e6,
     .tied = true,
     .reads = {"sliding_window", "query_pre_attn_scalar"}},
    {.name = "Phi3ForCausalLM",
     .model_type = "phi3",
     .family = "phi3",
     .context = 4096,
     .norm_eps = 1e-5,
     .reads = {"sliding_window", "partial_rotary_factor"}},
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
    {"use_bidirectional_attention", {0, 0}},
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

void check_loadable(const JsonObject& o, const Architecture& a) {
  // That of QuaRot is known (hf_quarot.cpp), that of Phi 3 became transformers' own.
  const Json* map = o.find("auto_map");
  if (!map || a.model_type == std::string_view(kQuarotModel)) return;
  bool known = map->is_object();
  for (const auto& [name, code] : map->items()) {
    const std::string module = code.is_string() ? code.get<std::string>() : "";
    const bool phi3 = a.family == std::string_view("phi3") &&
                      (module.starts_with("configuration_phi3.") || module.starts_with("modeling_phi3."));
    // A tokenizer is what its files say, whoever else may read them.
    known = known && (name == "AutoTokenizer" || phi3);
  }
  check(known, "{}: 'auto_map' asks for the model's own Python code, which cannot run here", o.where());
}

void check_neutral(const JsonObject& o, const Architecture& a) {
  for (const NeutralKey& n : kNeutralKeys) {
    const Json* v = o.find(std::string(n.key));
    if (!v || std::find(std::begin(a.reads), std::end(a.reads), n.key) != std::end(a.reads)) continue;
    const double x = v->is_boolean() ? double(v->get<bool>()) : v->is_number() ? v->get<double>() : NAN;
    check(n.allows(x), "{}: '{}' = {} changes the network in a way that is not supported", o.where(), n.key,
          printable_json(*v));
  }
  const bool gelu = find_family(a.family).activation == Gate::gelu_tanh;
  const char *key = gelu ? "hidden_activation" : "hidden_act", *wanted = gelu ? "gelu_pytorch_tanh" : "silu";
  const std::string act = o.text(key).value_or(wanted);
  check(act == wanted || (!gelu && act == "swish"), "{}: {} '{}' is not supported; '{}' is", o.where(), key,
        printable(act), wanted);
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
  const auto given = o.integer("sliding_window");
  const int64_t window = given.value_or(by_default);
  check(window > 0 || !given, "{}: sliding_window is {}; it must be positive, or null", o.where(), window);
  return window;
}

void read_gemma(const JsonObject& o, ModelConfig& c) {
  const int64_t pattern = o.integer("sliding_window_pattern").value_or(6);
  check(pattern > 0, "{}: sliding_window_pattern is {}; it must be positive", o.where(), pattern);
  c.window = read_window(o, 4096);
  read_windowed(o, c, [&](int64_t layer) { return (layer + 1) % pattern != 0; });
  const double scalar = o.number("query_pre_attn_scalar").value_or(256);
  check(std::isfinite(scalar) && scalar > 0, "{}: query_pre_attn_scalar is {}; it must be positive", o.where(), scalar);
  if (scalar != double(c.head_dim)) c.query_scalar = scalar;
  c.norm_offset = o.number(kNormOffsetKey).value_or(1.0);
}

void read_attention(const JsonObject& o, ModelConfig& c) {
  const auto nowhere = [](int64_t) { return false; };
  const auto everywhere = [&](int64_t) { return c.window > 0; };
  c.attention_bias = o.boolean("attention_bias").value_or(false);
  if (c.family == "mistral" || c.family == "phi3") {
    c.window = read_window(o, c.family == "mistral" ? 4096 : 0);
    read_windowed(o, c, everywhere);
    c.attention_bias = false;  // not a key of theirs
  } else if (c.family == "qwen2" || c.family == "qwen3") {
    c.window = o.boolean("use_sliding_window").value_or(false) ? read_window(o, 4096) : 0;
    const int64_t first = o.integer("max_window_layers").value_or(28);
    read_windowed(o, c, [&](int64_t layer) { return c.window > 0 && layer >= first; });
    c.attention_bias = c.attention_bias || c.family == "qwen2";
  } else if (c.family == "gemma3") {
    read_gemma(o, c);
  } else {
    read_windowed(o, c, nowhere);
    c.mlp_bias = o.boolean("mlp_bias").value_or(false);
  }
}

}  // namespace

ModelConfig read_hf_config(const JsonObject& o) {
  const Architecture& architecture = find_architecture(o);
  check_loadable(o, architecture);
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
  // null means as many, also where a class has another default.
  const bool as_many = architecture.kv_heads == 0 || o.json().contains("num_key_value_heads");
  c.kv_heads = o.integer("num_key_value_heads").value_or(as_many ? c.heads : architecture.kv_heads);
  check(c.heads > 0, "{}: num_attention_heads is {}", o.where(), c.heads);
  auto head_dim = o.integer("head_dim");
  if (!head_dim && architecture.head_dim > 0) head_dim = architecture.head_dim;
  check(head_dim || c.hidden % c.heads == 0, "{}: {} dimensions do not divide into {} heads", o.where(), c.hidden,
        c.heads);
  c.head_dim = c.rope_dim = head_dim ? *head_dim : c.hidden / c.heads;
  c.context = o.integer("max_position_embeddings").value_or(architecture.context);
  c.norm_eps = o.number("rms_norm_eps").value_or(architecture.norm_eps);
  c.rope_theta = architecture.rope_theta;
  c.tied_embeddings = o.boolean("tie_word_embeddings").value_or(architecture.tied);
  read_attention(o, c);
  read_hf_rope(o, c);
  return c;
}

HfArchitectureNames hf_architecture_names(const std::string& family) {
  for (const Architecture& a : kArchitectures) {
    if (family == a.family) return {a.name, a.model_type};
  }
  fail(fmt::format("models of the family '{}' have no name in a HuggingFace directory", family));
}

}  // namespace quire
