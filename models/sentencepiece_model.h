// SentencePiece's models as bytes: the protocol buffer message ModelProto (sentencepiece_model.proto of that project),
// which is what tokenizer.model holds.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer_data.h"

namespace quire {

// Turns the space in front off, put after a model: fields of a message that comes twice are merged.
constexpr std::string_view kWithoutPrefix{"\x1a\x02\x18\x00", 4};

struct SentencePieceTraits {
  bool prefix = true;   // a space is put in front of a text
  bool merges = false;  // BPE of the text as it is, where what has no token becomes bytes: only tokens join characters
};
// What the library follows without looking is looked at here, so that no file makes it leave its memory: the tables of
// normalization, and user-defined tokens that begin with one another. Error for those, and for what Tokenizer cannot do
// (spaces behind words, spaces that stay spaces).
SentencePieceTraits check_sentencepiece_model(std::string_view model, const std::string& where);

// A vocabulary with scores, as GGUF files have it, of the kind BPE.
struct SentencePieceVocabulary {
  std::vector<std::string> tokens;  // by id, as the next two
  std::vector<float> scores;
  std::vector<TokenKind> kinds;
  int32_t unknown = -1, bos = -1, eos = -1, pad = -1;
  std::string charsmap;  // the table of normalization, or empty
  bool prefix = true, remove_extra_spaces = false;
};
std::string sentencepiece_model(const SentencePieceVocabulary& vocabulary);

}  // namespace quire
