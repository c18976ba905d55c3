// The texts of a HuggingFace directory, from a checkpoint whatever container it came in: what hf_config.h and
// hf_tokenizer.h read back as the same ModelConfig and TokenizerData.
#pragma once
#include <string>

#include "models/config.h"
#include "models/tokenizer_data.h"
#include "quant/scheme.h"

namespace quire {

std::string hf_config_text(const ModelConfig& config, const TokenizerData& tokenizer, const Scheme& scheme);
std::string hf_tokenizer_text(const TokenizerData& tokenizer);  // tokenizer.json; Error if a token is not UTF-8
std::string hf_tokenizer_config_text(const ModelConfig& config, const TokenizerData& tokenizer);
std::string hf_generation_config_text(const TokenizerData& tokenizer);

}  // namespace quire
