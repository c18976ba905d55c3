#include "engine/jinja/text.h"

#include <algorithm>

#include "base/utf8.h"
#include "engine/jinja/value.h"

namespace quire::jinja {

namespace {

std::string_view character_at(std::string_view text, size_t at) {
  return text.substr(at, std::max<size_t>(1, utf8_sequence(text, at)));
}

std::string_view last_character(std::string_view text) {
  for (size_t n = 2; n <= 4 && n <= text.size(); ++n)
    if (utf8_sequence(text, text.size() - n) == n) return text.substr(text.size() - n);
  return text.substr(text.size() - 1);
}

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size(); at += out.back().size()) out.push_back(character_at(text, at));
  return out;
}

size_t length(std::string_view text) {
  size_t n = 0;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size()) ++n;
  return n;
}

bool is_space(std::string_view character) {
  if (character.size() == 1) {
    const char c = character[0];
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F);
  }
  const uint32_t c = utf8_decode(character, 0);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t find_text(std::string_view text, std::string_view needle, size_t from) {
  if (needle.size() <= 16) return text.find(needle, from);
  // Knuth, Morris, Pratt: fail[i] = length of the longest proper border of needle[0..i].
  std::vector<uint32_t> fail(needle.size(), 0);
  for (size_t i = 1, k = 0; i < needle.size(); ++i) {
    while (k && needle[i] != needle[k]) k = fail[k - 1];
    k += needle[i] == needle[k];
    fail[i] = static_cast<uint32_t>(k);
  }
  for (size_t i = from, k = 0; i < text.size(); ++i) {
    while (k && text[i] != needle[k]) k = fail[k - 1];
    k += text[i] == needle[k];
    if (k == needle.size()) return i + 1 - k;
  }
  return std::string_view::npos;
}

std::string_view strip(std::string_view text, std::optional<std::string_view> chars, bool left, bool right) {
  std::vector<std::string_view> set;
  if (chars) set = characters(*chars);
  if (set.size() > 128) refuse("strip: {} characters to strip; at most 128 are supported", set.size());
  const auto goes = [&](std::string_view c) {
    return chars ? std::find(set.begin(), set.end(), c) != set.end() : is_space(c);
  };
  while (left && !text.empty() && goes(character_at(text, 0))) text.remove_prefix(character_at(text, 0).size());
  while (right && !text.empty() && goes(last_character(text))) text.remove_suffix(last_character(text).size());
  return text;
}

std::string replace(std::string_view text, std::string_view old_text, std::string_view new_text, int64_t count) {
  std::string out;
  if (old_text.empty()) {  // between all characters
    size_t at = 0;
    for (; count != 0; --count) {
      append_text(out, new_text);
      if (at == text.size()) return out;
      const std::string_view c = character_at(text, at);
      append_text(out, c);
      at += c.size();
    }
    append_text(out, text.substr(at));
    return out;
  }
  size_t done = 0;
  while (count != 0) {
    const size_t at = find_text(text, old_text, done);
    if (at == std::string_view::npos) break;
    append_text(out, text.substr(done, at - done));
    append_text(out, new_text);
    done = at + old_text.size();
    --count;
  }
  append_text(out, text.substr(done));
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t count) {
  if (separator.empty()) refuse("split: the separator is empty");
  std::vector<std::string_view> out;
  size_t done = 0;
  for (; count != 0; --count) {
    const size_t at = find_text(text, separator, done);
    if (at == std::string_view::npos) break;
    out.push_back(text.substr(done, at - done));
    done = at + separator.size();
  }
  out.push_back(text.substr(done));
  return out;
}

std::vector<std::string_view> split_from_right(std::string_view text, std::string_view separator, int64_t count) {
  if (separator.empty()) refuse("rsplit: the separator is empty");
  if (separator.size() > 64) refuse("rsplit: a separator of {} bytes; at most 64 are supported", separator.size());
  std::vector<std::string_view> out;
  for (; count != 0; --count) {
    const size_t at = text.rfind(separator);
    if (at == std::string_view::npos) break;
    out.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  out.push_back(text);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_space(std::string_view text, int64_t count) {
  std::vector<std::string_view> out;
  text = strip(text, std::nullopt, true, false);
  while (!text.empty()) {
    size_t end = 0;
    while (end < text.size() && !is_space(character_at(text, end))) end += character_at(text, end).size();
    if (count == 0) end = text.size();
    out.push_back(text.substr(0, end));
    if (count-- == 0) return out;
    text = strip(text.substr(end), std::nullopt, true, false);
  }
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const std::string_view c = character_at(text, at);
    const uint32_t code = c.size() > 1 ? utf8_decode(c, 0) : static_cast<unsigned char>(c[0]);
    const bool ends = (code >= 0xA && code <= 0xD) || (code >= 0x1C && code <= 0x1E) ||
                      (c.size() > 1 && (code == 0x85 || code == 0x2028 || code == 0x2029));
    const size_t end = at;
    at += c.size();
    if (!ends) continue;
    if (code == '\r' && at < text.size() && text[at] == '\n') ++at;
    out.push_back(text.substr(start, (keep_ends ? at : end) - start));
    start = at;
  }
  if (start < text.size()) out.push_back(text.substr(start));
  return out;
}

}  // namespace quire::jinja
