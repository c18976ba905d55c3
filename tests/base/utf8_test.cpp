#include "base/utf8.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(Utf8, EveryCodePointGoesThereAndBack) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string s;
    utf8_append(s, c);
    ASSERT_EQ(utf8_sequence(s, 0), s.size()) << c;
    ASSERT_EQ(utf8_decode(s, 0), c);
    ASSERT_EQ(utf8_valid_prefix(s), s.size());
    for (size_t cut = 1; cut < s.size(); ++cut) {
      ASSERT_EQ(utf8_sequence(s.substr(0, cut), 0), 0u) << c;  // an unfinished sequence is none
      ASSERT_EQ(utf8_sequence(s, cut), 0u) << c;               // nor is its tail
      ASSERT_TRUE(utf8_unfinished(s.substr(0, cut), 0)) << c;
      ASSERT_FALSE(utf8_unfinished(s, cut)) << c;
    }
  }
}

// Every two- and three-byte string: accepted exactly if it is the shortest form of a code point that is no surrogate.
TEST(Utf8, AcceptsNothingElse) {
  for (uint32_t bytes = 0; bytes < 1u << 24; bytes += 0x1F) {  // odd step: all residues of each byte turn up
    const std::string s = {char(bytes >> 16), char(bytes >> 8), char(bytes)};
    const size_t n = utf8_sequence(s, 0);
    if (n == 0) continue;
    std::string again;
    utf8_append(again, utf8_decode(s, 0));
    ASSERT_EQ(again, s.substr(0, n));
  }
  for (const char* bad : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\x80", "\xE2\x28\xA1"})
    EXPECT_EQ(utf8_sequence(bad, 0), 0u);
  EXPECT_EQ(utf8_sequence("", 0), 0u);
  EXPECT_EQ(utf8_sequence("a", 1), 0u);
  for (const char* never :
       {"a", "\xC0", "\xE0\x9F", "\xED\xA0", "\xF0\x8F", "\xF4\x90", "\xF5", "\x80", "\xE2\x28", ""})
    EXPECT_FALSE(utf8_unfinished(never, 0)) << "no more bytes make it well formed";
  EXPECT_EQ(utf8_valid_prefix("ab\xC3\xA9\xFFz"), 4u);
}

}  // namespace
}  // namespace quire
