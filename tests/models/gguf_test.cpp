// GGUF files as containers: every kind of value, and every way a file can lie.
#include "models/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/models/gguf_writer.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

using testing::ElementsAre;

class Gguf : public testing::Test {
 protected:
  GgufFile open(const std::string& content) { return GgufFile(MappedFile(dir_.write("test.gguf", content))); }
  GgufFile open(const GgufWriter& writer) { return open(writer.file()); }
  void expect_refused(const GgufWriter& writer, std::initializer_list<std::string> parts) {
    expect_error([&] { open(writer); }, parts);
  }
  TempDir dir_;
};

std::string floats(size_t n) { return std::string(n * 4, '\1'); }

GgufWriter small_file() {
  GgufWriter w;
  w.text("general.architecture", "test");
  w.u32("test.number", 7);
  w.texts("test.names", {"one", "", "three"});
  w.tensor("a", {4, 2}, 0, floats(8));
  w.tensor("b", {32}, 8, std::string(34, '\2'));
  return w;
}

TEST_F(Gguf, ReadsEveryKindOfValue) {
  GgufWriter w;
  w.raw("u8", 0, GgufWriter::bytes_of(uint8_t(200)));
  w.raw("i8", 1, GgufWriter::bytes_of(int8_t(-100)));
  w.raw("u16", 2, GgufWriter::bytes_of(uint16_t(60000)));
  w.raw("i16", 3, GgufWriter::bytes_of(int16_t(-30000)));
  w.raw("u32", 4, GgufWriter::bytes_of(uint32_t(4000000000u)));
  w.raw("i32", 5, GgufWriter::bytes_of(int32_t(-2000000000)));
  w.raw("f32", 6, GgufWriter::bytes_of(1.5f));
  w.boolean("yes", true);
  w.boolean("no", false);
  w.text("text", "caf\xC3\xA9");
  w.raw("u64", 10, GgufWriter::bytes_of(uint64_t(1) << 62));
  w.raw("i64", 11, GgufWriter::bytes_of(int64_t(-1) << 62));
  w.raw("f64", 12, GgufWriter::bytes_of(0.1));
  w.texts("texts", {"a", "", "c"});
  w.i32s("i32s", {1, -2, 3});
  const GgufFile file = open(w);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.metadata().size(), 15u);
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -100);
  EXPECT_EQ(file.integer("u16"), 60000);
  EXPECT_EQ(file.integer("i16"), -30000);
  EXPECT_EQ(file.integer("u32"), 4000000000);
  EXPECT_EQ(file.integer("i32"), -2000000000);
  EXPECT_EQ(file.number("f32"), 1.5);
  EXPECT_EQ(file.number("i32"), -2000000000.0);
  EXPECT_EQ(file.boolean("yes"), true);
  EXPECT_EQ(file.boolean("no"), false);
  EXPECT_EQ(file.text("text"), "caf\xC3\xA9");
  EXPECT_EQ(file.integer("u64"), int64_t(1) << 62);
  EXPECT_EQ(file.integer("i64"), int64_t(-1) * (int64_t(1) << 62));
  EXPECT_EQ(file.number("f64"), 0.1);
  EXPECT_THAT(*file.texts("texts"), ElementsAre("a", "", "c"));
  EXPECT_THAT(*file.integers("i32s"), ElementsAre(1, -2, 3));
  EXPECT_EQ(file.integer("absent"), std::nullopt);
  EXPECT_EQ(file.texts("absent"), std::nullopt);
}

TEST_F(Gguf, AValueOfAnotherTypeIsAnError) {
  GgufWriter w = small_file();
  w.raw("huge", 10, GgufWriter::bytes_of(UINT64_MAX));
  const GgufFile file = open(w);
  expect_error([&] { file.text("test.number"); }, {"test.number", "must be a string", "u32"});
  expect_error([&] { file.integer("general.architecture"); }, {"general.architecture", "must be an integer", "string"});
  expect_error([&] { file.integer("huge"); }, {"huge", "must be an integer", "18446744073709551615"});
  expect_error([&] { file.boolean("test.number"); }, {"must be a bool"});
  expect_error([&] { file.number("test.names"); }, {"must be a number", "array of string"});
  expect_error([&] { file.integers("test.names"); }, {"must be an array of integers"});
  expect_error([&] { file.texts("test.number"); }, {"must be an array of strings"});
}

TEST_F(Gguf, PrintsValuesShortAndSafe) {
  GgufWriter w;
  w.text("escape", "a\x1b[31mred\n");
  w.text("long", std::string(1000, 'x'));
  w.i32s("many", {1, 2, 3, 4, 5, 6, 7, 8});
  w.texts("names", {"one", "two"});
  const GgufFile file = open(w);
  EXPECT_EQ(printable_value(*file.find("escape")), "a\\x1b[31mred\\n");
  EXPECT_EQ(printable_value(*file.find("long")).size(), 203u);
  EXPECT_EQ(printable_value(*file.find("many")), "8 x i32: 1, 2, 3, 4, 5, 6, ...");
  EXPECT_EQ(printable_value(*file.find("names")), "2 x string: \"one\", \"two\"");
}

TEST_F(Gguf, PlacesTensors) {
  const GgufFile file = open(small_file());
  ASSERT_EQ(file.tensors().size(), 2u);
  const GgufTensor &a = file.tensors()[0], &b = file.tensors()[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_THAT(a.dims, ElementsAre(4, 2));
  EXPECT_EQ(a.bytes.size(), 32u);
  EXPECT_EQ(uint8_t(a.bytes[31]), 1);
  EXPECT_EQ(b.type, 8u);
  EXPECT_EQ(b.bytes.size(), 34u);
  EXPECT_EQ(b.bytes.data() - a.bytes.data(), 32);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.bytes.data()) % 32, 0u);
}

TEST_F(Gguf, ReadsVersionTwoAndOtherAlignments) {
  for (const uint64_t alignment : {1, 8, 64, 4096}) {
    GgufWriter w;
    w.version = 2;
    w.alignment = alignment;
    w.tensor("a", {3}, 0, floats(3));
    w.tensor("b", {1}, 0, std::string(4, '\7'));
    const GgufFile file = open(w);
    EXPECT_EQ(file.version(), 2u);
    EXPECT_EQ(uint8_t(file.tensors()[1].bytes[0]), 7) << alignment;
  }
}

TEST_F(Gguf, RefusesOtherFiles) {
  expect_error([&] { open("PK\3\4 something else"); }, {"test.gguf", "does not begin with 'GGUF'"});
  expect_error([&] { open("GG"); }, {"4 bytes are needed and 2 are left"});
  GgufWriter w = small_file();
  for (const uint32_t version : {0u, 1u, 4u, 0x03000001u}) {
    w.version = version;
    EXPECT_THROW(open(w), Error) << version;
  }
  w.version = 0x03000000;
  expect_refused(w, {"big-endian"});
}

TEST_F(Gguf, RefusesCountsTheFileCannotHold) {
  GgufWriter w = small_file();
  w.extra_keys = uint64_t(1) << 60;
  expect_refused(w, {"metadata keys cannot fit"});
  w = small_file();
  w.extra_tensors = UINT64_MAX - 10;
  expect_refused(w, {"tensors cannot fit"});
  w = small_file();
  w.extra_keys = 1;
  EXPECT_THROW(open(w), Error);
  for (const uint64_t length : {uint64_t(1) << 20, uint64_t(1) << 63, UINT64_MAX}) {
    w = small_file();
    w.raw("test.text", 8, GgufWriter::bytes_of(length));
    expect_refused(w, {"test.text", "a string of"});
    for (const uint32_t type : {0u, 4u, 8u, 9u, 12u}) {
      w = small_file();
      w.raw("test.array", 9, GgufWriter::bytes_of(type) + GgufWriter::bytes_of(length));
      expect_refused(w, {"test.array", "cannot fit"});
    }
  }
}

// Of a hole: no test writes 100 MB.
TEST_F(Gguf, RefusesHeadersAbove100MB) {
  for (const uint64_t count : {uint64_t(99'000'000), uint64_t(100'000'000)}) {
    GgufWriter w;
    w.raw("test.zeros", 9, GgufWriter::bytes_of(uint32_t(GgufType::u8)) + GgufWriter::bytes_of(count));
    const std::string path = dir_.write("hole.gguf", w.header());
    std::filesystem::resize_file(path, w.header().size() + size_t(count) + 4096);
    const auto read = [&] { return GgufFile(MappedFile(path)).find("test.zeros")->count; };
    if (count < 100'000'000) {
      EXPECT_EQ(read(), count);
    } else {
      expect_error(read, {"test.zeros", "100 MB that a header may take"});
    }
  }
}

TEST_F(Gguf, RefusesBadMetadata) {
  GgufWriter w = small_file();
  w.raw("k", 13, "");
  expect_refused(w, {"'k'", "13 is not a metadata type"});
  w = small_file();
  w.raw("k", 7, "\2");
  expect_refused(w, {"'k'", "2 is not a bool"});
  w = small_file();
  w.raw("", 0, "x");
  expect_refused(w, {"a name of 0 bytes"});
  w = small_file();
  w.raw(std::string(70000, 'k'), 0, "x");
  expect_refused(w, {"a name of 70000 bytes"});
  w = small_file();
  w.u32("test.number", 8);
  expect_refused(w, {"'test.number' appears twice"});
}

TEST_F(Gguf, NestedArraysAreSteppedOverToADepth) {
  const std::string leaf = GgufWriter::bytes_of(uint32_t(0)) + GgufWriter::bytes_of(uint64_t(1)) + "x";
  std::string value = leaf;
  for (int depth = 1; depth < 8; ++depth) {
    value = GgufWriter::bytes_of(uint32_t(9)) + GgufWriter::bytes_of(uint64_t(1)) + value;
    GgufWriter w = small_file();
    w.raw("nested", 9, value);
    if (depth < 4)
      EXPECT_EQ(printable_value(*open(w).find("nested")), "1 x array: [...]");
    else
      expect_refused(w, {"nested deeper than 4"});
  }
}

TEST_F(Gguf, RefusesBadTensors) {
  const auto refused = [&](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset,
                           std::initializer_list<std::string> parts) {
    GgufWriter w = small_file();
    w.tensor_info("bad", dims, type, offset);
    expect_refused(w, parts);
  };
  refused({}, 0, 96, {"'bad'", "0 dimensions"});
  refused({1, 1, 1, 1, 1}, 0, 96, {"5 dimensions"});
  refused({0}, 0, 96, {"dimension 0 is 0"});
  refused({4, 0}, 0, 96, {"dimension 1 is 0"});
  refused({uint64_t(1) << 63}, 0, 96, {"too many values"});
  refused({uint64_t(1) << 32, uint64_t(1) << 32}, 0, 96, {"too many values"});
  refused({uint64_t(1) << 62}, 0, 96, {"are too many"});
  refused({uint64_t(1) << 40}, 0, 96, {"of the data", "cut short"});
  refused({33}, 8, 96, {"no whole blocks of 32 (Q8_0)"});
  refused({4}, 4, 96, {"unknown tensor type 4", "Q4_1"});
  refused({4}, 1000, 96, {"unknown tensor type 1000"});
  refused({4}, 0, 1, {"offset 1", "alignment 32"});
  refused({4}, 0, UINT64_MAX - 31, {"of the data"});
  refused({4}, 0, 0, {"overlap"});
  refused({64}, 0, 32, {"of the data"});
}

TEST_F(Gguf, RefusesOverlapsAndDoubles) {
  GgufWriter w;
  w.tensor("a", {32}, 0, floats(32));
  w.tensor_info("b", {16}, 0, 64);  // the second half of a
  expect_refused(w, {"'a'", "'b'", "overlap"});
  w = GgufWriter();
  w.tensor("a", {8}, 0, floats(8));
  w.tensor("a", {8}, 0, floats(8));
  expect_refused(w, {"'a' appears twice"});
}

TEST_F(Gguf, RefusesBadAlignments) {
  for (const uint32_t alignment : {0u, 3u, 48u}) {
    GgufWriter w = small_file();
    w.u32("general.alignment", alignment);
    expect_refused(w, {"general.alignment is " + std::to_string(alignment)});
  }
  GgufWriter w = small_file();
  w.u32("general.alignment", 1u << 31);  // the data would begin far behind the end
  expect_refused(w, {"of the data"});
  w = small_file();
  w.text("general.alignment", "32");
  expect_refused(w, {"must be an integer"});
}

TEST_F(Gguf, ACutFileIsAnErrorAtEveryByte) {
  const std::string whole = small_file().file();
  for (size_t n = 1; n < whole.size(); ++n) EXPECT_THROW(open(whole.substr(0, n)), Error) << n;
  EXPECT_NO_THROW(open(whole));
}

// Whatever a byte becomes, the file is read or refused; what is read lies within the file.
TEST_F(Gguf, AChangedByteIsReadOrRefused) {
  const std::string whole = small_file().file();
  const size_t header = small_file().header().size();
  for (size_t i = 0; i < header; ++i) {
    for (const int mask : {1 << i % 8, 0xFF}) {
      std::string changed = whole;
      changed[i] = char(changed[i] ^ mask);
      const std::string path = dir_.write("changed.gguf", changed);
      try {
        const GgufFile file{MappedFile(path)};
        size_t sum = 0;
        for (const GgufValue& v : file.metadata()) sum += printable_value(v).size();
        for (const GgufTensor& t : file.tensors()) sum += size_t(t.bytes.front()) + size_t(t.bytes.back());
        EXPECT_GT(sum, 0u);
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("changed.gguf"), std::string::npos) << e.what();
      }
    }
  }
}

}  // namespace
}  // namespace quire
