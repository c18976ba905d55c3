#include "models/split_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "models/pre_tokenizers.h"
#include "tests/expect_error.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> cut(const std::string& pattern, std::string_view text) {
  std::vector<std::string_view> pieces;
  SplitPattern(pattern).split({&text, 1}, pieces);
  return {pieces.begin(), pieces.end()};
}

TEST(SplitPattern, MatchesAndWhatLiesBetween) {
  EXPECT_THAT(cut("[0-9]+", "ab12c3"), ElementsAre("ab", "12", "c", "3"));
  EXPECT_THAT(cut("[0-9]", "12"), ElementsAre("1", "2"));
  EXPECT_THAT(cut("x*", "axxé"), ElementsAre("a", "xx", "é"));  // empty matches cut nothing
  EXPECT_THAT(cut("a\\Kb", "abab"), ElementsAre("a", "b", "a", "b"));
  EXPECT_THAT(cut("(?=(.))", "abc"), ElementsAre("abc"));
  // Matches far apart, and characters of several bytes where one call to PCRE2 ends and the next begins.
  for (const size_t apart : {62u, 63u, 64u, 65u, 66u, 67u, 130u, 1000u}) {
    std::string between;
    while (between.size() < apart) between += "é";
    EXPECT_THAT(cut("[0-9]+", between + "12" + between + "3x"), ElementsAre(between, "12", between, "3", "x"));
    EXPECT_THAT(cut("é(?=1)|(?<=2)é", between + "12" + between),
                ElementsAre(between.substr(2), "é", "12", "é", between.substr(2)));
  }
  EXPECT_THAT(cut("", "abc"), ElementsAre("abc"));
}

TEST(SplitPattern, SpaceIsUnicodeWhiteSpace) {
  const std::vector<uint32_t> space = {9,      10,     11,     12,     13,     32,     0x85,   0xA0,
                                       0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  for (uint32_t c : {0x8u,    0x9u,    0xAu,    0xDu,    0xEu,    0x1Fu,   0x20u,    0x21u,   0x84u,
                     0x85u,   0x86u,   0xA0u,   0x1680u, 0x180Eu, 0x1FFFu, 0x2000u,  0x200Au, 0x200Bu,
                     0x2028u, 0x2029u, 0x202Fu, 0x205Fu, 0x3000u, 0xFEFFu, 0x10FFFFu}) {
    std::string text = "a";
    utf8_append(text, c);
    text += "b";
    const bool is_space = std::find(space.begin(), space.end(), c) != space.end();
    EXPECT_EQ(cut("\\s", text).size(), is_space ? 3u : 1u) << c;
    EXPECT_EQ(cut("[x\\s]", text).size(), is_space ? 3u : 1u) << c;
    EXPECT_EQ(cut("[^\\s]+", text).size(), is_space ? 3u : 1u) << c;
    EXPECT_EQ(cut("\\S+", text).size(), is_space ? 3u : 1u) << c;
    EXPECT_EQ(cut("[\\Sx]+", text).size(), is_space ? 3u : 1u) << c;
  }
  EXPECT_THAT(cut("\\\\s", "a\\sb"), ElementsAre("a", "\\s", "b"));  // an escaped backslash, then an s
  EXPECT_THAT(cut("[]\\s]", "a]b c"), ElementsAre("a", "]", "b", " ", "c"));
}

TEST(SplitPattern, HostilePatternsEnd) {
  const std::string text(5000, 'a');
  EXPECT_THAT(error_of([&] { cut("(a+a+)+[bc]", text); }), HasSubstr("split pattern '(a+a+)+[bc]'"));
  EXPECT_THAT(error_of([&] { cut("(?R)a", text); }), HasSubstr("split pattern '(?R)a'"));
  EXPECT_THAT(error_of([&] { cut("\\C", text); }), HasSubstr("does not compile"));
  EXPECT_THAT(error_of([&] { cut(std::string(10001, 'a'), text); }), HasSubstr("10001 bytes"));
  // No start takes many steps, but all of them together do.
  const std::string_view longer = std::string_view(text).substr(0, 4000);
  const std::vector<std::string_view> texts(50, longer);
  std::vector<std::string_view> pieces;
  EXPECT_THAT(error_of([&] { SplitPattern("a{0,200}a{0,200}b").split(texts, pieces, -1.0); }),
              HasSubstr("takes too long on 4000 bytes"));
  // Honest patterns on long runs do not run into the limit.
  const std::string spaces = std::string(300000, ' ') + "x";
  for (const char* pre : {"gpt-2", "llama3", "qwen2"}) {
    const auto pieces = cut(split_patterns_for(pre)[0], spaces);
    ASSERT_EQ(pieces.size(), 2u) << pre;
    EXPECT_EQ(pieces[1], " x");
    EXPECT_EQ(cut(split_patterns_for(pre)[0], std::string(300000, 'x')).size(), 1u);
  }
}

TEST(PreTokenizers, UnknownNamesAreRefused) {
  EXPECT_THAT(error_of([] { split_patterns_for("klingon"); }),
              testing::AllOf(HasSubstr("'klingon'"), HasSubstr("smollm")));
  EXPECT_EQ(split_patterns_for("smollm").size(), 2u);
  EXPECT_TRUE(whole_pieces_for("llama-bpe"));
  EXPECT_FALSE(whole_pieces_for("qwen2"));
}

TEST(PreTokenizers, EqualHuggingFaceOnGoldenTexts) {
  std::ifstream file(source_file("tests/models/golden_smollm2_tokens.json"));
  const nlohmann::json g = nlohmann::json::parse(file);
  for (const auto& [pre, expected] : g["pieces"].items())
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::string text = g["cases"][i]["text"];
      EXPECT_EQ(cut(split_patterns_for(pre)[0], text), expected[i].get<std::vector<std::string>>())
          << pre << ": " << text;
    }
}

}  // namespace
}  // namespace quire
