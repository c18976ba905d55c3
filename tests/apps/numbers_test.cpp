#include "apps/numbers.h"

#include <gtest/gtest.h>

#include <clocale>

namespace quire {
namespace {

TEST(Numbers, WholeTextOrError) {
  EXPECT_EQ(parse_number<int>("n", "42"), 42);
  EXPECT_EQ(parse_number<int>("n", "+42"), 42);
  EXPECT_EQ(parse_number<int64_t>("n", "-7"), -7);
  EXPECT_FLOAT_EQ(parse_number<float>("x", "0.25"), 0.25f);
  EXPECT_FLOAT_EQ(parse_number<float>("x", "1e-3"), 1e-3f);
  for (const char* bad : {"", "x", "1x", " 1", "1 ", "0x10", "+-1", "1,5", "--1"})
    EXPECT_THROW(parse_number<int>("n", bad), Error) << bad;
  for (const char* bad : {"", "nan", "inf", "-inf", "1,5", "0.5s", "1e999"})
    EXPECT_THROW(parse_number<double>("x", bad), Error) << bad;
  EXPECT_THROW(parse_number<int32_t>("n", "2147483648"), Error);
  EXPECT_THROW(parse_number<uint64_t>("n", "-1"), Error);
  EXPECT_THROW(parse_number<int>("n", "5", 0, 4), Error);
}

TEST(Numbers, ErrorsNameTheValue) {
  try {
    parse_number<int>("top-k", "many");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("top-k"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("many"), std::string::npos);
  }
}

TEST(Numbers, Bytes) {
  EXPECT_EQ(parse_bytes("m", "4096"), 4096);
  EXPECT_EQ(parse_bytes("m", "2G"), int64_t{2} << 30);
  EXPECT_EQ(parse_bytes("m", "500M"), int64_t{500} << 20);
  EXPECT_EQ(parse_bytes("m", "1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("m", "16 kb"), 16384);
  EXPECT_EQ(parse_bytes("m", "1T"), int64_t{1} << 40);
  for (const char* bad : {"", "G", "-1G", "2X", "2GG", "2.5.1G", "99999999T", "1e9"})
    EXPECT_THROW(parse_bytes("m", bad), Error) << bad;
  EXPECT_EQ(bytes_text(512), "512 B");
  EXPECT_EQ(bytes_text(int64_t{3} << 29), "1.5 GiB");
}

}  // namespace
}  // namespace quire
