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
  // merges: "left right", best first. Error on one whose parts or result are not in `ids`, or that comes twice.
  Bpe(const std::vector<std::string>& merges, const TokenIds& ids, int32_t unknown);

  // Appends the ids of `word`; O(n log n). Error if a byte has no token and there is no `unknown`.
  void encode(std::string_view word, std::vector<int32_t>& out) const;
  int32_t byte_id(uint8_t byte) const;

 private:
  struct Merge {
    int32_t rank, id;
  };
  const Merge* find(int32_t left, int32_t right) const;

  std::array<int32_t, 256> bytes_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left << 32 | right
};

}  // namespace quire
