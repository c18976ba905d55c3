// SentencePiece's models (BPE, Unigram, words, characters), run by its own library.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer_data.h"

namespace quire {

class SentencePiece {
 public:
  // A serialized ModelProto (sentencepiece_model.h); must outlive this. Error (`where`, what) if it is damaged or of a
  // kind that is not supported.
  SentencePiece(std::string_view model, const std::string& where);
  ~SentencePiece();

  // The model's vocabulary, the tokens that it names, and whether a space is put in front of texts.
  TokenizerData describe() const;
  // Appends the ids of well-formed UTF-8, without the model's space in front if not `prefix`. What has no token becomes
  // bytes or, of a model without those, `unknown`, one for a run of them. Safe from several threads.
  void encode(std::string_view text, bool prefix, std::vector<int32_t>& out) const;
  int32_t byte_id(uint8_t byte) const;  // its token or `unknown`

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The tokenizer that a serialized model describes, which it keeps. Error as above.
TokenizerData read_sentencepiece(std::string model, const std::string& where);

}  // namespace quire
