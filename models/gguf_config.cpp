#include "models/gguf_config.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/printable.h"
#include "models/family.h"
#include "models/neutral_key.h"
#include "models/rope_scaling.h"

namespace quire {

namespace {

constexpr std::string_view kUsedKeys[] = {
    "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
    "rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor",
    // Notes about how the weights were made or trained, without effect on the maths.
    "tensor_data_layout", "rope.scaling.finetuned"};

constexpr NeutralKey kNeutralKeys[] = {
    {"rope.scale_linear", {1, 0}},
    {"expert_count", {0, 0}},
    {"expert_used_count", {0, 0}},
    {"attention.sliding_window", {0, 0}},
    {"attention.scale", {0, 0}},
    {"attention.clamp_kqv", {0, 0}},
    {"attention.max_alibi_bias", {0, 0}},
    {"attn_logit_softcapping", {0, 0}},
    {"final_logit_softcapping", {0, 0}},
    {"logit_scale", {1, 0}},
    {"residual_scale", {1, 0}},
    {"embedding_scale", {1, 0}},
    {"attention.causal", {1, 1}},
    {"use_parallel_residual", {0, 0}},
    {"pooling_type", {0, 0}},
};

struct Architecture {
  const char *name, *family;
  std::string_view reads[3];  // keys that it has a meaning for
};

constexpr Architecture kArchitectures[] = {
    {"llama", "llama", {}},  // Mistral too
    {"qwen2", "qwen2", {}},
    {"qwen3", "qwen3", {}},
    {"gemma3", "gemma3", {"attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"}},
    {"phi3", "phi3", {"attention.sliding_window"}},
};

const Architecture& find_architecture(const GgufFile& file) {
  const auto name = file.text("general.architecture");
  check(name.has_value(), "'{}': metadata key 'general.architecture' is missing", file.path());
  std::string known;
  for (const Architecture& a : kArchitectures) {
    if (*name == a.name) return a;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", a.name);
  }
  fail(fmt::format("'{}': architecture '{}' is not supported; known: {}", file.path(), printable(*name), known));
}

double number_or_bool(const GgufFile& file, const std::string& key) {
  if (file.find(key)->type == GgufType::boolean) return *file.boolean(key) ? 1 : 0;
  return *file.number(key);
}

// A network key this reader does not know may change the results: it is refused, never ignored.
void check_network_keys(const GgufFile& file, const Architecture& a) {
  const std::string prefix = std::string(a.name) + ".";
  for (const GgufValue& v : file.metadata()) {
    if (!v.key.starts_with(prefix)) continue;
    const std::string_view suffix = std::string_view(v.key).substr(prefix.size());
    bool known = false;
    for (const std::string_view used : kUsedKeys) known = known || suffix == used;
    for (const std::string_view used : a.reads) known = known || suffix == used;
    for (const NeutralKey& n : kNeutralKeys) {
      if (known || suffix != n.key) continue;
      const double x = number_or_bool(file, v.key);
      check(n.allows(x), "'{}': {} = {} changes the network in a way that is not supported (only {} is)", file.path(),
            v.key, printable_value(v), n.values[0]);
      known = true;
    }
    check(known, "'{}': unknown key {} = {}; it may change the network, so the file is refused", file.path(),
          printable(v.key), printable_value(v));
  }
}

class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, const Architecture& architecture)
      : file_(file), prefix_(std::string(architecture.name) + "."), family_(architecture.family) {}

  ModelConfig read() {
    ModelConfig c;
    c.family = family_;
    c.name = file_.text("general.name").value_or(std::filesystem::path(file_.path()).stem().string());
    c.layers = needed("block_count");
    c.hidden = needed("embedding_length");
    c.ffn = needed("feed_forward_length");
    c.heads = needed("attention.head_count");
    c.kv_heads = integer("attention.head_count_kv").value_or(c.heads);
    c.context = needed("context_length");
    check(c.heads > 0, "'{}': {}attention.head_count is {}", file_.path(), prefix_, c.heads);
    const auto head_dim = integer("attention.key_length");
    check(head_dim || c.hidden % c.heads == 0, "'{}': {} dimensions do not divide into {} heads", file_.path(),
          c.hidden, c.heads);
    c.head_dim = head_dim ? *head_dim : c.hidden / c.heads;
    const int64_t value_dim = integer("attention.value_length").value_or(c.head_dim);
    check(value_dim == c.head_dim, "'{}': values of {} dimensions beside keys of {} are not supported", file_.path(),
          value_dim, c.head_dim);
    c.rope_dim = integer("rope.dimension_count").value_or(c.head_dim);
    c.rope_theta = number("rope.freq_base").value_or(10000.0);
    const auto eps = number("attention.layer_norm_rms_epsilon");
    check(eps.has_value(), "'{}': metadata key '{}attention.layer_norm_rms_epsilon' is missing", file_.path(), prefix_);
    c.norm_eps = *eps;
    read_scaling(c);
    if (c.family == "gemma3") read_gemma(c);
    if (c.family == "phi3") c.window = integer("attention.sliding_window").value_or(0);
    check(c.window >= 0, "'{}': {}attention.sliding_window is {}", file_.path(), prefix_, c.window);
    return c;
  }

 private:
  std::optional<int64_t> integer(const char* key) const { return file_.integer(prefix_ + key); }
  std::optional<double> number(const char* key) const { return file_.number(prefix_ + key); }
  int64_t needed(const char* key) const {
    const auto value = integer(key);
    check(value.has_value(), "'{}': metadata key '{}{}' is missing", file_.path(), prefix_, key);
    return *value;
  }

  // The type is "linear" where none is named, as in llama.cpp; files of Phi 3 never name theirs.
  void read_scaling(ModelConfig& c) const {
    RopeScaling& s = c.rope_scaling;
    const std::string type =
        file_.text(prefix_ + "rope.scaling.type").value_or(family_ == "phi3" ? "longrope" : "linear");
    const double factor = number("rope.scaling.factor").value_or(0),
                 given = number("rope.scaling.attn_factor").value_or(1);
    const auto original = integer("rope.scaling.original_context_length");
    check(type == "none" || type == "linear" || type == "yarn" || type == "longrope",
          "'{}': {}rope.scaling.type '{}' is not supported; none, linear, yarn and longrope are", file_.path(), prefix_,
          printable(type));
    check(std::isfinite(factor) && factor >= 0 && std::isfinite(given) && given > 0 && original.value_or(1) > 0,
          "'{}': a rope scaled by {} ({}, from {} tokens) is not possible", file_.path(), factor, given,
          original.value_or(0));
    s.original_context = type == "longrope" || type == "yarn" ? original.value_or(c.context) : 0;
    if (type == "longrope") s.amplitude = given;  // the factors are tensors
    check(type == "longrope" || given == 1, "'{}': {}rope.scaling.attn_factor = {} is not supported with '{}'",
          file_.path(), prefix_, given, type);
    if (type == "none" || type == "longrope" || factor == 0 || factor == 1) return;
    s.kind = type == "linear" ? RopeScaling::Kind::linear : RopeScaling::Kind::yarn;
    s.factor = factor;
    if (type == "yarn") s.amplitude = yarn_amplitude(factor);
  }

  // What its files may leave out is the same in all of its sizes: five windowed layers before each other one, and
  // their rope. The largest has scores of its own scale.
  void read_gemma(ModelConfig& c) const {
    c.window = needed("attention.sliding_window");
    check(c.layers <= 1000, "'{}': {} layers are not supported in this family", file_.path(), c.layers);
    const int64_t pattern = integer("attention.sliding_window_pattern").value_or(6);
    check(pattern >= 1, "'{}': {}attention.sliding_window_pattern is {}; it must be positive", file_.path(), prefix_,
          pattern);
    if (pattern == 1) c.window = 0;  // no layer has one
    for (int64_t layer = 0; c.window > 0 && layer < c.layers; ++layer) c.windowed.push_back((layer + 1) % pattern != 0);
    if (c.window > 0 && c.layers < pattern) c.windowed.clear();  // all of them
    c.rope_theta_windowed = number("rope.freq_base_swa").value_or(10000.0);
    check(std::isfinite(c.rope_theta_windowed) && c.rope_theta_windowed > 0,
          "'{}': {}rope.freq_base_swa is {}; it must be positive", file_.path(), prefix_, c.rope_theta_windowed);
    if (c.layers == 62) c.query_scalar = double(c.hidden) / double(c.heads);
  }

  const GgufFile& file_;
  std::string prefix_, family_;
};

}  // namespace

ModelConfig read_gguf_config(const GgufFile& file) {
  const Architecture& architecture = find_architecture(file);
  check_network_keys(file, architecture);
  return ConfigReader(file, architecture).read();
}

bool read_gguf_rope_factors(ModelConfig& c, const GgufTensor& t, const std::string& path) {
  const bool both = t.name == "rope_freqs.weight", is_long = t.name == "rope_factors_long.weight";
  if (!both && !is_long && t.name != "rope_factors_short.weight") return false;
  check(t.type == 0 && t.dims.size() == 1 && t.dims[0] == c.rope_dim / 2,
        "'{}': tensor '{}' is not one f32 factor for each of {} pairs of dims", path, t.name, c.rope_dim / 2);
  std::vector<float> factors(size_t(t.dims[0]));
  std::memcpy(factors.data(), t.bytes.data(), t.bytes.size());
  bool neutral = true;
  for (const float x : factors) {
    check(std::isfinite(x) && x > 0, "'{}': tensor '{}' holds {}; positive factors are needed", path, t.name, x);
    neutral = neutral && x == 1.0f;
  }
  if (both && neutral) return true;  // leaves the rotation as it is
  RopeScaling& s = c.rope_scaling;
  check(s.kind == RopeScaling::Kind::none || s.kind == RopeScaling::Kind::factors,
        "'{}': tensor '{}' beside another scaling of the rope is not supported", path, t.name);
  s.kind = RopeScaling::Kind::factors;
  if (both || !is_long) s.short_factors = factors;
  if (both || is_long) s.long_factors = factors;
  if (s.original_context == 0) s.original_context = c.context;
  return true;
}

std::string gguf_to_hf_name(const ModelConfig& c, const std::string& name) {
  constexpr std::pair<std::string_view, std::string_view> kTop[] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                                                    {"output_norm.weight", "model.norm.weight"},
                                                                    {"output.weight", "lm_head.weight"}};
  for (const auto& [from, to] : kTop) {
    if (name == from) return std::string(to);
  }
  const size_t dot = name.find('.', 4), last = name.rfind('.');
  if (!name.starts_with("blk.") || dot == std::string::npos || last <= dot) return name;
  const Family& f = find_family(c.family);
  const bool phi3 = c.family == "phi3";
  const std::pair<std::string_view, const char*> layer[] = {{"attn_norm", f.attention_norm},
                                                            {"attn_q", f.q},
                                                            {"attn_k", f.k},
                                                            {"attn_v", f.v},
                                                            {"attn_qkv", phi3 ? "self_attn.qkv_proj" : nullptr},
                                                            {"attn_output", f.o},
                                                            {"ffn_norm", f.ffn_norm},
                                                            {"ffn_gate", f.gate},
                                                            {"ffn_up", phi3 ? "mlp.gate_up_proj" : f.up},
                                                            {"ffn_down", f.down},
                                                            {"attn_q_norm", f.q_norm},
                                                            {"attn_k_norm", f.k_norm},
                                                            {"post_attention_norm", f.attention_post_norm},
                                                            {"post_ffw_norm", f.ffn_post_norm}};
  const std::string_view part = std::string_view(name).substr(dot + 1, last - dot - 1);
  for (const auto& [from, to] : layer) {
    if (part == from && to) return fmt::format("model.layers.{}.{}{}", name.substr(4, dot - 4), to, name.substr(last));
  }
  return name;
}

}  // namespace quire
