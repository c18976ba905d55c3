// The tensors of all files of a HuggingFace directory by name, and which of them were used: whatever is left over would
// change the results.
#pragma once
#include <map>
#include <span>
#include <string>

#include "models/safetensors.h"

namespace quire {

class Entries {
 public:
  // Error if a name appears twice. The files (as maps) must outlive what is taken.
  Entries(std::span<const SafetensorsFile> files, std::string path);
  const std::string& path() const { return path_; }
  size_t size() const { return by_name_.size(); }
  bool has(const std::string& name) const { return by_name_.count(name) > 0; }
  const SafetensorsTensor* find(const std::string& name) const;  // null if absent
  // Marked as used. The first: Error unless it is there. The second: also unless it has this dtype and shape; as many
  // bytes as they say.
  const SafetensorsTensor& take(const std::string& name);
  std::span<const std::byte> take(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape);
  // f(entry) for what was not used so far, by name.
  template <class Fn>
  void for_each_left(Fn&& fn) const {
    for (const auto& [name, entry] : by_name_) {
      if (!entry.used) fn(*entry.tensor);
    }
  }
  void check_all_used() const;

 private:
  struct Entry {
    const SafetensorsTensor* tensor;
    bool used;
  };
  std::string path_;
  std::map<std::string, Entry> by_name_;
};

}  // namespace quire
