#include "models/offline/hf_files.h"

#include "base/error.h"
#include "base/printable.h"
#include "base/utf8.h"
#include "models/family.h"
#include "models/hf_config.h"
#include "models/hf_tokenizer.h"
#include "models/stored.h"

namespace quire {

namespace {

using Ordered = nlohmann::ordered_json;

// Names may be any bytes in a GGUF file; JSON holds text only.
std::string dump(const Ordered& json, int indent) {
  return json.dump(indent, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

void add_ids(Ordered& json, const TokenizerData& t) {
  if (t.bos >= 0) json["bos_token_id"] = t.bos;
  if (!t.eos.empty()) json["eos_token_id"] = t.eos;
  if (t.pad >= 0) json["pad_token_id"] = t.pad;
}

std::string spelled(const TokenizerData& t, int32_t id) { return t.tokens[size_t(id)]; }

Ordered added_tokens(const TokenizerData& t) {
  Ordered added = Ordered::array();
  for (size_t id = 0; id < t.tokens.size(); ++id) {
    const bool control = t.kinds[id] == TokenKind::control;
    if (!control && t.kinds[id] != TokenKind::user_defined) continue;
    added.push_back({{"id", id},
                     {"content", t.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", control}});
  }
  return added;
}

// The same as tokenizer_config.json has them beside tokenizer.model, with the white space that belongs to them.
Ordered added_tokens_by_id(const TokenizerData& t) {
  Ordered added = Ordered::object();
  auto& list = added.get_ref<Ordered::object_t&>();  // not operator[], which searches the whole list; ids are distinct
  auto strip = t.strips.begin();                     // by id, as the tokens are
  for (Ordered& token : added_tokens(t)) {
    const int64_t id = token["id"];
    token.erase("id");
    while (strip != t.strips.end() && strip->id < id) ++strip;
    if (strip != t.strips.end() && strip->id == id) token["lstrip"] = strip->left, token["rstrip"] = strip->right;
    list.emplace_back(std::to_string(id), std::move(token));
  }
  return added;
}

Ordered byte_level(bool prefix_space) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", false}};
}

Ordered pre_tokenizer(const TokenizerData& t) {
  Ordered parts = Ordered::array();
  for (const std::string& pattern : t.split_patterns) {
    parts.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  parts.push_back(byte_level(t.add_prefix_space));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

// Bos before the text, where the model wants it.
Ordered post_processor(const TokenizerData& t) {
  if (!t.add_bos) return byte_level(t.add_prefix_space);
  const std::string bos = spelled(t, t.bos);
  const auto token = [&](int type) { return Ordered{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
  const auto text = [](const char* id, int type) { return Ordered{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
  return {
      {"type", "TemplateProcessing"},
      {"single", Ordered::array({token(0), text("A", 0)})},
      {"pair", Ordered::array({token(0), text("A", 0), token(1), text("B", 1)})},
      {"special_tokens", {{bos, {{"id", bos}, {"ids", Ordered::array({t.bos})}, {"tokens", Ordered::array({bos})}}}}}};
}

void add_windows(Ordered& json, const ModelConfig& c) {
  if (c.family == "llama") return;
  json["sliding_window"] = c.window > 0 ? Ordered(c.window) : Ordered(nullptr);
  json["use_sliding_window"] = c.window > 0;
  Ordered types = Ordered::array();
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    types.push_back(c.window_of(layer) > 0 ? "sliding_attention" : "full_attention");
  }
  json["layer_types"] = std::move(types);
}

void add_rope(Ordered& json, const ModelConfig& c) {
  using Kind = RopeScaling::Kind;
  const RopeScaling& s = c.rope_scaling;
  if (c.rope_dim != c.head_dim) json["partial_rotary_factor"] = double(c.rope_dim) / double(c.head_dim);
  if (c.rope_theta_windowed > 0) json["rope_local_base_freq"] = c.rope_theta_windowed;
  if (s.kind == Kind::none) return;
  Ordered rope = {{"rope_type", s.kind == Kind::linear   ? "linear"
                                : s.kind == Kind::llama3 ? "llama3"
                                : s.kind == Kind::yarn   ? "yarn"
                                                         : "longrope"}};
  if (s.kind == Kind::factors) {
    rope["short_factor"] = s.short_factors;
    rope["long_factor"] = s.long_factors;
  } else {
    rope["factor"] = s.factor;
  }
  if (s.kind == Kind::llama3) {
    rope["low_freq_factor"] = s.low_freq_factor;
    rope["high_freq_factor"] = s.high_freq_factor;
  }
  if (s.kind == Kind::yarn) {
    rope["beta_fast"] = s.beta_fast;
    rope["beta_slow"] = s.beta_slow;
    rope["truncate"] = s.truncate;
  }
  if (s.kind == Kind::yarn || s.kind == Kind::factors) rope["attention_factor"] = s.amplitude;
  if (s.original_context > 0) rope["original_max_position_embeddings"] = s.original_context;
  if (c.family == "phi3") json["original_max_position_embeddings"] = s.original_context;
  json["rope_scaling"] = std::move(rope);
}

}  // namespace

std::string hf_config_text(const ModelConfig& c, const TokenizerData& tokenizer, const Scheme& scheme) {
  const HfArchitectureNames names = hf_architecture_names(c.family);
  Ordered json = {{"architectures", {names.architecture}},
                  {"model_type", names.model_type},
                  {"_name_or_path", c.name},
                  {"hidden_size", c.hidden},
                  {"intermediate_size", c.ffn},
                  {"num_hidden_layers", c.layers},
                  {"num_attention_heads", c.heads},
                  {"num_key_value_heads", c.kv_heads},
                  {"head_dim", c.head_dim},
                  {"max_position_embeddings", c.context},
                  {"rope_theta", c.rope_theta},
                  {"rms_norm_eps", c.norm_eps},
                  {"vocab_size", c.vocab},
                  {"tie_word_embeddings", c.tied_embeddings},
                  {"attention_bias", c.attention_bias},
                  {"mlp_bias", c.mlp_bias}};
  if (find_family(c.family).activation == Gate::gelu_tanh) {
    json["hidden_activation"] = "gelu_pytorch_tanh";
  } else {
    json["hidden_act"] = "silu";
  }
  add_windows(json, c);
  add_rope(json, c);
  if (c.family == "gemma3") {
    json["query_pre_attn_scalar"] = c.query_scalar > 0 ? Ordered(c.query_scalar) : Ordered(c.head_dim);
    json[kNormOffsetKey] = c.norm_offset;
  }
  add_ids(json, tokenizer);
  json["quantization_config"] = stored_scheme_json(scheme);
  return dump(json, 2);
}

std::string hf_tokenizer_text(const TokenizerData& t) {
  check(t.model == "bpe", "a tokenizer of the kind '{}' cannot be written to tokenizer.json; byte-level BPE can",
        printable(t.model));
  Ordered vocab = Ordered::object();
  auto& entries = vocab.get_ref<Ordered::object_t&>();
  entries.reserve(t.tokens.size());
  for (size_t id = 0; id < t.tokens.size(); ++id) {
    check(utf8_valid_prefix(t.tokens[id]) == t.tokens[id].size(),
          "token {} '{}' is not UTF-8, so it cannot be written to tokenizer.json", id, printable(t.tokens[id]));
    entries.emplace_back(t.tokens[id], id);  // not operator[], which searches the whole list; tokens are distinct
  }
  const Ordered unknown = t.unknown >= 0 ? Ordered(spelled(t, t.unknown)) : Ordered(nullptr);
  const Ordered json = {{"version", "1.0"},
                        {"truncation", nullptr},
                        {"padding", nullptr},
                        {"added_tokens", added_tokens(t)},
                        {"normalizer", nullptr},
                        {"pre_tokenizer", pre_tokenizer(t)},
                        {"post_processor", post_processor(t)},
                        {"decoder", byte_level(t.add_prefix_space)},
                        {"model",
                         {{"type", "BPE"},
                          {"dropout", nullptr},
                          {"unk_token", unknown},
                          {"continuing_subword_prefix", nullptr},
                          {"end_of_word_suffix", nullptr},
                          {"fuse_unk", false},
                          {"byte_fallback", false},
                          {"ignore_merges", t.whole_pieces},
                          {"vocab", std::move(vocab)},
                          {"merges", t.merges}}}};
  return dump(json, -1);
}

std::string hf_tokenizer_config_text(const ModelConfig& config, const TokenizerData& t) {
  const bool spm = t.model == "spm";
  Ordered json = {{"tokenizer_class", spm ? "LlamaTokenizer" : "PreTrainedTokenizerFast"},
                  {"model_max_length", config.context},
                  {"clean_up_tokenization_spaces", false},
                  {"add_bos_token", t.add_bos}};
  if (t.bos >= 0) json["bos_token"] = spelled(t, t.bos);
  if (!t.eos.empty() && size_t(t.eos[0]) < t.tokens.size()) json["eos_token"] = spelled(t, t.eos[0]);
  if (t.unknown >= 0) json["unk_token"] = spelled(t, t.unknown);
  if (t.pad >= 0) json["pad_token"] = spelled(t, t.pad);
  if (spm) json["added_tokens_decoder"] = added_tokens_by_id(t);
  Ordered kinds = Ordered::object();
  for (const auto& [name, kind] : kExtraTokenKinds) {
    for (size_t id = 0; id < t.kinds.size(); ++id) {
      if (!spm && t.kinds[id] == kind) kinds[name].push_back(id);
    }
  }
  if (!kinds.empty()) json[kTokenKindsKey] = std::move(kinds);
  if (!t.chat_template.empty()) json["chat_template"] = t.chat_template;
  return dump(json, 2);
}

std::string hf_generation_config_text(const TokenizerData& t) {
  Ordered json = Ordered::object();
  add_ids(json, t);
  return dump(json, 2);
}

}  // namespace quire
