#include "base/printable.h"

#include <fmt/format.h>

#include <cstdint>

namespace quire {

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return uint32_t(static_cast<unsigned char>(text[i])); };
  const uint32_t first = byte(0);
  const size_t n = first < 0x80                    ? 1
                   : first >= 0xC2 && first < 0xE0 ? 2
                   : (first & 0xF0) == 0xE0        ? 3
                   : first >= 0xF0 && first < 0xF5 ? 4
                                                   : 0;
  if (n == 0 || n > text.size()) return 0;
  if (n == 1) return 1;
  uint32_t code = first & (0x7Fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = n == 3 ? code < 0x800 : n == 4 && (code < 0x10000 || code > 0x10FFFF);
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return overlong || surrogate ? 0 : n;
}

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  while (!text.empty()) {
    const size_t n = utf8_length(text);
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
