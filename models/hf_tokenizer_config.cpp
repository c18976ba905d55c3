#include "models/hf_tokenizer_config.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/mapped_file.h"
#include "models/hf_tokenizer.h"

namespace quire {

namespace {

class ConfigReader {
 public:
  ConfigReader(const std::string& directory, const JsonObject& config,
               const std::unordered_map<std::string, int32_t>& ids, TokenizerData& data)
      : directory_(directory), config_(config), ids_(ids), data_(data) {}

  void read() {
    int32_t bos = -1;
    const std::string path = directory_ + "/tokenizer_config.json";
    if (std::filesystem::exists(path)) {
      const Json json = read_json_file(path, kMaxTokenizerConfigBytes);
      const JsonObject o(json, fmt::format("'{}'", path));
      bos = named_token(o, "bos_token");
      data_.pad = named_token(o, "pad_token");
      data_.unknown = named_token(o, "unk_token");
      if (const int32_t eos = named_token(o, "eos_token"); eos >= 0) data_.eos.push_back(eos);
      refuse_key(o, "add_eos_token");
      if (const auto add = o.boolean("add_bos_token")) data_.add_bos = *add;
      data_.chat_template = chat_template(o);
      read_kinds(o);
    }
    if (data_.bos < 0) data_.bos = bos >= 0 ? bos : id_in(config_, "bos_token_id");
    if (data_.pad < 0) data_.pad = id_in(config_, "pad_token_id");
    add_eos(config_.find("eos_token_id"), config_.where());
    const std::string generation = directory_ + "/generation_config.json";
    if (std::filesystem::exists(generation)) {
      const Json json = read_json_file(generation, kMaxTokenizerConfigBytes);
      const JsonObject o(json, fmt::format("'{}'", generation));
      add_eos(o.find("eos_token_id"), o.where());
    }
    const std::string jinja = directory_ + "/chat_template.jinja";
    if (std::filesystem::exists(jinja)) data_.chat_template = read_text_file(jinja, kMaxTokenizerConfigBytes);
  }

 private:
  int32_t find(const std::string& token) const { return ids_.contains(token) ? ids_.at(token) : -1; }

  void add_eos(const Json* ids, const std::string& where) {
    if (!ids) return;
    if (ids->is_array()) {
      for (const Json& id : *ids) add_eos(&id, where);
      return;
    }
    check(ids->is_number_unsigned(), "{}: eos_token_id {} is not a token", where, printable_json(*ids));
    const int64_t rows = std::max(int64_t(data_.tokens.size()), config_.integer("vocab_size").value_or(0));
    if (ids->get<uint64_t>() >= uint64_t(rows)) return;  // the head has no row for it: never produced
    const auto id = ids->get<int32_t>();
    if (std::find(data_.eos.begin(), data_.eos.end(), id) == data_.eos.end()) data_.eos.push_back(id);
  }

  int32_t id_in(const JsonObject& o, const std::string& key) const {
    const auto id = o.integer(key);
    check(!id || (*id >= -1 && *id < int64_t(data_.tokens.size())), "{}: {} = {} is not a token", o.where(), key,
          id.value_or(0));
    return id ? int32_t(*id) : -1;
  }

  // "bos_token": a string or {"content": ...}; -1 if absent.
  int32_t named_token(const JsonObject& o, const std::string& key) const {
    const Json* v = o.find(key);
    if (!v) return -1;
    const auto text = v->is_object() ? JsonObject(*v, o.where()).text("content") : o.text(key);
    check(text && find(*text) >= 0, "{}: {} {} is not a token", o.where(), key, printable_json(*v));
    return find(*text);
  }

  // Kinds that tokenizer.json cannot say, for vocabularies that came from a GGUF file (models/offline/hf_files.cpp).
  void read_kinds(const JsonObject& o) {
    const auto kinds = o.object(kTokenKindsKey);
    if (!kinds) return;
    for (const auto& [name, kind] : kExtraTokenKinds) {
      const Json* ids = kinds->array(name);
      for (size_t i = 0; ids && i < ids->size(); ++i) {
        const Json& id = (*ids)[i];
        check(id.is_number_unsigned() && id.get<uint64_t>() < data_.kinds.size(), "{}: '{}': {} is not a token",
              kinds->where(), name, printable_json(id));
        data_.kinds[id.get<size_t>()] = kind;
      }
    }
  }

  // A string, or a list of named ones, of which "default" is taken.
  static std::string chat_template(const JsonObject& o) {
    const Json* v = o.find("chat_template");
    if (!v || !v->is_array()) return o.text("chat_template").value_or("");
    for (const Json& entry : *v) {
      const JsonObject named(entry, fmt::format("{}, chat_template", o.where()));
      if (named.text("name") == "default") return named.text("template").value_or("");
    }
    return "";
  }

  const std::string& directory_;
  const JsonObject& config_;
  const std::unordered_map<std::string, int32_t>& ids_;
  TokenizerData& data_;
};

}  // namespace

void read_tokenizer_configs(const std::string& directory, const JsonObject& config,
                            const std::unordered_map<std::string, int32_t>& ids, TokenizerData& data) {
  ConfigReader(directory, config, ids, data).read();
}

void refuse_key(const JsonObject& o, const char* key) {
  const Json* v = o.find(key);
  check(!v || *v == false || *v == "" || *v == 0, "{}: '{}' = {} is not supported", o.where(), key,
        v ? printable_json(*v) : "");
}

}  // namespace quire
