#include "models/bpe.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "base/utf8.h"
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

Bpe::Bpe(const std::vector<std::string>& merges, const TokenIds& ids, int32_t unknown, Symbols symbols)
    : ids_(ids), symbols_(symbols) {
  for (int b = 0; b < 256; ++b) {
    const bool letters = symbols == Symbols::bytes;
    const std::string token = letters ? byte_letter(static_cast<uint8_t>(b)) : fmt::format("<0x{:02X}>", b);
    const auto it = ids.find(token);
    check(letters || it != ids.end(), "tokenizer: byte 0x{:02x} has no token '{}' to fall back to", b, token);
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

std::vector<int32_t> Bpe::first_symbols(std::string_view word) const {
  std::vector<int32_t> first;
  first.reserve(word.size());
  for (size_t at = 0, size = 1; at < word.size(); at += size) {
    if (symbols_ == Symbols::characters) {
      size = std::max<size_t>(1, utf8_sequence(word, at));
      if (const auto it = ids_.find(word.substr(at, size)); it != ids_.end()) {
        first.push_back(it->second);
        continue;
      }
    }
    for (const char c : word.substr(at, size)) first.push_back(byte_id(static_cast<uint8_t>(c)));
  }
  return first;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& out) const {
  check(word.size() < INT32_MAX, "tokenizer: a word of {} bytes is too long", word.size());
  const std::vector<int32_t> first = first_symbols(word);
  const int32_t n = static_cast<int32_t>(first.size());
  if (n == 1) return out.push_back(first[0]);
  std::vector<Symbol> symbols(first.size());
  std::vector<Candidate> heap;
  heap.reserve(first.size());
  const auto consider = [&](int32_t at) {
    const Symbol& left = symbols[static_cast<size_t>(at)];
    const Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (const Merge* m = find(left.id, right.id)) {
      heap.push_back({m->rank, at, left.id, right.id, m->id});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  for (int32_t i = 0; i < n; ++i)
    symbols[static_cast<size_t>(i)] = {first[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1};
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
