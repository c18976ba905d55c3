// GPT-2's printable alphabet: byte-level vocabularies spell each byte as one letter, so that tokens are valid, visible
// text.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quire {

// The letter of a byte, as UTF-8: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on, in order.
std::string byte_letter(uint8_t byte);
// The bytes that `letters` spells; nothing if one of them is not of the alphabet.
std::optional<std::string> bytes_of_letters(std::string_view letters);

}  // namespace quire
