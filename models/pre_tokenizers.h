// Pre-tokenizers that GGUF files name instead of spelling out (tokenizer.ggml.pre).
#pragma once
#include <string>
#include <vector>

namespace quire {

// The regexes of TokenizerData::split_patterns. Error naming `pre` and what is known, if it is not.
std::vector<std::string> split_patterns_for(const std::string& pre);
// TokenizerData::whole_pieces of the same models.
bool whole_pieces_for(const std::string& pre);

}  // namespace quire
