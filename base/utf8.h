// UTF-8, one sequence at a time. Everything that must tell text from bytes (tokenizer, streaming, templates) asks here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quire {

// Bytes of the well-formed sequence (RFC 3629: no overlong forms, surrogates or values above U+10FFFF) at text[at]; 0
// if there is none, also when the text ends inside it.
size_t utf8_sequence(std::string_view text, size_t at);
// Whether the text ends inside a sequence at text[at] that more bytes could make well formed.
bool utf8_unfinished(std::string_view text, size_t at);
// The code point of the sequence at text[at], which utf8_sequence() has accepted.
uint32_t utf8_decode(std::string_view text, size_t at);
void utf8_append(std::string& out, uint32_t code_point);
// Length of the longest prefix that is well formed.
size_t utf8_valid_prefix(std::string_view text);

}  // namespace quire
