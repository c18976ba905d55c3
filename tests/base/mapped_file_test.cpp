#include "base/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFile, HoldsTheBytesOfTheFile) {
  const TempDir dir;
  std::string content;
  for (int i = 0; i < 20000; ++i) content.push_back(char(i * 7));
  const std::string path = dir.write("data", content);
  MappedFile file(path);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(text_of(file), content);
  MappedFile moved(std::move(file));
  EXPECT_EQ(text_of(moved), content);
  std::filesystem::remove(path);  // the mapping outlives the name
  EXPECT_EQ(text_of(moved), content);
}

TEST(MappedFile, ReleasedPagesAreReadAgain) {
  const TempDir dir;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const std::string content(page * 4 + 100, 'x');
  const MappedFile file(dir.write("data", content));
  EXPECT_EQ(text_of(file), content);
  for (const auto& [offset, length] : std::initializer_list<std::pair<size_t, size_t>>{{0, content.size()},
                                                                                       {1, page},
                                                                                       {page, 2 * page},
                                                                                       {0, 0},
                                                                                       {content.size(), 1},
                                                                                       {content.size() * 9, 1},
                                                                                       {5, ~size_t(0)}}) {
    file.release(offset, length);
    EXPECT_EQ(text_of(file), content);
  }
}

TEST(MappedFile, WhatCannotBeMappedIsAnErrorThatNamesIt) {
  const TempDir dir;
  EXPECT_THAT(error_of([&] { MappedFile(dir.file("absent")); }),
              testing::AllOf(testing::HasSubstr("absent"), testing::HasSubstr("No such file")));
  EXPECT_THAT(error_of([&] { MappedFile(dir.write("empty", "")); }), testing::HasSubstr("empty' is empty"));
  EXPECT_THAT(error_of([&] { MappedFile(dir.path()); }), testing::HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo(dir.file("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { MappedFile(dir.file("pipe")); }),
              testing::HasSubstr("not a regular file"));  // and does not wait
}

TEST(ReadTextFile, ReadsWholeFilesUpToTheLimit) {
  const TempDir dir;
  const std::string big(200000, 'y');
  const std::string path = dir.write("big", big);
  EXPECT_EQ(read_text_file(path, big.size()), big);
  EXPECT_EQ(read_text_file(dir.write("none", ""), 10), "");
  EXPECT_EQ(read_text_file(dir.write("zeros", std::string("a\0b", 3)), 3), std::string("a\0b", 3));
  EXPECT_THAT(error_of([&] { read_text_file(path, big.size() - 1); }), testing::HasSubstr("199999 bytes"));
  EXPECT_THAT(error_of([&] { read_text_file(path, 0); }), testing::HasSubstr("larger than"));
  EXPECT_THAT(error_of([&] { read_text_file(dir.file("absent"), 10); }), testing::HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { read_text_file(dir.path(), 10); }), testing::HasSubstr("directory"));
}

}  // namespace
}  // namespace quire
