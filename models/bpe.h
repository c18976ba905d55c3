// Byte pair encoding of one word: the two neighbours with the best merge become one, until no merge is left.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace quire {

using TokenIds = std::unordered_map<std::string_view, int32_t>;  // by spelling

class Bpe {
 public:
  // What merging begins with: the letters that stand for bytes (byte_alphabet.h), or characters; a character that is no
  // token falls back to those of its bytes, "<0xNN>".
  enum class Symbols : uint8_t { bytes, characters };
  // merges: "left right", best first. Error on one whose parts or result are not in `ids`, or that comes twice; with
  // characters also if a byte has no token. `ids` must outlive it.
  Bpe(const std::vector<std::string>& merges, const TokenIds& ids, int32_t unknown, Symbols symbols = Symbols::bytes);

  // Appends the ids of `word` (characters: well-formed UTF-8); O(n log n). Error if a byte has no token and there is no
  // `unknown`.
  void encode(std::string_view word, std::vector<int32_t>& out) const;
  int32_t byte_id(uint8_t byte) const;

 private:
  struct Merge {
    int32_t rank, id;
  };
  const Merge* find(int32_t left, int32_t right) const;
  std::vector<int32_t> first_symbols(std::string_view word) const;

  const TokenIds& ids_;
  Symbols symbols_;
  std::array<int32_t, 256> bytes_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left << 32 | right
};

}  // namespace quire
