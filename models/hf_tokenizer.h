// The tokenizer of a HuggingFace directory: tokenizer.json, tokenizer_config.json, chat_template.jinja,
// generation_config.json.
#pragma once
#include <utility>

#include "models/json_file.h"
#include "models/tokenizer_data.h"

namespace quire {

// A key of ours in tokenizer_config.json: lists of ids by kind, for what tokenizer.json cannot say.
constexpr const char* kTokenKindsKey = "quire_token_kinds";
constexpr std::pair<const char*, TokenKind> kExtraTokenKinds[] = {
    {"unknown", TokenKind::unknown}, {"unused", TokenKind::unused}, {"byte", TokenKind::byte}};

// vocab: rows of the embedding, which no id in the vocabulary may pass; added tokens beyond it are left out. Error
// names a construct that is not supported.
TokenizerData read_hf_tokenizer(const std::string& directory, const JsonObject& config, int64_t vocab);

}  // namespace quire
