// A tokenizer as a file describes it; readers fill it, Tokenizer runs it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace quire {

enum class TokenKind : uint8_t { normal, unknown, control, user_defined, unused, byte };

// White space beside a special token that belongs to it.
struct TokenStrip {
  int32_t id;
  bool left, right;
  bool operator==(const TokenStrip&) const = default;
};

struct TokenizerData {
  // "bpe": byte-level BPE as in GPT-2 (GGUF "gpt2", tokenizer.json BPE + ByteLevel); "spm": a model of
  // SentencePiece (tokenizer.model, GGUF "llama")
  std::string model;
  std::vector<std::string>
      tokens;                    // by id; byte-level tokens in GPT-2's printable alphabet; of spm with U+2581 as space
  std::vector<TokenKind> kinds;  // by id; control and user_defined are matched in text before the regexes
  std::vector<std::string> merges;  // "left right", best first
  std::string sentencepiece;        // of spm alone: what its library runs (models/sentencepiece_model.h)
  std::vector<std::string>
      split_patterns;         // pre-tokenizer regexes (PCRE2, UTF), each applied to the pieces of the one before
  bool whole_pieces = false;  // a piece that is a token is that token, whatever the merges (Llama 3's "ignore_merges")
  int32_t bos = -1, unknown = -1, pad = -1;
  std::vector<int32_t> eos;  // merged from every place a model names them
  bool add_bos = false, add_prefix_space = false;
  // Of "char-bpe": the prefix is left out where the text begins with a space, or at any place but the text's beginning.
  bool prefix_unless_there = false, prefix_first_only = false;
  bool nfc = false;                // text is put into Normalization Form C first
  std::vector<TokenStrip> strips;  // few
  std::string chat_template;       // Jinja; empty: the model has none

  bool operator==(const TokenizerData&) const = default;
};

}  // namespace quire
