#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace quire {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a named pipe must not block
  check(fd >= 0, "cannot open '{}': {}", path, std::strerror(errno));
  struct stat st {};
  const bool is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  size_ = is_file ? static_cast<size_t>(st.st_size) : 0;
  void* p = size_ > 0 ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  const int error = errno;
  close(fd);
  check(is_file, "'{}' is not a regular file", path);
  check(size_ > 0, "'{}' is empty", path);
  check(p != MAP_FAILED, "cannot map '{}' ({} bytes): {}", path, size_, std::strerror(error));
  data_ = static_cast<const std::byte*>(p);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void MappedFile::release(size_t offset, size_t length) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (offset >= size_) return;
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + std::min(length, size_ - offset)) / page * page;
  if (begin < end) madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check(fd >= 0, "cannot open '{}': {}", path, std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  ssize_t n = 0;
  while ((n = read(fd, buffer, sizeof buffer)) > 0 && text.size() <= max_bytes) text.append(buffer, n);
  const int error = errno;
  close(fd);
  check(n >= 0, "cannot read '{}': {}", path, std::strerror(error));
  check(text.size() <= max_bytes, "'{}' is larger than the {} bytes allowed for such a file", path, max_bytes);
  return text;
}

}  // namespace quire
