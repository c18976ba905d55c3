// Writes GGUF files for tests, well-formed or, through raw() and the public fields, not.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "models/gguf.h"

namespace quire {

class GgufWriter {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;                     // written only if it is not 32
  uint64_t extra_keys = 0, extra_tensors = 0;  // announced, but not there

  template <class T>
  static std::string bytes_of(T value) {
    std::string out(sizeof value, '\0');
    std::memcpy(out.data(), &value, sizeof value);
    return out;
  }
  static std::string string_of(std::string_view text) { return bytes_of(uint64_t(text.size())) + std::string(text); }

  void raw(std::string_view key, uint32_t type, std::string_view value) {
    keys_.emplace_back(key, string_of(key) + bytes_of(type) + std::string(value));
  }
  void text(std::string_view key, std::string_view value) { raw(key, 8, string_of(value)); }
  void u32(std::string_view key, uint32_t value) { raw(key, 4, bytes_of(value)); }
  void f32(std::string_view key, float value) { raw(key, 6, bytes_of(value)); }
  void boolean(std::string_view key, bool value) { raw(key, 7, bytes_of(uint8_t(value))); }
  void texts(std::string_view key, const std::vector<std::string>& values) {
    std::string all = bytes_of(uint32_t(8)) + bytes_of(uint64_t(values.size()));
    for (const std::string& v : values) all += string_of(v);
    raw(key, 9, all);
  }
  void i32s(std::string_view key, const std::vector<int32_t>& values) {
    std::string all = bytes_of(uint32_t(5)) + bytes_of(uint64_t(values.size()));
    for (const int32_t v : values) all += bytes_of(v);
    raw(key, 9, all);
  }

  void tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, std::string_view data) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    tensor_info(name, dims, type, data_.size());
    data_ += data;
  }
  void tensor_info(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    std::string entry = string_of(name) + bytes_of(uint32_t(dims.size()));
    for (const uint64_t d : dims) entry += bytes_of(d);
    tensors_.emplace_back(name, entry + bytes_of(type) + bytes_of(offset));
  }
  // Take back what was written under a name (a tensor's data stays, as a hole).
  void erase(std::string_view key) { erase_from(keys_, key); }
  void erase_tensor(std::string_view name) { erase_from(tensors_, name); }

  std::string header() const {
    std::string out = "GGUF" + bytes_of(version) + bytes_of(uint64_t(tensors_.size()) + extra_tensors);
    out += bytes_of(uint64_t(keys_.size()) + extra_keys + (alignment != 32 ? 1 : 0));
    if (alignment != 32) out += string_of("general.alignment") + bytes_of(uint32_t(4)) + bytes_of(uint32_t(alignment));
    for (const auto& [name, entry] : keys_) out += entry;
    for (const auto& [name, entry] : tensors_) out += entry;
    return out;
  }
  std::string file() const {
    std::string out = header();
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data_;
  }

 private:
  using Entries = std::vector<std::pair<std::string, std::string>>;  // name, bytes
  static void erase_from(Entries& entries, std::string_view name) {
    for (auto it = entries.begin(); it != entries.end(); ++it) {
      if (it->first == name) {
        entries.erase(it);
        return;
      }
    }
    fail("nothing was written under '" + std::string(name) + "'");
  }

  Entries keys_, tensors_;
  std::string data_;
};

}  // namespace quire
