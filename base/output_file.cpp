#include "base/output_file.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"

namespace quire {

namespace {

// A rename is on the disk only when its directory is.
void sync_parent(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  check(fd >= 0, "cannot open the directory '{}': {}", directory, std::strerror(errno));
  // Some file systems cannot sync directories; their renames are in order anyway.
  const bool ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
  const int error = errno;
  close(fd);
  check(ok, "cannot write the directory '{}': {}", directory, std::strerror(error));
}

}  // namespace

OutputFile::OutputFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  check(fd_ >= 0, "cannot make '{}': {}", temporary_, std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void OutputFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  constexpr size_t kMost = size_t(1) << 30;  // the system's own limit is a little below 2 GiB
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_, bytes.data(), std::min(bytes.size(), kMost), offset);
    if (n < 0 && errno == EINTR) continue;
    check(n > 0, "cannot write '{}': {} ({} bytes at {})", path_, std::strerror(n < 0 ? errno : ENOSPC), bytes.size(),
          offset);
    bytes = bytes.subspan(size_t(n));
    offset += n;
  }
}

void OutputFile::commit() {
  check(fsync(fd_) == 0, "cannot write '{}': {}", path_, std::strerror(errno));
  const int closed = close(std::exchange(fd_, -1));
  check(closed == 0, "cannot write '{}': {}", path_, std::strerror(errno));
  rename_durably(temporary_, path_);
}

void write_text_file(const std::string& path, std::string_view text) {
  OutputFile file(path);
  file.write_at(0, std::as_bytes(std::span(text.data(), text.size())));
  file.commit();
}

void rename_durably(const std::string& from, const std::string& to) {
  check(std::rename(from.c_str(), to.c_str()) == 0, "cannot rename '{}' to '{}': {}", from, to, std::strerror(errno));
  sync_parent(to);
}

int64_t free_disk_bytes(const std::string& directory) {
  struct statvfs st {};
  if (statvfs(directory.c_str(), &st) != 0) return -1;
  return int64_t(st.f_bavail) * int64_t(st.f_frsize);
}

}  // namespace quire
