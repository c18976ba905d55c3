#include "base/printable.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace quire {

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
    else if (c1_control)
      piece = fmt::format("\\u00{:02x}", static_cast<unsigned char>(text[1]));
    if (out.size() + piece.size() > max_bytes) return out + "...";
    out += piece;
    text.remove_prefix(n > 0 ? n : 1);
  }
  return out;
}

}  // namespace quire
