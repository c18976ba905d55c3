// SentencePiece's BPE on a vocabulary with scores: of all neighbours whose concatenation is a token, the pair with the
// highest score becomes one (the leftmost of several), until none is left. What is no token falls back to bytes.
#pragma once
#include <array>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/tokenizer_data.h"

namespace quire {

class SentencePiece {
 public:
  // `data` must outlive it. Error unless every token has a finite score.
  explicit SentencePiece(const TokenizerData& data);

  // Appends the ids of well-formed UTF-8 in which spaces are U+2581 already; O(n log n). Characters without a token, or
  // bytes of them, become `unknown`, one for a run of them; Error if there is none.
  void encode(std::string_view text, std::vector<int32_t>& out) const;
  int32_t byte_id(uint8_t byte) const;  // its token or `unknown`; Error if there is neither

 private:
  struct Work;
  void emit(std::string_view piece, const Work& work, std::vector<int32_t>& out, bool& after_unknown) const;

  const TokenizerData& data_;
  std::unordered_map<std::string_view, int32_t> pieces_;  // what merges may make
  std::array<int32_t, 256> bytes_;                        // -1: none
  bool byte_fallback_ = false;
};

}  // namespace quire
