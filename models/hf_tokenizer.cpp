#include "models/hf_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <unordered_map>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/printable.h"
#include "models/hf_tokenizer_config.h"
#include "models/normalize.h"
#include "models/pre_tokenizers.h"
#include "models/sentencepiece.h"

namespace quire {

namespace {

constexpr size_t kMaxTokenizerBytes = 100'000'000;

std::string type_of(const JsonObject& o) {
  const auto type = o.text("type");
  check(type.has_value(), "{}: 'type' is missing", o.where());
  return *type;
}

// Calls fn for the object itself, or for the parts of a Sequence, in order.
template <class Fn>
void for_each_part(const JsonObject& o, const char* list, Fn&& fn) {
  if (type_of(o) != "Sequence") return fn(o);
  const Json* parts = o.array(list);
  check(parts != nullptr, "{}: a Sequence needs '{}'", o.where(), list);
  for (size_t i = 0; i < parts->size(); ++i) fn(JsonObject((*parts)[i], fmt::format("{}, {} {}", o.where(), list, i)));
}

std::string quoted(const std::string& literal) {
  std::string out;
  for (const char c : literal) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80) != 0;
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

class Reader {
 public:
  Reader(const std::string& directory, const JsonObject& config, int64_t vocab)
      : directory_(directory), config_(config), vocab_(vocab) {}

  TokenizerData read() {
    const std::string path = directory_ + "/tokenizer.json";
    if (!std::filesystem::exists(path)) return read_sentencepiece(path);
    const Json json = read_json_file(path, kMaxTokenizerBytes);
    const JsonObject root(json, fmt::format("'{}'", path));
    const auto model = root.object("model");
    check(model.has_value(), "{}: 'model' is missing", root.where());
    read_model(*model);
    read_added(root);
    read_normalizer(root);
    read_pre_tokenizer(root);
    read_decoder(root);
    read_post_processor(root);
    read_tokenizer_configs(directory_, config_, ids_, data_);
    if (const auto unknown = model->text("unk_token")) data_.unknown = find(*unknown);
    return std::move(data_);
  }

 private:
  // Older directories have SentencePiece's file alone, and in tokenizer_config.json what was added to it.
  TokenizerData read_sentencepiece(const std::string& missing) {
    const std::string added = directory_ + "/added_tokens.json", model = directory_ + "/tokenizer.model";
    check(std::filesystem::exists(model), "'{}' is missing, and so is tokenizer.model", missing);
    check(!std::filesystem::exists(added), "'{}': tokens beside tokenizer.model are not supported; tokenizer.json is",
          added);
    data_ = quire::read_sentencepiece(read_text_file(model, kMaxTokenizerBytes), fmt::format("'{}'", model));
    for (size_t id = 0; id < data_.tokens.size(); ++id) ids_.emplace(data_.tokens[id], int32_t(id));
    const std::vector<int32_t> eos = std::exchange(data_.eos, {});
    const int32_t unknown = data_.unknown;
    const std::string path = directory_ + "/tokenizer_config.json";
    if (std::filesystem::exists(path)) {
      const Json json = read_json_file(path, kMaxTokenizerConfigBytes);
      if (const auto o = JsonObject(json, fmt::format("'{}'", path)).object("added_tokens_decoder"))
        read_added_to_model(*o);
    }
    read_tokenizer_configs(directory_, config_, ids_, data_);
    if (data_.eos.empty()) data_.eos = eos;
    if (data_.unknown < 0) data_.unknown = unknown;
    return std::move(data_);
  }

  // {"32000": {"content": ...}, ...}. Those that are in the model too may have got white space and another kind.
  void read_added_to_model(const JsonObject& added) {
    const auto in_model = int64_t(data_.tokens.size());
    for (const auto& [key, entry] : added.json().items()) {
      const JsonObject token(entry, fmt::format("{}, added token {}", added.where(), printable(key)));
      uint32_t id = 0;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      const auto content = token.text("content");
      check(error == std::errc() && end == key.data() + key.size() && content && !content->empty(),
            "{}: an id and 'content' are needed", token.where());
      refuse_key(token, "single_word");
      const TokenKind kind = token.boolean("special").value_or(false) ? TokenKind::control : TokenKind::user_defined;
      if (id >= vocab_) continue;  // the model never gives it
      if (id >= in_model) {
        place(*content, id, kind, token.where());
      } else {
        check(data_.tokens[id] == *content, "{}: '{}' is '{}' in tokenizer.model", token.where(), printable(*content),
              printable(data_.tokens[id]));
        if (data_.kinds[id] == TokenKind::normal) data_.kinds[id] = kind;
      }
      add_strip(token, int32_t(id));
    }
    std::sort(data_.strips.begin(), data_.strips.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  }

  void add_strip(const JsonObject& token, int32_t id) {
    const bool left = token.boolean("lstrip").value_or(false), right = token.boolean("rstrip").value_or(false);
    if (left || right) data_.strips.push_back({id, left, right});
  }

  int32_t find(const std::string& token) const { return ids_.contains(token) ? ids_.at(token) : -1; }

  // Puts a token where its id says; holes in the numbering become tokens that no text has.
  void place(const std::string& token, const Json& id, TokenKind kind, const std::string& where) {
    check(id.is_number_unsigned() && id.get<uint64_t>() < uint64_t(vocab_),
          "{}: token '{}' has id {}; the embedding has {} rows", where, printable(token), printable_json(id), vocab_);
    const auto i = id.get<size_t>();
    for (size_t hole = data_.tokens.size(); hole <= i; ++hole) {
      data_.tokens.push_back(fmt::format("[PAD{}]", hole));
      data_.kinds.push_back(TokenKind::unused);
    }
    const auto [it, is_new] = ids_.emplace(token, int32_t(i));
    check(is_new || it->second == int32_t(i), "{}: token '{}' has the ids {} and {}", where, printable(token),
          it->second, i);
    check(!is_new || data_.kinds[i] == TokenKind::unused, "{}: '{}' and '{}' have the same id {}", where,
          printable(data_.tokens[i]), printable(token), i);
    data_.tokens[i] = token;
    data_.kinds[i] = kind;
  }

  void read_model(const JsonObject& model) {
    const std::string type = model.text("type").value_or("BPE");
    check(type == "BPE", "{}: tokenizer model '{}' is not supported; byte-level BPE is", model.where(),
          printable(type));
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) refuse_key(model, key);
    const bool fallback = model.boolean("byte_fallback").value_or(false);
    data_.model = fallback ? "char-bpe" : "bpe";
    if (!fallback) refuse_key(model, "fuse_unk");  // with a token for every byte nothing is unknown
    data_.whole_pieces = model.boolean("ignore_merges").value_or(false);
    const auto vocab = model.object("vocab");
    const Json* merges = model.array("merges");
    check(vocab && merges, "{}: 'vocab' and 'merges' are needed", model.where());
    for (const auto& [token, id] : vocab->json().items()) {
      const bool byte = fallback && token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
      place(token, id, byte ? TokenKind::byte : TokenKind::normal, vocab->where());
    }
    for (const Json& merge : *merges) data_.merges.push_back(merge_text(merge, model.where()));
  }

  // "left right" or ["left", "right"].
  static std::string merge_text(const Json& merge, const std::string& where) {
    std::string text;
    if (merge.is_string()) text = merge.get<std::string>();
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      text = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
    const size_t space = text.find(' ');
    const bool ok = space != std::string::npos && space > 0 && space + 1 < text.size() &&
                    text.find(' ', space + 1) == std::string::npos;
    check(ok, "{}: {} is not a merge of two tokens", where, printable_json(merge));
    return text;
  }

  void read_added(const JsonObject& root) {
    const Json* added = root.array("added_tokens");
    for (size_t i = 0; added && i < added->size(); ++i) {
      const JsonObject token((*added)[i], fmt::format("{}, added token {}", root.where(), i));
      const auto content = token.text("content");
      check(content && !content->empty() && token.find("id"), "{}: 'id' and 'content' are needed", token.where());
      refuse_key(token, "single_word");
      // Of a tokenizer that other models share (Gemma 3's <image_soft_token>): the embedding has no row for it.
      const Json& id = *token.find("id");
      if (id.is_number_unsigned() && id.get<uint64_t>() >= uint64_t(vocab_) && find(*content) < 0) continue;
      const bool special = token.boolean("special").value_or(false);
      place(*content, id, special ? TokenKind::control : TokenKind::user_defined, token.where());
      add_strip(token, find(*content));
      normalized_ = normalized_ || token.boolean("normalized").value_or(false);
    }
  }

  bool characters() const { return data_.model == "char-bpe"; }

  void read_normalizer(const JsonObject& root) {
    const auto normalizer = root.object("normalizer");
    if (!normalizer) return;
    for_each_part(*normalizer, "normalizers", [&](const JsonObject& part) {
      const std::string type = type_of(part);
      if (type == "NFC" && !characters()) {
        data_.nfc = true;
      } else if (type == "Prepend" && characters()) {
        check(!escapes_ && part.text("prepend") == kSpaceLetter, "{}: only a U+2581 before all else is supported",
              part.where());
        data_.add_prefix_space = true;
      } else if (type == "Replace" && characters()) {
        const auto pattern = part.object("pattern");
        check(pattern && pattern->text("String") == " " && part.text("content") == kSpaceLetter,
              "{}: only spaces by U+2581 can be replaced", part.where());
        escapes_ = true;
      } else {
        fail(fmt::format("{}: normalizer '{}' is not supported in this kind of tokenizer", part.where(),
                         printable(type)));
      }
    });
    check(!normalized_ || !data_.add_prefix_space,
          "{}: added tokens that are looked for in normalized text are not supported with this normalizer",
          root.where());
  }

  // Pieces that begin at each U+2581.
  static constexpr const char* kMetaspacePattern = "\xE2\x96\x81?[^\xE2\x96\x81]+|\xE2\x96\x81";

  void read_metaspace(const JsonObject& part) {
    check(!escapes_ && part.text("replacement").value_or(std::string(kSpaceLetter)) == kSpaceLetter,
          "{}: only spaces by U+2581 can be replaced, and once", part.where());
    escapes_ = true;
    const char* older = part.boolean("add_prefix_space").value_or(true) ? "always" : "never";
    const std::string scheme = part.text("prepend_scheme").value_or(older);
    check(scheme == "always" || scheme == "first" || scheme == "never", "{}: prepend_scheme '{}' is not supported",
          part.where(), printable(scheme));
    data_.add_prefix_space = scheme != "never";
    data_.prefix_unless_there = true;
    data_.prefix_first_only = scheme == "first";
    if (part.boolean("split").value_or(true)) data_.split_patterns.push_back(kMetaspacePattern);
  }

  // Of characters. A Split at spaces does nothing once they are escaped.
  void read_character_pre_tokenizer(const JsonObject& root) {
    if (const auto pre = root.object("pre_tokenizer")) {
      for_each_part(*pre, "pretokenizers", [&](const JsonObject& part) {
        const std::string type = type_of(part);
        if (type == "Metaspace") return read_metaspace(part);
        const auto pattern = part.object("pattern");
        check(type == "Split" && escapes_ && pattern && pattern->text("String") == " ",
              "{}: pre-tokenizer '{}' is not supported with byte fallback; Metaspace is", part.where(),
              printable(type));
      });
    }
    check(escapes_, "{}: a tokenizer with byte fallback that keeps its spaces is not supported", root.where());
  }

  void read_pre_tokenizer(const JsonObject& root) {
    if (characters()) return read_character_pre_tokenizer(root);
    const auto pre = root.object("pre_tokenizer");
    check(pre.has_value(), "{}: 'pre_tokenizer' is missing; byte-level BPE needs ByteLevel", root.where());
    bool byte_level = false;
    for_each_part(*pre, "pretokenizers", [&](const JsonObject& part) {
      check(!byte_level, "{}: nothing can follow ByteLevel", part.where());
      const std::string type = type_of(part);
      if (type == "ByteLevel") {
        byte_level = true;
        data_.add_prefix_space = part.boolean("add_prefix_space").value_or(true);
        if (!part.boolean("use_regex").value_or(true)) return;
        for (const std::string& p : split_patterns_for("gpt-2")) data_.split_patterns.push_back(p);
      } else if (type == "Digits") {
        data_.split_patterns.push_back(part.boolean("individual_digits").value_or(false) ? R"(\p{N})" : R"(\p{N}+)");
      } else if (type == "Split") {
        data_.split_patterns.push_back(split_pattern(part));
      } else {
        fail(fmt::format("{}: pre-tokenizer '{}' is not supported; Split, Digits and ByteLevel are", part.where(),
                         printable(type)));
      }
    });
    check(byte_level, "{}: only byte-level tokenizers are supported, and there is no ByteLevel", pre->where());
  }

  // Back to text: what undoes the above.
  void read_decoder(const JsonObject& root) const {
    const auto decoder = root.object("decoder");
    if (!characters()) {
      return check(decoder && type_of(*decoder) == "ByteLevel", "{}: only a ByteLevel decoder is supported",
                   root.where());
    }
    check(decoder.has_value(), "{}: 'decoder' is missing", root.where());
    for_each_part(*decoder, "decoders", [&](const JsonObject& part) {
      const std::string type = type_of(part);
      if (type == "ByteFallback" || type == "Fuse" || type == "Metaspace") return;
      const auto pattern = part.object("pattern");
      const bool replace =
          type == "Replace" && pattern && pattern->text("String") == kSpaceLetter && part.text("content") == " ";
      const bool strip =
          type == "Strip" && part.text("content") == " " && part.integer("start") == 1 && part.integer("stop") == 0;
      check(replace || strip, "{}: decoder '{}' is not supported as it is here", part.where(), printable(type));
    });
  }

  static std::string split_pattern(const JsonObject& split) {
    const std::string behavior = split.text("behavior").value_or("");
    check(behavior == "Isolated", "{}: behavior '{}' is not supported; 'Isolated' is", split.where(),
          printable(behavior));
    refuse_key(split, "invert");
    const auto pattern = split.object("pattern");
    const auto regex = pattern ? pattern->text("Regex") : std::nullopt,
               literal = pattern ? pattern->text("String") : std::nullopt;
    check(regex || literal, "{}: 'pattern' must be a Regex or a String", split.where());
    return regex ? *regex : quoted(*literal);
  }

  // ByteLevel only moves offsets; a template may put bos in front.
  void read_post_processor(const JsonObject& root) {
    const auto post = root.object("post_processor");
    if (!post) return;
    for_each_part(*post, "processors", [&](const JsonObject& part) {
      const std::string type = type_of(part);
      if (type == "ByteLevel") return;
      check(type == "TemplateProcessing", "{}: post-processor '{}' is not supported", part.where(), printable(type));
      const Json* single = part.array("single");
      check(single != nullptr, "{}: 'single' is missing", part.where());
      const bool text_last = !single->empty() && single->back().contains("Sequence");
      check(text_last && single->size() <= 2, "{}: only a token in front of the text is supported, not {}",
            part.where(), printable_json(*single));
      if (single->size() < 2) return;
      const auto token = JsonObject((*single)[0], part.where()).object("SpecialToken");
      const auto name = token ? token->text("id") : std::nullopt;
      check(name && find(*name) >= 0, "{}: {} is not a token", part.where(), printable_json((*single)[0]));
      data_.bos = find(*name);
      data_.add_bos = true;
    });
  }

  const std::string& directory_;
  const JsonObject& config_;
  int64_t vocab_;
  TokenizerData data_;
  std::unordered_map<std::string, int32_t> ids_;
  bool normalized_ = false;  // some added token is looked for in normalized text
  bool escapes_ = false;     // a normalizer or Metaspace has turned spaces into their letter
};

}  // namespace

TokenizerData read_hf_tokenizer(const std::string& directory, const JsonObject& config, int64_t vocab) {
  return Reader(directory, config, vocab).read();
}

}  // namespace quire
