// The rules of the house that a machine can hold.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/test_data.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = source_file("");
const std::vector<std::string> kFolders = {"base", "quant", "kernels", "kvcache", "models", "engine", "apps"};

struct Source {
  fs::path path;  // from the root
  std::string extension;
  std::vector<std::string> lines;
  std::string folder() const { return path.begin()->string(); }
};

const std::vector<Source>& sources() {
  static const std::vector<Source> all = [] {
    std::vector<Source> found;
    std::vector<std::string> folders = kFolders;
    folders.push_back("tests");
    for (const std::string& folder : folders) {
      for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / folder)) {
        const std::string extension = entry.path().extension().string();
        if (!entry.is_regular_file() || !std::set<std::string>{".h", ".cpp", ".cu", ".cuh"}.count(extension)) continue;
        Source source{fs::relative(entry.path(), kRoot), extension, {}};
        std::ifstream in(entry.path());
        for (std::string line; std::getline(in, line);) source.lines.push_back(line);
        found.push_back(std::move(source));
      }
    }
    return found;
  }();
  return all;
}

// The path between the quotes (or angles) of an include line; empty for other lines.
std::string included(const std::string& line, char open, char close) {
  const size_t at = line.find("#include "), begin = line.find(open), end = line.find(close, begin + 1);
  if (at != 0 || begin == line.npos || end == line.npos) return {};
  return line.substr(begin + 1, end - begin - 1);
}

TEST(Style, EachFolderIncludesOnlyThoseToItsLeft) {
  ASSERT_GT(sources().size(), 50u);
  for (const Source& s : sources()) {
    if (s.folder() == "tests") continue;
    const auto own = std::find(kFolders.begin(), kFolders.end(), s.folder());
    for (const std::string& line : s.lines) {
      const std::string path = included(line, '"', '"');
      if (path.empty()) continue;
      const auto other = std::find(kFolders.begin(), kFolders.end(), path.substr(0, path.find('/')));
      EXPECT_NE(other, kFolders.end()) << s.path << " includes \"" << path << "\": give the path from the root";
      EXPECT_LE(other, own) << s.path << " includes " << path << ", which lies to its right";
      EXPECT_TRUE(fs::exists(kRoot / path)) << s.path << " includes " << path;
    }
  }
}

TEST(Style, HeadersOfOpsHaveTheirSourceAndTheirTest) {
  int ops = 0;
  for (const Source& s : sources()) {
    if (s.extension != ".h" || s.path.parent_path() != "kernels") continue;
    // An op is declared as a function that takes the context first.
    const bool op = std::any_of(s.lines.begin(), s.lines.end(), [](const std::string& line) {
      return line.rfind("void ", 0) == 0 && line.find("(const Context& ctx") != line.npos;
    });
    if (!op) continue;
    ++ops;
    const std::string stem = s.path.stem().string();
    EXPECT_TRUE(fs::exists(kRoot / "kernels" / (stem + ".cpp"))) << "kernels/" << stem << ".cpp is missing";
    EXPECT_TRUE(fs::exists(kRoot / "tests" / "kernels" / (stem + "_test.cpp")))
        << "tests/kernels/" << stem << "_test.cpp is missing";
  }
  EXPECT_GE(ops, 5);
}

TEST(Style, EveryCodecHeaderIsInTheList) {
  const auto formats =
      std::find_if(sources().begin(), sources().end(), [](const Source& s) { return s.path == "quant/formats.h"; });
  ASSERT_NE(formats, sources().end());
  int codecs = 0;
  for (const Source& s : sources()) {
    if (s.extension != ".h" || s.path.parent_path() != "quant") continue;
    const bool codec = std::any_of(s.lines.begin(), s.lines.end(), [](const std::string& line) {
      return line.find("static constexpr const char* kName") != line.npos;
    });
    if (!codec) continue;
    ++codecs;
    const std::string include = "#include \"" + s.path.generic_string() + "\"";
    EXPECT_EQ(std::count(formats->lines.begin(), formats->lines.end(), include), 1)
        << s.path << " is not in quant/formats.h";
  }
  EXPECT_GE(codecs, 6);
}

TEST(Style, LinesAreShortAndPlain) {
  for (const Source& s : sources()) {
    for (size_t i = 0; i < s.lines.size(); ++i) {
      const std::string& line = s.lines[i];
      // columns, not bytes: continuation bytes of UTF-8 do not count
      const auto columns = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; });
      EXPECT_LE(columns, 120) << s.path << ":" << i + 1;
      EXPECT_EQ(line.find('\t'), line.npos) << s.path << ":" << i + 1 << " has a tab";
      EXPECT_EQ(line.find('\r'), line.npos) << s.path << ":" << i + 1 << " has a carriage return";
      EXPECT_TRUE(line.empty() || line.back() != ' ') << s.path << ":" << i + 1 << " ends in a space";
      EXPECT_NE(included(line, '<', '>'), "ranges") << s.path << ": <ranges> does not compile everywhere";
    }
  }
}

TEST(Style, HeadersAreGuardedAndTheLibraryDoesNotPrint) {
  for (const Source& s : sources()) {
    if (s.extension == ".h" || s.extension == ".cuh") {
      EXPECT_EQ(std::count(s.lines.begin(), s.lines.end(), "#pragma once"), 1) << s.path;
    }
    if (s.folder() == "tests" || s.folder() == "apps") continue;
    for (const std::string& line : s.lines) {
      for (const char* word :
           {"std::cout", "std::cerr", "printf(stderr", "fmt::print", "std::puts", "std::exit", "std::abort"}) {
        EXPECT_EQ(line.find(word), line.npos) << s.path << ": " << line;
      }
    }
  }
}

}  // namespace
}  // namespace quire
