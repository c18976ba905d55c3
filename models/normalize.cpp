#include "models/normalize.h"

#if QUIRE_WITH_UTF8PROC
#include <utf8proc.h>
#endif

#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/utf8.h"

namespace quire {

namespace {

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool all_ascii(std::string_view text) {
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0x80) != 0) return false;
  }
  return true;
}

}  // namespace

std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
  std::string out;
  for (size_t at; (at = text.find(what)) != text.npos; text.remove_prefix(at + what.size())) {
    out += text.substr(0, at);
    out += by;
  }
  return out += text;
}

std::string nfc(std::string_view text) {
  if (all_ascii(text)) return std::string(text);
#if QUIRE_WITH_UTF8PROC
  utf8proc_uint8_t* result = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &result, options);
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(result, std::free);
  check(size >= 0, "tokenizer: normalizing {} bytes of text: {}", text.size(), utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(result), static_cast<size_t>(size)};
#else
  fail("tokenizer: this build cannot normalize text to NFC; install libutf8proc-dev and build again");
#endif
}

size_t leading_space(std::string_view text) {
  size_t at = 0;
  for (size_t size; (size = utf8_sequence(text, at)) > 0 && is_space(utf8_decode(text, at));) at += size;
  return at;
}

size_t trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t at = end - 1;
    while (at > 0 && end - at < 4 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (utf8_sequence(text, at) != end - at || !is_space(utf8_decode(text, at))) break;
    end = at;
  }
  return text.size() - end;
}

}  // namespace quire
