#include "models/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/printable.h"
#include "base/utf8.h"

namespace quire {

namespace {

struct Symbol {
  size_t at, size;  // size 0: merged into its left neighbour
  int32_t prev, next;
};

struct Candidate {
  float score;
  int32_t left, right;
  size_t size;  // of both: neither has grown since
  // std heaps put the greatest on top: the highest score, then the leftmost.
  bool operator<(const Candidate& o) const { return score != o.score ? score < o.score : left > o.left; }
};

}  // namespace

struct SentencePiece::Work {
  // How unused tokens came about: they take part in merges, but are taken apart again in the end.
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> made_of;
};

SentencePiece::SentencePiece(const TokenizerData& data) : data_(data) {
  bytes_.fill(-1);
  check(data.scores.size() == data.tokens.size(), "tokenizer: {} tokens but {} scores", data.tokens.size(),
        data.scores.size());
  pieces_.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    check(std::isfinite(data.scores[id]), "tokenizer: token {} has the score {}", id, data.scores[id]);
    const TokenKind kind = data.kinds[id];
    if (kind == TokenKind::normal || kind == TokenKind::user_defined || kind == TokenKind::unused) {
      pieces_.emplace(data.tokens[id], int32_t(id));
    } else if (kind == TokenKind::byte && data.tokens[id].size() == 6) {  // "<0xNN>", as the tokenizer has checked
      bytes_[std::strtoul(data.tokens[id].c_str() + 3, nullptr, 16) & 255] = int32_t(id);
      byte_fallback_ = true;
    }
  }
}

int32_t SentencePiece::byte_id(uint8_t byte) const {
  const int32_t id = bytes_[byte] >= 0 ? bytes_[byte] : data_.unknown;
  check(id >= 0, "tokenizer: byte 0x{:02x} has no token in this vocabulary, and the model names no unknown token",
        byte);
  return id;
}

void SentencePiece::emit(std::string_view piece, const Work& work, std::vector<int32_t>& out,
                         bool& after_unknown) const {
  std::vector<std::string_view> open{piece};  // what is still to be emitted, last first
  while (!open.empty()) {
    const std::string_view next = open.back();
    open.pop_back();
    const auto found = pieces_.find(next);
    const auto parts = work.made_of.find(next);
    if (found != pieces_.end() && parts != work.made_of.end()) {
      open.push_back(parts->second.second);
      open.push_back(parts->second.first);
      continue;
    }
    const bool unknown = found == pieces_.end() && !byte_fallback_;
    if (found != pieces_.end()) {
      out.push_back(found->second);
    } else if (byte_fallback_) {
      for (const char c : next) out.push_back(byte_id(uint8_t(c)));
    } else if (!after_unknown) {
      check(data_.unknown >= 0, "tokenizer: '{}' has no token in this vocabulary, and the model names no unknown token",
            printable(next));
      out.push_back(data_.unknown);
    }
    after_unknown = unknown;
  }
}

void SentencePiece::encode(std::string_view text, std::vector<int32_t>& out) const {
  check(text.size() < INT32_MAX, "tokenizer: a text of {} bytes is too long", text.size());
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (size_t at = 0, size = 0; at < text.size(); at += size) {
    size = std::max<size_t>(1, utf8_sequence(text, at));
    const int32_t i = int32_t(symbols.size());
    symbols.push_back({at, size, i - 1, at + size < text.size() ? i + 1 : -1});
  }
  Work work;
  std::vector<Candidate> heap;
  heap.reserve(symbols.size());
  const auto piece = [&](const Symbol& s) { return text.substr(s.at, s.size); };
  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Symbol &l = symbols[size_t(left)], &r = symbols[size_t(right)];
    const auto it = pieces_.find(text.substr(l.at, l.size + r.size));
    if (it == pieces_.end()) return;
    heap.push_back({data_.scores[size_t(it->second)], left, right, l.size + r.size});
    std::push_heap(heap.begin(), heap.end());
    if (data_.kinds[size_t(it->second)] == TokenKind::unused) work.made_of[it->first] = {piece(l), piece(r)};
  };
  for (size_t i = 1; i < symbols.size(); ++i) consider(int32_t(i) - 1, int32_t(i));
  while (!heap.empty()) {
    const Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Symbol &left = symbols[size_t(best.left)], &right = symbols[size_t(best.right)];
    if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;  // merged since
    left.size += right.size;
    right.size = 0;
    left.next = right.next;
    if (right.next >= 0) symbols[size_t(right.next)].prev = best.left;
    consider(left.prev, best.left);
    consider(best.left, left.next);
  }
  bool after_unknown = false;
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[size_t(i)].next) {
    emit(piece(symbols[size_t(i)]), work, out, after_unknown);
  }
}

}  // namespace quire
