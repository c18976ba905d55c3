// SentencePiece's tokenizer.model: a protocol buffer message ModelProto (sentencepiece_model.proto of that project).
#pragma once
#include <string>

#include "models/tokenizer_data.h"

namespace quire {

// Fills what the file says: the vocabulary with its scores, the special tokens, the space in front. Error if the file
// is damaged, or of a kind that is not supported (unigram and word models, normalization).
TokenizerData read_sentencepiece_file(const std::string& path);

}  // namespace quire
