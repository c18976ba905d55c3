#include "base/utf8.h"

namespace quire {

namespace {
uint8_t byte_at(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

// The length that the first byte announces, 0 if it begins no sequence, and how many of those bytes are there and fit.
struct Scan {
  size_t length = 0, good = 0;
};

Scan scan(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const uint8_t lead = byte_at(text, at);
  if (lead < 0x80) return {1, 1};
  if (lead < 0xC2 || lead > 0xF4) return {};  // continuation, overlong two-byte form, above U+10FFFF
  Scan found{size_t(lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4), 1};
  for (; found.good < found.length && at + found.good < text.size(); ++found.good) {
    // Only the second byte's range depends on the lead (Unicode table 3-7).
    const bool second = found.good == 1;
    const uint8_t low = second && lead == 0xE0 ? 0xA0 : second && lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = second && lead == 0xED ? 0x9F : second && lead == 0xF4 ? 0x8F : 0xBF;
    const uint8_t byte = byte_at(text, at + found.good);
    if (byte < low || byte > high) break;
  }
  return found;
}
}  // namespace

size_t utf8_sequence(std::string_view text, size_t at) {
  const Scan found = scan(text, at);
  return found.good == found.length ? found.length : 0;
}

bool utf8_unfinished(std::string_view text, size_t at) {
  const Scan found = scan(text, at);
  return found.good < found.length && at + found.good == text.size();
}

uint32_t utf8_decode(std::string_view text, size_t at) {
  const uint32_t lead = byte_at(text, at);
  if (lead < 0x80) return lead;
  const auto tail = [&](size_t i) { return static_cast<uint32_t>(byte_at(text, at + i) & 0x3F); };
  if (lead < 0xE0) return (lead & 0x1F) << 6 | tail(1);
  if (lead < 0xF0) return (lead & 0x0F) << 12 | tail(1) << 6 | tail(2);
  return (lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
}

void utf8_append(std::string& out, uint32_t c) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (size_t length = utf8_sequence(text, at)) at += length;
  return at;
}

}  // namespace quire
