#include "engine/text_stream.h"

#include <algorithm>

#include "base/utf8.h"

namespace quire {

namespace {

// Moves whole sequences from the front of `bytes` to the result, up to `limit` bytes; at the end, everything.
std::string take_utf8(std::string& bytes, size_t limit, bool end) {
  std::string out;
  size_t at = 0;
  while (at < limit) {
    const size_t n = utf8_sequence(bytes, at);
    if (at + n > limit || (n == 0 && !end && utf8_unfinished(bytes, at))) break;
    out += n > 0 ? bytes.substr(at, n) : "\xef\xbf\xbd";
    at += std::max<size_t>(n, 1);
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
