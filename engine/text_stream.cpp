#include "engine/text_stream.h"

#include <algorithm>

namespace quire {

namespace {

// Length of the UTF-8 sequence at s: > 0 whole, 0 an unfinished beginning of one, -1 no UTF-8.
int sequence_length(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char b = byte(0);
  if (b < 0x80) return 1;
  const int n = b >= 0xc2 && b <= 0xdf ? 2 : (b & 0xf0) == 0xe0 ? 3 : b >= 0xf0 && b <= 0xf4 ? 4 : 0;
  if (n == 0) return -1;
  for (int i = 1; i < n; ++i) {
    if (size_t(i) == s.size()) return 0;
    // The second byte rules out overlong forms, surrogates and what lies beyond U+10FFFF.
    const unsigned lo = i > 1 ? 0x80 : b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    const unsigned hi = i > 1 ? 0xbf : b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    if (byte(size_t(i)) < lo || byte(size_t(i)) > hi) return -1;
  }
  return n;
}

// Moves whole sequences from the front of `bytes` to the result, up to `limit` bytes; at the end, everything.
std::string take_utf8(std::string& bytes, size_t limit, bool end) {
  std::string out;
  size_t at = 0;
  while (at < limit) {
    const int n = sequence_length(std::string_view(bytes).substr(at));
    if (n == 0 && !end) break;
    if (n > 0 && at + size_t(n) > limit) break;
    out += n > 0 ? bytes.substr(at, size_t(n)) : "\xef\xbf\xbd";
    at += n > 0 ? size_t(n) : 1;
  }
  bytes.erase(0, at);
  return out;
}

}  // namespace

TextStream::TextStream(std::vector<std::string> stop) : stop_(std::move(stop)) {
  std::erase_if(stop_, [](const std::string& s) { return s.empty(); });
}

std::string TextStream::push(std::string_view bytes) {
  if (stopped_) return {};
  pending_ += bytes;
  size_t found = std::string::npos, held = 0;
  for (const std::string& s : stop_) {
    found = std::min(found, pending_.find(s));
    for (size_t n = std::min(s.size() - 1, pending_.size()); n > held; --n) {
      if (pending_.compare(pending_.size() - n, n, s, 0, n) == 0) held = n;
    }
  }
  if (found != std::string::npos) {
    stopped_ = true;
    pending_.resize(found);
    return take_utf8(pending_, found, true);
  }
  return take_utf8(pending_, pending_.size() - held, false);
}

std::string TextStream::finish() {
  if (stopped_) return {};
  return take_utf8(pending_, pending_.size(), true);
}

}  // namespace quire
