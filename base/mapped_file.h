// A file mapped read-only into memory. What is read is the file as it is at that moment, so it must not be changed
// while it is mapped: written over, its bytes are no longer those that were checked; cut short, reading past its new
// end ends the process (SIGBUS). There is no check that closes this gap, and copying a model to close it would double
// its memory: model files are replaced by renaming a new one over them, as `quire quantize` and package managers do,
// which is safe.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace quire {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // Error if it cannot be opened, is a directory or empty
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Tells the system that [offset, offset + length) will not be read again, so it need not stay resident.
  void release(size_t offset, size_t length) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

std::string read_text_file(const std::string& path, size_t max_bytes);  // Error if unreadable or larger

}  // namespace quire
