// The tokenizer of a HuggingFace directory: tokenizer.json, tokenizer_config.json, chat_template.jinja,
// generation_config.json.
#pragma once
#include "models/json_file.h"
#include "models/tokenizer_data.h"

namespace quire {

// vocab: rows of the embedding, which no token id may pass. Error names a construct that is not supported.
TokenizerData read_hf_tokenizer(const std::string& directory, const JsonObject& config, int64_t vocab);

}  // namespace quire
