// A directory that a test may fill; gone when it goes out of scope.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.h"

namespace quire {

class TempDir {
 public:
  TempDir() : path_((std::filesystem::temp_directory_path() / "quire-test-XXXXXX").string()) {
    check(mkdtemp(path_.data()) != nullptr, "cannot make a directory '{}'", path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::string write(std::string_view name, std::string_view content) const {
    std::ofstream out(file(name), std::ios::binary | std::ios::trunc);
    out.write(content.data(), std::streamsize(content.size()));
    check(out.good(), "cannot write '{}'", file(name));
    return file(name);
  }

 private:
  std::string path_;
};

}  // namespace quire
