#include "models/gguf_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "models/normalize.h"
#include "models/pre_tokenizers.h"
#include "models/sentencepiece.h"
#include "models/sentencepiece_model.h"

namespace quire {

namespace {

int32_t token_id(const GgufFile& file, const char* key, int64_t otherwise = -1) {
  const int64_t id = file.integer(key).value_or(otherwise);
  // llama.cpp's converters write 0xFFFFFFFF for "none".
  if (id == -1 || id == int64_t(UINT32_MAX)) return -1;
  check(id >= 0 && id <= INT32_MAX, "'{}': {} is {}; it must be a token", file.path(), key, id);
  return int32_t(id);
}

std::vector<TokenKind> read_kinds(const GgufFile& file, size_t tokens) {
  const auto types = file.integers("tokenizer.ggml.token_type");
  if (!types) return std::vector<TokenKind>(tokens, TokenKind::normal);
  std::vector<TokenKind> kinds;
  kinds.reserve(types->size());
  for (const int64_t type : *types) {
    check(type >= 1 && type <= 6, "'{}': token {} has type {}; 1 to 6 are allowed", file.path(), kinds.size(), type);
    kinds.push_back(TokenKind(type - 1));
  }
  return kinds;
}

void refuse_true(const GgufFile& file, const char* key) {
  check(!file.boolean(key).value_or(false), "'{}': {} = true is not supported", file.path(), key);
}

// Byte-level BPE: merges, and the patterns that cut text before them.
void read_bpe(const GgufFile& file, TokenizerData& data) {
  data.model = "bpe";
  data.add_prefix_space = file.boolean("tokenizer.ggml.add_space_prefix").value_or(false);
  const std::string pre = file.text("tokenizer.ggml.pre").value_or("default");
  data.split_patterns = split_patterns_for(pre);
  data.whole_pieces = whole_pieces_for(pre);
  auto merges = file.texts("tokenizer.ggml.merges");
  check(merges.has_value(), "'{}': metadata key 'tokenizer.ggml.merges' is missing", file.path());
  data.merges = std::move(*merges);
}

// The bytes of an array of bytes.
std::string read_bytes(const GgufFile& file, const char* key) {
  std::string bytes;
  for (const int64_t byte : file.integers(key).value_or(std::vector<int64_t>{})) bytes += static_cast<char>(byte);
  return bytes;
}

// SentencePiece: scores. `data` has its tokens, their kinds and the special ones.
void read_spm(const GgufFile& file, TokenizerData& data) {
  auto scores = file.floats("tokenizer.ggml.scores");
  check(scores.has_value(), "'{}': metadata key 'tokenizer.ggml.scores' is missing", file.path());
  check(scores->size() == data.tokens.size() && data.kinds.size() == data.tokens.size(),
        "'{}': {} tokens but {} scores and {} types", file.path(), data.tokens.size(), scores->size(),
        data.kinds.size());
  SentencePieceVocabulary v;
  v.tokens = std::move(data.tokens), v.scores = std::move(*scores), v.kinds = std::move(data.kinds);
  // Converters write these as they are found in a text.
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.kinds[id] == TokenKind::user_defined) v.tokens[id] = replaced(v.tokens[id], " ", kSpaceLetter);
  }
  v.unknown = data.unknown, v.bos = data.bos, v.pad = data.pad;
  if (!data.eos.empty()) v.eos = data.eos[0];
  v.charsmap = read_bytes(file, "tokenizer.ggml.precompiled_charsmap");
  v.prefix = file.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  v.remove_extra_spaces = file.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
  TokenizerData read = read_sentencepiece(sentencepiece_model(v), fmt::format("'{}'", file.path()));
  data.model = std::move(read.model);
  data.sentencepiece = std::move(read.sentencepiece);
  data.tokens = std::move(read.tokens);
  data.kinds = std::move(read.kinds);
  data.unknown = read.unknown;
  data.add_prefix_space = read.add_prefix_space;
}

// In Phi 3's tokenizer white space after most special tokens belongs to them; GGUF cannot say it, so that llama.cpp
// knows it by the architecture too.
void add_phi3_strips(TokenizerData& data) {
  for (size_t id = 0; id < data.tokens.size() && id < data.kinds.size(); ++id) {
    const std::string& token = data.tokens[id];
    const bool bare = token == "<unk>" || token == "<s>" || token == "<|endoftext|>";
    if (data.kinds[id] == TokenKind::control && !bare) data.strips.push_back({int32_t(id), false, true});
  }
}

}  // namespace

TokenizerData read_gguf_tokenizer(const GgufFile& file) {
  const auto model = file.text("tokenizer.ggml.model");
  check(model.has_value(), "'{}': the file has no tokenizer (metadata key 'tokenizer.ggml.model' is missing)",
        file.path());
  const bool spm = *model == "llama";
  check(spm || *model == "gpt2",
        "'{}': tokenizer model '{}' is not supported; 'gpt2' (byte-level BPE) and 'llama' (SentencePiece) are",
        file.path(), printable(*model));

  TokenizerData data;
  auto tokens = file.texts("tokenizer.ggml.tokens");
  check(tokens.has_value(), "'{}': metadata key 'tokenizer.ggml.tokens' is missing", file.path());
  data.tokens = std::move(*tokens);
  data.kinds = read_kinds(file, data.tokens.size());
  // What llama.cpp takes where a file of this kind says nothing.
  data.bos = token_id(file, "tokenizer.ggml.bos_token_id", spm ? 1 : -1);
  data.unknown = token_id(file, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1);
  data.pad = token_id(file, "tokenizer.ggml.padding_token_id");
  const auto add_eos = [&](int64_t id) {
    check(id >= 0 && id <= INT32_MAX, "'{}': {} cannot be an end of text token", file.path(), id);
    if (std::find(data.eos.begin(), data.eos.end(), int32_t(id)) == data.eos.end()) data.eos.push_back(int32_t(id));
  };
  if (const int32_t id = token_id(file, "tokenizer.ggml.eos_token_id", spm ? 2 : -1); id >= 0) add_eos(id);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const int32_t id = token_id(file, key); id >= 0) add_eos(id);
  }
  for (const int64_t id : file.integers("tokenizer.ggml.eos_token_ids").value_or(std::vector<int64_t>{})) add_eos(id);
  data.add_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(spm);
  refuse_true(file, "tokenizer.ggml.add_eos_token");
  refuse_true(file, "tokenizer.ggml.add_sep_token");
  data.chat_template = file.text("tokenizer.chat_template").value_or("");
  spm ? read_spm(file, data) : read_bpe(file, data);
  if (spm && file.text("general.architecture") == "phi3") add_phi3_strips(data);
  return data;
}

}  // namespace quire
