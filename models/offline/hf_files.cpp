#include "models/offline/hf_files.h"

#include "base/error.h"
#include "base/printable.h"
#include "base/utf8.h"
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

}  // namespace

std::string hf_config_text(const ModelConfig& c, const TokenizerData& tokenizer, const Scheme& scheme) {
  check(c.family == "llama", "models of the family '{}' cannot be written", c.family);
  check(c.rope_dim == c.head_dim, "a rope over {} of {} channels of a head cannot be written", c.rope_dim, c.head_dim);
  Ordered json = {{"architectures", {"LlamaForCausalLM"}},
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
                  {"rms_norm_eps", c.norm_eps},
                  {"vocab_size", c.vocab},
                  {"tie_word_embeddings", c.tied_embeddings},
                  {"attention_bias", c.attention_bias},
                  {"mlp_bias", c.mlp_bias}};
  add_ids(json, tokenizer);
  json["quantization_config"] = stored_scheme_json(scheme);
  return dump(json, 2);
}

std::string hf_tokenizer_text(const TokenizerData& t) {
  check(t.model == "bpe", "a tokenizer of the kind '{}' cannot be written; byte-level BPE can", printable(t.model));
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
  Ordered json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                  {"model_max_length", config.context},
                  {"clean_up_tokenization_spaces", false},
                  {"add_bos_token", t.add_bos}};
  if (t.bos >= 0) json["bos_token"] = spelled(t, t.bos);
  if (!t.eos.empty()) json["eos_token"] = spelled(t, t.eos[0]);
  if (t.unknown >= 0) json["unk_token"] = spelled(t, t.unknown);
  if (t.pad >= 0) json["pad_token"] = spelled(t, t.pad);
  Ordered kinds = Ordered::object();
  for (const auto& [name, kind] : kExtraTokenKinds) {
    for (size_t id = 0; id < t.kinds.size(); ++id) {
      if (t.kinds[id] == kind) kinds[name].push_back(id);
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
