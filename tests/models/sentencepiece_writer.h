// Files as SentencePiece writes them (ModelProto), field by field.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>

namespace quire {

struct SentencePieceWriter {
  int64_t type = 2, unknown = 0, bos = 1, eos = 2;  // type: BPE
  bool prefix = true, removes_space = false;
  std::string charsmap;
  std::string pieces;

  static std::string varint(uint64_t x) {
    std::string out;
    for (; x >= 128; x >>= 7) out += char(x | 128);
    return out += char(x);
  }
  static std::string number(int field, int64_t x) { return varint(uint64_t(field) << 3) + varint(uint64_t(x)); }
  static std::string text(int field, const std::string& x) {
    return varint(uint64_t(field) << 3 | 2) + varint(x.size()) + x;
  }
  void piece(const std::string& token, float score, int64_t kind) {
    std::string bytes(4, '\0');
    std::memcpy(bytes.data(), &score, 4);
    pieces += text(1, text(1, token) + varint(2 << 3 | 5) + bytes + number(3, kind));
  }
  std::string file() const {
    return pieces +
           text(2, number(3, type) + number(40, unknown) + number(41, bos) + number(42, eos) + number(43, -1)) +
           text(3, text(1, "identity") + text(2, charsmap) + number(3, prefix) + number(4, removes_space));
  }
};

}  // namespace quire
