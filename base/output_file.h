// Files that are there whole or not at all, also after a crash: written under a temporary name, forced to the disk,
// then renamed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace quire {

class OutputFile {
 public:
  explicit OutputFile(std::string path);  // Error if it cannot be made
  ~OutputFile();                          // without commit() nothing is left
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Error with the system's reason ("No space left on device"), the place and the file.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  // After this the file is there under its name, with what was written, whatever happens to the machine.
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

void write_text_file(const std::string& path, std::string_view text);  // the same, at once
void rename_durably(const std::string& from, const std::string& to);
int64_t free_disk_bytes(const std::string& directory);  // for this user; -1 if the system does not say

}  // namespace quire
