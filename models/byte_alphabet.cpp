#include "models/byte_alphabet.h"

#include <array>

#include "base/utf8.h"

namespace quire {

namespace {

struct Alphabet {
  std::array<uint32_t, 256> letter;
  std::array<int16_t, 256 + 68> byte;  // by letter, -1 if it is none

  Alphabet() {
    byte.fill(-1);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      letter[b] = printable ? b : next++;
      byte[letter[b]] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet a;
  return a;
}

}  // namespace

std::string byte_letter(uint8_t byte) {
  std::string out;
  utf8_append(out, alphabet().letter[byte]);
  return out;
}

std::optional<std::string> bytes_of_letters(std::string_view letters) {
  std::string out;
  for (size_t at = 0, length; at < letters.size(); at += length) {
    length = utf8_sequence(letters, at);
    if (!length) return std::nullopt;
    const uint32_t c = utf8_decode(letters, at);
    if (c >= alphabet().byte.size() || alphabet().byte[c] < 0) return std::nullopt;
    out.push_back(static_cast<char>(alphabet().byte[c]));
  }
  return out;
}

}  // namespace quire
