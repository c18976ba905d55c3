// GGUF files of the llama architecture as checkpoints: configuration, names, and the order of the rows of q and k.
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/printable.h"
#include "models/checkpoint_builder.h"
#include "models/gguf_split.h"
#include "models/gguf_tokenizer.h"
#include "models/network_tensors.h"
#include "models/neutral_key.h"

namespace quire {

namespace {

constexpr std::string_view kUsedKeys[] = {
    "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
    "rope.freq_base", "rope.dimension_count",
    // Notes about how the weights were made or trained; without effect on the maths while rope.scaling.type is "none".
    "tensor_data_layout", "rope.scaling.original_context_length", "rope.scaling.finetuned"};

constexpr NeutralKey kNeutralKeys[] = {
    {"rope.scaling.factor", {1, 0}},
    {"rope.scale_linear", {1, 0}},
    {"rope.scaling.attn_factor", {1, 0}},
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

double number_or_bool(const GgufFile& file, const std::string& key) {
  if (file.find(key)->type == GgufType::boolean) return *file.boolean(key) ? 1 : 0;
  return *file.number(key);
}

// A network key this reader does not know may change the results: it is refused, never ignored.
void check_network_keys(const GgufFile& file, const std::string& prefix) {
  for (const GgufValue& v : file.metadata()) {
    if (!v.key.starts_with(prefix)) continue;
    const std::string_view suffix = std::string_view(v.key).substr(prefix.size());
    bool known = false;
    for (const std::string_view used : kUsedKeys) known = known || suffix == used;
    if (suffix == "rope.scaling.type") {
      check(file.text(v.key) == "none" || file.text(v.key) == "linear",
            "'{}': {} is '{}'; only 'none' (or 'linear' by 1) is supported", file.path(), v.key,
            printable(*file.text(v.key)));
      known = true;
    }
    for (const NeutralKey& n : kNeutralKeys) {
      if (suffix != n.key) continue;
      const double x = number_or_bool(file, v.key);
      check(n.allows(x), "'{}': {} = {} changes the network in a way that is not supported (only {} is)", file.path(),
            v.key, printable_value(v), n.values[0]);
      known = true;
    }
    check(known, "'{}': unknown key {} = {}; it may change the network, so the file is refused", file.path(),
          printable(v.key), printable_value(v));
  }
}

void check_general_keys(const GgufFile& file) {
  const std::string type = file.text("general.type").value_or("model");
  check(type == "model", "'{}': the file holds '{}', not a model", file.path(), printable(type));
}

int64_t needed_integer(const GgufFile& file, const std::string& key) {
  const auto value = file.integer(key);
  check(value.has_value(), "'{}': metadata key '{}' is missing", file.path(), key);
  return *value;
}

ModelConfig read_config(const GgufFile& file) {
  const auto architecture = file.text("general.architecture");
  check(architecture.has_value(), "'{}': metadata key 'general.architecture' is missing", file.path());
  check(*architecture == "llama", "'{}': architecture '{}' is not supported; 'llama' is", file.path(),
        printable(*architecture));
  check_general_keys(file);
  check_network_keys(file, "llama.");

  ModelConfig c;
  c.family = "llama";
  c.name = file.text("general.name").value_or(std::filesystem::path(file.path()).stem().string());
  c.layers = needed_integer(file, "llama.block_count");
  c.hidden = needed_integer(file, "llama.embedding_length");
  c.ffn = needed_integer(file, "llama.feed_forward_length");
  c.heads = needed_integer(file, "llama.attention.head_count");
  c.kv_heads = file.integer("llama.attention.head_count_kv").value_or(c.heads);
  c.context = needed_integer(file, "llama.context_length");
  check(c.heads > 0, "'{}': llama.attention.head_count is {}", file.path(), c.heads);
  const auto head_dim = file.integer("llama.attention.key_length");
  check(head_dim || c.hidden % c.heads == 0, "'{}': {} dimensions do not divide into {} heads", file.path(), c.hidden,
        c.heads);
  c.head_dim = head_dim ? *head_dim : c.hidden / c.heads;
  const int64_t value_dim = file.integer("llama.attention.value_length").value_or(c.head_dim);
  check(value_dim == c.head_dim, "'{}': values of {} dimensions beside keys of {} are not supported", file.path(),
        value_dim, c.head_dim);
  c.rope_dim = file.integer("llama.rope.dimension_count").value_or(c.head_dim);
  c.rope_theta = file.number("llama.rope.freq_base").value_or(10000.0);
  const auto eps = file.number("llama.attention.layer_norm_rms_epsilon");
  check(eps.has_value(), "'{}': metadata key 'llama.attention.layer_norm_rms_epsilon' is missing", file.path());
  c.norm_eps = *eps;
  return c;
}

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; names without a counterpart stay as they are.
std::string hf_name(const std::string& name) {
  constexpr std::pair<std::string_view, std::string_view> kTop[] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                                                    {"output_norm.weight", "model.norm.weight"},
                                                                    {"output.weight", "lm_head.weight"}};
  constexpr std::pair<std::string_view, std::string_view> kLayer[] = {
      {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
  for (const auto& [from, to] : kTop) {
    if (name == from) return std::string(to);
  }
  if (!name.starts_with("blk.")) return name;
  const size_t dot = name.find('.', 4), last = name.rfind('.');
  if (dot == std::string::npos || last <= dot) return name;
  const std::string_view part = std::string_view(name).substr(dot + 1, last - dot - 1);
  for (const auto& [from, to] : kLayer) {
    if (part == from) return fmt::format("model.layers.{}.{}{}", name.substr(4, dot - 4), to, name.substr(last));
  }
  return name;
}

// The rope factors of Llama 3.1 stretch the rotation; all ones leave it as it is.
bool neutral_rope_factors(const GgufTensor& t) {
  if (t.type != 0) return false;
  for (size_t i = 0; i < t.bytes.size() / 4; ++i) {
    float x;
    std::memcpy(&x, t.bytes.data() + i * 4, 4);
    if (x != 1.0f) return false;
  }
  return true;
}

void add_tensor(CheckpointBuilder& builder, const ModelConfig& c, const GgufTensor& t) {
  if (t.name == "rope_freqs.weight") {
    check(neutral_rope_factors(t), "'{}': tensor 'rope_freqs.weight' scales the rope, which is not supported",
          builder.path());
    return;
  }
  const GgufTensorType& type = *find_gguf_type(t.type);
  check(type.codec.has_value(),
        "'{}': tensor '{}' is in {}, which cannot be read; {} can (llama-quantize makes such files)", builder.path(),
        printable(t.name), type.name, readable_gguf_types());
  check(t.dims.size() <= 2, "'{}': tensor '{}' has {} dimensions; 1 or 2 are expected", builder.path(),
        printable(t.name), t.dims.size());
  const int64_t cols = t.dims[0], rows = t.dims.size() > 1 ? t.dims[1] : 1;
  const std::string name = hf_name(t.name);
  // Converters to GGUF lay each head's pairs (i, i + half) of q and k side by side, for a rotation of neighbours:
  // row 2 i + h of the file is row h * half + i of the head. Undone here, so that every container means the same.
  const int64_t dim = c.head_dim, half = dim / 2;
  const auto file_index = [=](int64_t r) { return r / dim * dim + r % half * 2 + r % dim / half; };
  const bool q = name.ends_with(".self_attn.q_proj.weight") || name.ends_with(".self_attn.q_proj.bias");
  const bool k = name.ends_with(".self_attn.k_proj.weight") || name.ends_with(".self_attn.k_proj.bias");
  if (!q && !k) return builder.add(name, t.name, *type.codec, rows, cols, t.bytes.data());
  const bool vector = rows == 1 && t.dims.size() == 1;
  const int64_t wanted = (q ? c.heads : c.kv_heads) * dim, have = vector ? cols : rows;
  check(have == wanted, "'{}': tensor '{}' has {} rows where the configuration says {}", builder.path(),
        printable(t.name), have, wanted);
  builder.add_reordered(name, t.name, *type.codec, rows, cols, t.bytes.data(), vector, file_index);
}

}  // namespace

Checkpoint open_gguf(const std::string& path) {
  std::vector<GgufFile> parts = open_gguf_parts(path);
  const GgufFile& file = parts[0];
  CheckpointBuilder builder(path);
  auto& state = builder.state();
  state.container = fmt::format("GGUF v{}", file.version());
  if (parts.size() > 1) state.container += fmt::format(", {} parts", parts.size());
  for (const GgufValue& v : file.metadata()) state.metadata.emplace_back(printable(v.key), printable_value(v));
  ModelConfig& config = state.config;
  config = read_config(file);
  config.tied_embeddings = true;
  for (const GgufFile& part : parts) {
    for (const GgufTensor& t : part.tensors()) {
      if (t.name == "token_embd.weight") config.vocab = t.dims.size() > 1 ? t.dims[1] : 1;
      if (t.name == "output.weight") config.tied_embeddings = false;
      config.attention_bias = config.attention_bias || t.name.ends_with("attn_q.bias");
      config.mlp_bias = config.mlp_bias || t.name.ends_with("ffn_gate.bias");
    }
  }
  check(config.vocab > 0, "'{}': tensor 'token_embd.weight' is missing", path);
  const int64_t vocab = file.integer("llama.vocab_size").value_or(config.vocab);
  check(vocab == config.vocab, "'{}': llama.vocab_size is {}, but the embedding has {} rows", path, vocab,
        config.vocab);
  check_config(config, path);
  for (const GgufFile& part : parts) {
    for (const GgufTensor& t : part.tensors()) add_tensor(builder, config, t);
  }
  builder.check_tensors();
  state.tokenizer = read_gguf_tokenizer(file);
  for (GgufFile& part : parts) state.files.push_back(std::move(part).release());
  return builder.finish();
}

}  // namespace quire
