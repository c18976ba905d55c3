#include "models/bpe.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "models/byte_alphabet.h"

namespace quire {

namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct Symbol {
  int32_t id;
  int32_t prev, next;  // -1 at the ends; id -1: merged into its left neighbour
};

struct Candidate {
  int32_t rank, at, left, right, id;
  // std heaps put the greatest on top: the best is the lowest rank, then the leftmost.
  bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
};

}  // namespace

Bpe::Bpe(const std::vector<std::string>& merges, const TokenIds& ids, int32_t unknown) {
  for (int b = 0; b < 256; ++b) {
    const std::string letter = byte_letter(static_cast<uint8_t>(b));
    const auto it = ids.find(letter);
    bytes_[static_cast<size_t>(b)] = it == ids.end() ? unknown : it->second;
  }
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string& merge = merges[rank];
    const size_t space = merge.find(' ');
    check(space != std::string::npos && space > 0 && space + 1 < merge.size() &&
              merge.find(' ', space + 1) == std::string::npos,
          "tokenizer: merge {} '{}' is not two tokens with one space between", rank, printable(merge));
    const auto id_of = [&](const std::string& token) {
      const auto it = ids.find(token);
      check(it != ids.end(), "tokenizer: merge {} '{}': '{}' is not in the vocabulary of {} tokens", rank,
            printable(merge), printable(token), ids.size());
      return it->second;
    };
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const uint64_t key = pair_key(id_of(left), id_of(right));
    const bool fresh = merges_.emplace(key, Merge{static_cast<int32_t>(rank), id_of(left + right)}).second;
    check(fresh, "tokenizer: merge {} '{}' comes a second time", rank, printable(merge));
  }
}

const Bpe::Merge* Bpe::find(int32_t left, int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

int32_t Bpe::byte_id(uint8_t byte) const {
  const int32_t id = bytes_[byte];
  check(id >= 0, "tokenizer: byte 0x{:02x} has no token in this vocabulary, and the model names no unknown token",
        byte);
  return id;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& out) const {
  check(word.size() < INT32_MAX, "tokenizer: a word of {} bytes is too long", word.size());
  const int32_t n = static_cast<int32_t>(word.size());
  if (n == 1) return out.push_back(byte_id(static_cast<uint8_t>(word[0])));
  std::vector<Symbol> symbols(word.size());
  std::vector<Candidate> heap;
  heap.reserve(word.size());
  const auto consider = [&](int32_t at) {
    const Symbol& left = symbols[static_cast<size_t>(at)];
    const Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (const Merge* m = find(left.id, right.id)) {
      heap.push_back({m->rank, at, left.id, right.id, m->id});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  for (int32_t i = 0; i < n; ++i)
    symbols[static_cast<size_t>(i)] = {byte_id(static_cast<uint8_t>(word[static_cast<size_t>(i)])), i - 1,
                                       i + 1 < n ? i + 1 : -1};
  for (int32_t i = 0; i + 1 < n; ++i) consider(i);
  while (!heap.empty()) {
    const Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.at)];
    if (left.id != best.left || left.next < 0 || symbols[static_cast<size_t>(left.next)].id != best.right)
      continue;  // one of the two has been merged since
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = best.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].prev = best.at;
      consider(best.at);
    }
    if (left.prev >= 0) consider(left.prev);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    out.push_back(symbols[static_cast<size_t>(i)].id);
}

}  // namespace quire
