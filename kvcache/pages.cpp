#include "kvcache/pages.h"

#include <algorithm>

#include "base/error.h"

namespace quire {

Pages::Pages(int64_t count) : entries_(size_t(count)) {
  free_.reserve(size_t(count));
  for (int64_t i = count - 1; i >= 0; --i) {
    free_.push_back(int32_t(i));
    entries_[size_t(i)].place = others_.insert(others_.end(), int32_t(i));
  }
}

int32_t Pages::allocate() {
  int32_t page = -1;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else if (!kept_.empty()) {
    page = kept_.front();
    others_.splice(others_.end(), kept_, kept_.begin());
    forget(page);
  }
  if (page >= 0) entries_[size_t(page)].references = 1;
  return page;
}

void Pages::retain(int32_t page) {
  Entry& e = entries_.at(size_t(page));
  if (e.references++ == 0) others_.splice(others_.end(), kept_, e.place);
}

void Pages::release(int32_t page) {
  Entry& e = entries_.at(size_t(page));
  check(e.references > 0, "pages: page {} was released more often than it was held", page);
  if (--e.references > 0) return;
  if (e.published) {
    kept_.splice(kept_.end(), others_, e.place);
  } else {
    free_.push_back(page);
  }
}

uint64_t Pages::key(uint64_t parent, std::span<const int32_t> tokens) {
  uint64_t h = parent;
  for (const int32_t t : tokens) {  // splitmix64 over the chain
    h += 0x9e3779b97f4a7c15u + uint32_t(t);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    h ^= h >> 31;
  }
  return h;
}

void Pages::publish(int32_t page, uint64_t parent, std::span<const int32_t> tokens) {
  Entry& e = entries_.at(size_t(page));
  const uint64_t k = key(parent, tokens);
  if (e.published || by_key_.count(k)) return;
  e.tokens.assign(tokens.begin(), tokens.end());
  by_key_[k] = page;
  e.published = true;  // last: there may have been no memory for the others
  e.key = k;
  e.parent = parent;
}

int32_t Pages::find(uint64_t parent, std::span<const int32_t> tokens) {
  const auto it = by_key_.find(key(parent, tokens));
  if (it == by_key_.end()) return -1;
  const Entry& e = entries_[size_t(it->second)];
  if (e.parent != parent || !std::equal(e.tokens.begin(), e.tokens.end(), tokens.begin(), tokens.end())) return -1;
  retain(it->second);
  return it->second;
}

void Pages::forget(int32_t page) {
  Entry& e = entries_[size_t(page)];
  by_key_.erase(e.key);
  e.published = false;
  e.tokens.clear();
}

}  // namespace quire
