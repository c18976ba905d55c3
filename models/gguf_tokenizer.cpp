#include "models/gguf_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "models/pre_tokenizers.h"

namespace quire {

namespace {

int32_t token_id(const GgufFile& file, const char* key) {
  const int64_t id = file.integer(key).value_or(-1);
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

}  // namespace

TokenizerData read_gguf_tokenizer(const GgufFile& file) {
  const auto model = file.text("tokenizer.ggml.model");
  check(model.has_value(), "'{}': the file has no tokenizer (metadata key 'tokenizer.ggml.model' is missing)",
        file.path());
  check(*model == "gpt2", "'{}': tokenizer model '{}' is not supported; 'gpt2' (byte-level BPE) is", file.path(),
        printable(*model));

  TokenizerData data;
  data.model = "bpe";
  const std::string pre = file.text("tokenizer.ggml.pre").value_or("default");
  data.split_patterns = split_patterns_for(pre);
  data.whole_pieces = whole_pieces_for(pre);
  auto tokens = file.texts("tokenizer.ggml.tokens");
  auto merges = file.texts("tokenizer.ggml.merges");
  check(tokens.has_value() && merges.has_value(), "'{}': metadata key 'tokenizer.ggml.{}' is missing", file.path(),
        tokens ? "merges" : "tokens");
  data.tokens = std::move(*tokens);
  data.merges = std::move(*merges);
  data.kinds = read_kinds(file, data.tokens.size());
  data.bos = token_id(file, "tokenizer.ggml.bos_token_id");
  data.unknown = token_id(file, "tokenizer.ggml.unknown_token_id");
  data.pad = token_id(file, "tokenizer.ggml.padding_token_id");
  const auto add_eos = [&](int64_t id) {
    check(id >= 0 && id <= INT32_MAX, "'{}': {} cannot be an end of text token", file.path(), id);
    if (std::find(data.eos.begin(), data.eos.end(), int32_t(id)) == data.eos.end()) data.eos.push_back(int32_t(id));
  };
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const int32_t id = token_id(file, key); id >= 0) add_eos(id);
  }
  for (const int64_t id : file.integers("tokenizer.ggml.eos_token_ids").value_or(std::vector<int64_t>{})) add_eos(id);
  data.add_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(false);
  data.add_prefix_space = file.boolean("tokenizer.ggml.add_space_prefix").value_or(false);
  refuse_true(file, "tokenizer.ggml.add_eos_token");
  refuse_true(file, "tokenizer.ggml.add_sep_token");
  data.chat_template = file.text("tokenizer.chat_template").value_or("");
  return data;
}

}  // namespace quire
