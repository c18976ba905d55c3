// Text to token ids and back.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer_data.h"

namespace quire {

struct TextRange {
  size_t begin, end;  // bytes
};

class Tokenizer {
 public:
  explicit Tokenizer(TokenizerData data);  // Error on a malformed vocabulary, merge or pattern
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // parse_special: control tokens spelled in the text become their ids (templates); otherwise they are plain text (user
  // input that must not forge turns). add_bos follows the model, unless the text itself begins with bos. Invalid UTF-8
  // (each byte that starts no well-formed sequence) is encoded byte by byte, never merged and never dropped. A byte the
  // vocabulary has no token for becomes `unknown` (SmolLM2 lacks some control characters); Error if there is none. Safe
  // from several threads.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = true) const;
  // The same with parse_special, but within `plain` (ascending, apart) control tokens are plain text.
  std::vector<int32_t> encode(std::string_view text, std::span<const TextRange> plain) const;
  // Bytes of one token; control tokens give their spelling if `special`, else nothing. Not necessarily whole UTF-8.
  std::string_view bytes(int32_t id, bool special = false) const;
  std::string decode(std::span<const int32_t> ids, bool special = false) const;

  int32_t vocab_size() const;
  bool is_eos(int32_t id) const;
  const TokenizerData& data() const;
  int32_t find(std::string_view token) const;  // id of an exact token spelling (as in the vocabulary), -1 if none

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quire
