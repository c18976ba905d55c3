// safetensors files as containers.
#include "models/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/models/safetensors_writer.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

using testing::ElementsAre;

class Safetensors : public testing::Test {
 protected:
  SafetensorsFile open(const std::string& content) {
    return SafetensorsFile(MappedFile(dir_.write("test.safetensors", content)));
  }
  // A file with this header and 64 bytes of data.
  void expect_refused(const std::string& header, std::initializer_list<std::string> parts) {
    expect_error([&] { open(SafetensorsWriter::file_of(header, std::string(64, 'x'))); }, parts);
  }
  TempDir dir_;
};

SafetensorsWriter small_file() {
  SafetensorsWriter w;
  w.header["__metadata__"] = {{"format", "pt"}};
  w.tensor("b", "F32", {2, 3}, std::string(24, '\1'));
  w.tensor("a", "BF16", {4}, std::string(8, '\2'));
  w.tensor("scalar", "I64", {}, std::string(8, '\3'));
  return w;
}

TEST_F(Safetensors, ReadsWhatIsThere) {
  const SafetensorsFile file = open(small_file().file());
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "b");  // in the order of the data
  EXPECT_EQ(file.tensors()[0].dtype, "F32");
  EXPECT_THAT(file.tensors()[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(file.tensors()[1].bytes.size(), 8u);
  EXPECT_EQ(uint8_t(file.tensors()[1].bytes[0]), 2);
  EXPECT_TRUE(file.tensors()[2].shape.empty());
  EXPECT_THAT(file.metadata(), ElementsAre(std::pair<std::string, std::string>("format", "pt")));
  EXPECT_EQ(safetensors_codec("BF16"), id<BF16>);
  EXPECT_EQ(safetensors_codec("I64"), std::nullopt);
}

TEST_F(Safetensors, HolesAndBytesAtTheEndAreAllowed) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[9,13]}})";
  EXPECT_EQ(open(SafetensorsWriter::file_of(header, std::string(64, 'x'))).tensors().size(), 2u);
}

TEST_F(Safetensors, RefusesBadHeaders) {
  expect_error([&] { open("1234567"); }, {"7 bytes are too few"});
  expect_error([&] { open(std::string(8, '\xFF') + "{}"); }, {"a header of 18446744073709551615 bytes"});
  expect_error([&] { open(std::string("\x03\0\0\0\0\0\0\0", 8) + "{}"); },
               {"a header of 3 bytes is announced; 2 are left"});
  expect_refused("", {"not valid JSON"});
  expect_refused("[]", {"an object is needed"});
  expect_refused("{\"a\":", {"not valid JSON"});
  expect_refused("{\"\xFF\":1}", {"not valid JSON"});
  expect_refused(R"({"a":1})", {"'a'", "an object is needed"});
  expect_refused(R"({"__metadata__":{"a":1}})", {"__metadata__", "'a' must be a string"});
  expect_refused(std::string(5000, '['), {"nested deeper"});
  const std::string entry = R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  expect_refused("{\"a\":" + entry + ",\"a\":" + entry + "}", {"key 'a' appears twice"});
}

TEST_F(Safetensors, RefusesBadEntries) {
  const auto refused = [&](const std::string& entry, std::initializer_list<std::string> parts) {
    expect_refused("{\"good\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"bad\":" + entry + "}", parts);
  };
  refused(R"({"shape":[4],"data_offsets":[4,8]})", {"'bad'", "not a known dtype"});
  refused(R"({"dtype":"F31","shape":[4],"data_offsets":[4,8]})", {"'F31' is not a known dtype"});
  refused(R"({"dtype":5,"shape":[4],"data_offsets":[4,8]})", {"'dtype' must be a string"});
  refused(R"({"dtype":"U8","data_offsets":[4,8]})", {"'shape' and 'data_offsets'"});
  refused(R"({"dtype":"U8","shape":[4],"data_offsets":[4]})", {"'shape' and 'data_offsets'"});
  refused(R"({"dtype":"U8","shape":[4],"data_offsets":[4,8,9]})", {"'shape' and 'data_offsets'"});
  refused(R"({"dtype":"U8","shape":{},"data_offsets":[4,8]})", {"'shape' must be an array"});
  refused(R"({"dtype":"U8","shape":[-4],"data_offsets":[4,8]})", {"dimension -4 is not a size"});
  refused(R"({"dtype":"U8","shape":[4.0],"data_offsets":[4,8]})", {"dimension 4.0 is not a size"});
  refused(R"({"dtype":"U8","shape":[4],"data_offsets":["4",8]})", {"is not a size"});
  refused(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[4,8]})", {"too many values"});
  refused(R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[4,8]})", {"is not a size"});
  refused(R"({"dtype":"U8","shape":[4],"data_offsets":[8,4]})", {"[8, 4)"});
  refused(R"({"dtype":"U8","shape":[61],"data_offsets":[4,65]})", {"not within the 64 bytes", "cut short"});
  refused(R"({"dtype":"U8","shape":[5],"data_offsets":[4,8]})", {"needs 5 bytes, but 4 are given"});
  refused(R"({"dtype":"F32","shape":[2],"data_offsets":[4,8]})", {"needs 8 bytes, but 4 are given"});
  refused(R"({"dtype":"U8","shape":[4],"data_offsets":[3,7]})", {"'good'", "'bad'", "overlap"});
  refused(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})", {"overlap"});
}

TEST_F(Safetensors, ACutFileIsAnErrorAtEveryByte) {
  const std::string whole = small_file().file();
  for (size_t n = 1; n < whole.size(); ++n) EXPECT_THROW(open(whole.substr(0, n)), Error) << n;
  EXPECT_NO_THROW(open(whole));
}

TEST_F(Safetensors, AChangedByteIsReadOrRefused) {
  const std::string whole = small_file().file();
  for (size_t i = 0; i < whole.size() - 40; ++i) {
    for (const int mask : {1 << i % 8, 0xFF}) {
      std::string changed = whole;
      changed[i] = char(changed[i] ^ mask);
      const std::string path = dir_.write("changed.safetensors", changed);
      try {
        const SafetensorsFile file{MappedFile(path)};
        for (const SafetensorsTensor& t : file.tensors()) {
          for (const std::byte b : t.bytes) EXPECT_GT(int(b), 0);
        }
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("changed.safetensors"), std::string::npos) << e.what();
      }
    }
  }
}

}  // namespace
}  // namespace quire
