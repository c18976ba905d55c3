#include "base/printable.h"

#include <fmt/format.h>

#include <cstdint>
#include <utility>

#include "base/utf8.h"

namespace quire {

namespace {

// Marks, embeddings, overrides and isolates of direction, and the separators of lines and paragraphs: with them a text
// shows otherwise than it reads.
bool turns_text(std::string_view sequence) {
  for (const auto& [first, last] : {std::pair<std::string_view, std::string_view>{"\u061C", "\u061C"},
                                    {"\u200E", "\u200F"},
                                    {"\u2028", "\u202E"},
                                    {"\u2066", "\u2069"}}) {
    if (sequence >= first && sequence <= last && sequence.size() == first.size()) return true;  // in UTF-8's order
  }
  return false;
}

uint32_t code_point(std::string_view sequence) {  // of two or three bytes
  const auto at = [&](size_t i) { return uint32_t(static_cast<unsigned char>(sequence[i])); };
  if (sequence.size() == 2) return (at(0) & 0x1F) << 6 | (at(1) & 0x3F);
  return (at(0) & 0xF) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  while (!text.empty()) {
    const size_t n = utf8_sequence(text, 0);
    const auto first = static_cast<unsigned char>(text[0]);
    const bool c1_control = n == 2 && first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0;
    std::string piece(text.substr(0, n > 0 ? n : 1));
    if (first == '\n')
      piece = "\\n";
    else if (first == '\t')
      piece = "\\t";
    else if (first == '\\')
      piece = "\\\\";
    else if (n == 0 || first < 0x20 || first == 0x7F)
      piece = fmt::format("\\x{:02x}", first);
    else if (c1_control || turns_text(piece))
      piece = fmt::format("\\u{:04x}", code_point(piece));
    if (out.size() + piece.size() > max_bytes) return out + "...";
    out += piece;
    text.remove_prefix(n > 0 ? n : 1);
  }
  return out;
}

}  // namespace quire
