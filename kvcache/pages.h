// Pages: who holds them, which are free, and which hold a prefix another sequence can share. Knows ids only, no bytes.
// Only the constructor and publish() take memory, so that whoever cleans up after a failure can give pages back.
#pragma once
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

namespace quire {

class Pages {
 public:
  explicit Pages(int64_t count);

  int32_t allocate();  // one reference; -1 if every page is held. Reuses the least recently used kept page last.
  void retain(int32_t page);
  void release(int32_t page);  // without references a published page is kept until its place is needed
  int64_t references(int32_t page) const { return entries_[size_t(page)].references; }
  int64_t count() const { return int64_t(entries_.size()); }
  int64_t available() const { return int64_t(free_.size() + kept_.size()); }  // free or kept
  int64_t kept() const { return int64_t(kept_.size()); }

  // Prefix sharing. A full page is known by its tokens and the key of the page before it (kRoot for the first).
  static constexpr uint64_t kRoot = 0x9e3779b97f4a7c15u;
  static uint64_t key(uint64_t parent, std::span<const int32_t> tokens);
  void publish(int32_t page, uint64_t parent, std::span<const int32_t> tokens);  // first writer wins
  int32_t find(uint64_t parent, std::span<const int32_t> tokens);                // retained; -1 if unknown

 private:
  struct Entry {
    int64_t references = 0;
    bool published = false;
    uint64_t key = 0, parent = 0;
    std::vector<int32_t> tokens;
    std::list<int32_t>::iterator place;  // in kept_ or others_
  };
  void forget(int32_t page);
  std::vector<Entry> entries_;
  std::vector<int32_t> free_;
  std::list<int32_t> kept_;    // published, unreferenced; least recently used first
  std::list<int32_t> others_;  // in no order
  std::unordered_map<uint64_t, int32_t> by_key_;
};

}  // namespace quire
