// What a directory says about its tokenizer beside the vocabulary: tokenizer_config.json, chat_template.jinja, and the
// special tokens of config.json and generation_config.json.
#pragma once
#include <string>
#include <unordered_map>

#include "models/json_file.h"
#include "models/tokenizer_data.h"

namespace quire {

constexpr size_t kMaxTokenizerConfigBytes = 10'000'000;

// `ids`: those of the tokens of `data`, which is completed. Error names file and key.
void read_tokenizer_configs(const std::string& directory, const JsonObject& config,
                            const std::unordered_map<std::string, int32_t>& ids, TokenizerData& data);

// A key must be absent, null, false, zero or empty.
void refuse_key(const JsonObject& o, const char* key);

}  // namespace quire
