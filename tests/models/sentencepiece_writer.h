// Files as SentencePiece writes them (ModelProto), field by field.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "models/protobuf.h"

namespace quire {

// Bytes of base64, with whole quartets.
inline std::string from_base64(const std::string& text) {
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t at = 0; at + 4 <= text.size(); at += 4) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) bits = bits << 6 | uint32_t(letters.find(text[at + i]) % 64);
    for (const int shift : {16, 8, 0}) out += char(bits >> shift);
  }
  while (!text.empty() && out.size() + size_t(text.ends_with("==") ? 2 : text.ends_with("=")) > text.size() / 4 * 3)
    out.pop_back();
  return out;
}

struct SentencePieceWriter {
  int64_t type = 2, unknown = 0, bos = 1, eos = 2;  // type: BPE
  bool prefix = true, removes_space = false, bytes = false;
  std::string charsmap, extra;  // extra: put behind the rest
  std::string pieces;

  void piece(const std::string& token, float score, int64_t kind) {
    pieces += proto_text(1, proto_text(1, token) + proto_float(2, score) + proto_integer(3, kind));
    bytes = bytes || kind == 6;
  }
  std::string file() const {
    return pieces +
           proto_text(2, proto_integer(3, type) + proto_integer(35, bytes) + proto_integer(40, unknown) +
                             proto_integer(41, bos) + proto_integer(42, eos) + proto_integer(43, -1)) +
           proto_text(3, proto_text(1, "identity") + proto_text(2, charsmap) + proto_integer(3, prefix) +
                             proto_integer(4, removes_space)) +
           extra;
  }

  // A model of tools/golden_sentencepiece.py.
  static SentencePieceWriter golden(const nlohmann::json& model) {
    SentencePieceWriter w;
    for (size_t i = 0; i < model["tokens"].size(); ++i) {
      w.piece(model["tokens"][i], model["scores"][i], model["types"][i]);
    }
    w.type = model["model_type"];
    w.charsmap = from_base64(model["charsmap"]);
    w.prefix = model["add_space_prefix"];
    w.removes_space = model["remove_extra_whitespaces"];
    return w;
  }
};

}  // namespace quire
