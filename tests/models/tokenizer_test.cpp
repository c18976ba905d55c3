#include "models/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/utf8.h"
#include "models/byte_alphabet.h"
#include "models/checkpoint.h"
#include "models/pre_tokenizers.h"
#include "tests/expect_error.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

// All 256 bytes (id = byte), then "he", "ll", "hell", "hello", " hello", and special tokens.
TokenizerData tiny() {
  TokenizerData d;
  d.model = "bpe";
  for (int b = 0; b < 256; ++b) d.tokens.push_back(byte_letter(uint8_t(b)));
  const std::string space = byte_letter(' ');
  for (const std::string& t :
       {std::string("he"), std::string("ll"), std::string("hell"), std::string("hello"), space + "hello"})
    d.tokens.push_back(t);  // 256 ... 260
  d.merges = {"h e", "l l", "he ll", "hell o", space + " hello"};
  d.kinds.assign(d.tokens.size(), TokenKind::normal);
  const auto add = [&](const char* token, TokenKind kind) {
    d.tokens.push_back(token);
    d.kinds.push_back(kind);
  };
  add("<s>", TokenKind::control);          // 261
  add("</s>", TokenKind::control);         // 262
  add("<s>>", TokenKind::control);         // 263
  add("<tool>", TokenKind::user_defined);  // 264
  add("<s", TokenKind::user_defined);      // 265
  add("<unk>", TokenKind::unknown);        // 266
  d.split_patterns = split_patterns_for("gpt-2");
  d.bos = 261;
  d.eos = {262};
  return d;
}

std::string refusal(TokenizerData d) {
  return error_of([&] { Tokenizer t(std::move(d)); });
}

std::string random_bytes(std::mt19937& rng, size_t most) {
  static const char* const kParts[] = {"hello", " ",        "\n",           "é", "漢",  "👩‍🚀", "<s>",
                                       "\xFF",  "\xE2\x82", "\xED\xA0\x80", "7", "'ll", "\t",          "_"};
  std::string s;
  const size_t n = rng() % most;
  while (s.size() < n) {
    if (rng() % 3)
      s += kParts[rng() % std::size(kParts)];
    else
      s += char(rng());
  }
  return s;
}

TEST(ByteAlphabet, IsOneToOneAndPrintable) {
  EXPECT_EQ(byte_letter(' '), "Ġ");
  EXPECT_EQ(byte_letter('\n'), "Ċ");
  EXPECT_EQ(byte_letter('A'), "A");
  EXPECT_EQ(byte_letter(0xAD), "Ń");  // the soft hyphen is the last one that is moved
  for (int b = 0; b < 256; ++b) EXPECT_EQ(bytes_of_letters(byte_letter(uint8_t(b))), std::string(1, char(b)));
  EXPECT_EQ(bytes_of_letters(" "), std::nullopt);
  EXPECT_EQ(bytes_of_letters("漢"), std::nullopt);
  EXPECT_EQ(bytes_of_letters("\xFF"), std::nullopt);
}

TEST(Tokenizer, MergesBestFirst) {
  const Tokenizer t(tiny());
  EXPECT_THAT(t.encode(""), IsEmpty());
  EXPECT_THAT(t.encode("h"), ElementsAre('h'));
  EXPECT_THAT(t.encode("hello"), ElementsAre(259));
  EXPECT_THAT(t.encode("hello hello"), ElementsAre(259, 260));
  EXPECT_THAT(t.encode("helllo"), ElementsAre(258, 'l', 'o'));  // of two equal merges the left one
  EXPECT_THAT(t.encode("elllle"), ElementsAre('e', 257, 257, 'e'));
  EXPECT_THAT(t.encode("hel lo"), ElementsAre(256, 'l', ' ', 'l', 'o'));  // never across pieces
}

TEST(Tokenizer, LongWordsEqualTheObviousAlgorithm) {
  TokenizerData d = tiny();
  d.split_patterns.clear();
  std::mt19937 rng(1);
  // Random merges over {a, b, c}.
  for (int i = 0; i < 60; ++i) {
    const auto pick = [&] {
      const size_t k = rng() % (3 + size_t(i) / 2);
      return k < 3 ? std::string(1, char('a' + k))
                   : d.tokens[267 + (k - 3) % (d.tokens.size() > 267 ? d.tokens.size() - 267 : 1)];
    };
    const std::string left = pick(), right = i < 4 ? std::string(1, char('a' + rng() % 3)) : pick();
    if (std::find(d.tokens.begin(), d.tokens.end(), left + right) != d.tokens.end()) continue;
    d.tokens.push_back(left + right);
    d.kinds.push_back(TokenKind::normal);
    d.merges.push_back(fmt::format("{} {}", left, right));
  }
  const Tokenizer t(d);
  std::map<std::pair<int32_t, int32_t>, std::pair<size_t, int32_t>> ranks;
  for (size_t r = 0; r < d.merges.size(); ++r) {
    const std::string left = d.merges[r].substr(0, d.merges[r].find(' ')), right = d.merges[r].substr(left.size() + 1);
    ranks[{t.find(left), t.find(right)}] = {r, t.find(left + right)};
  }
  for (int round = 0; round < 200; ++round) {
    std::string word;
    for (size_t n = 1 + rng() % 200; n > 0; --n) word += char('a' + rng() % 3);
    Ids expected(word.begin(), word.end());
    while (true) {
      size_t best = SIZE_MAX, at = 0;
      for (size_t i = 0; i + 1 < expected.size(); ++i) {
        const auto it = ranks.find({expected[i], expected[i + 1]});
        if (it != ranks.end() && it->second.first < best) best = it->second.first, at = i;
      }
      if (best == SIZE_MAX) break;
      expected[at] = ranks[{expected[at], expected[at + 1]}].second;
      expected.erase(expected.begin() + ptrdiff_t(at) + 1);
    }
    ASSERT_EQ(t.encode(word), expected) << word;
  }
}

TEST(Tokenizer, SpecialTokens) {
  const Tokenizer t(tiny());
  EXPECT_THAT(t.encode("<s>hello</s>"), ElementsAre(261, 259, 262));
  EXPECT_THAT(t.encode("<s>>"), ElementsAre(263));  // the longest
  EXPECT_THAT(t.encode("<s> <tool>"), ElementsAre(261, ' ', 264));
  EXPECT_THAT(t.encode("<s<tool"), ElementsAre(265, '<', 't', 'o', 'o', 'l'));
  // Plain text cannot forge control tokens; user-defined ones are text.
  EXPECT_THAT(t.encode("<s>>", false), ElementsAre(265, '>', '>'));
  EXPECT_THAT(t.encode("</s><tool>", false), ElementsAre('<', '/', 's', '>', 264));
  EXPECT_THAT(t.encode("<unk>"), ElementsAre('<', 'u', 'n', 'k', '>'));
  EXPECT_EQ(t.bytes(261), "");
  EXPECT_EQ(t.bytes(261, true), "<s>");
  EXPECT_EQ(t.bytes(264), "<tool>");
  EXPECT_EQ(t.decode(Ids{261, 260, 262}), " hello");
  EXPECT_EQ(t.decode(Ids{261, 260, 262}, true), "<s> hello</s>");
  EXPECT_TRUE(t.is_eos(262));
  EXPECT_FALSE(t.is_eos(261));
  EXPECT_EQ(t.find("<s>"), 261);
  EXPECT_EQ(t.find(byte_letter(' ') + "hello"), 260);
  EXPECT_EQ(t.find(" hello"), -1);
  EXPECT_EQ(t.vocab_size(), 267);
  EXPECT_THAT(error_of([&] { t.bytes(267); }), HasSubstr("token 267 of a vocabulary of 267"));
  EXPECT_THAT(error_of([&] { t.bytes(-1); }), HasSubstr("token -1"));
}

TEST(Tokenizer, BosPrefixSpaceAndWholePieces) {
  TokenizerData d = tiny();
  d.add_bos = true;
  EXPECT_THAT(Tokenizer(d).encode("hello"), ElementsAre(261, 259));
  EXPECT_THAT(Tokenizer(d).encode(""), ElementsAre(261));
  EXPECT_THAT(Tokenizer(d).encode("<s>hello"), ElementsAre(261, 259));  // a template may have put it there
  EXPECT_THAT(Tokenizer(d).encode("<s>", false), ElementsAre(261, 265, '>'));
  d = tiny();
  d.add_prefix_space = true;
  EXPECT_THAT(Tokenizer(d).encode("hello"), ElementsAre(260));
  EXPECT_THAT(Tokenizer(d).encode(" hello"), ElementsAre(260));
  EXPECT_THAT(Tokenizer(d).encode(""), IsEmpty());
  d = tiny();
  d.merges.resize(2);
  EXPECT_THAT(Tokenizer(d).encode("hello"), ElementsAre(256, 257, 'o'));
  d.whole_pieces = true;
  EXPECT_THAT(Tokenizer(d).encode("hello hello"), ElementsAre(259, 260));
}

TEST(Tokenizer, AnyBytesComeBack) {
  const Tokenizer t(tiny());
  EXPECT_THAT(t.encode("\xFFhello\xFF"), ElementsAre(0xFF, 259, 0xFF));
  EXPECT_THAT(t.encode(std::string_view("\0a\0", 3)), ElementsAre(0, 'a', 0));
  std::mt19937 rng(7);
  for (int i = 0; i < 3000; ++i) {
    const std::string s = random_bytes(rng, 120);
    ASSERT_EQ(t.decode(t.encode(s), true), s);
    ASSERT_EQ(t.decode(t.encode(s, false)), s);  // no control token, so nothing is hidden
  }
}

TEST(Tokenizer, BytesWithoutTokens) {
  TokenizerData d = tiny();
  d.tokens[4] = "moved";  // no token spells byte 4 any more
  const Tokenizer none(d);
  EXPECT_THAT(none.encode("a"), ElementsAre('a'));
  EXPECT_THAT(error_of([&] { none.encode("a\x04"); }), HasSubstr("byte 0x04 has no token"));
  d.unknown = 266;
  EXPECT_THAT(Tokenizer(d).encode("a\x04"), ElementsAre('a', 266));
}

TEST(Tokenizer, OtherKindsOfTokens) {
  TokenizerData d = tiny();
  const auto add = [&](const char* token, TokenKind kind) {
    d.tokens.push_back(token);
    d.kinds.push_back(kind);
  };
  add("<0x0a>", TokenKind::byte);       // 267
  add("[PAD 1]", TokenKind::unused);    // 268
  add("two words", TokenKind::normal);  // 269: not in the alphabet, so its own text
  const Tokenizer t(d);
  EXPECT_EQ(t.bytes(267), "\n");
  EXPECT_EQ(t.bytes(268), "");
  EXPECT_EQ(t.bytes(268, true), "[PAD 1]");
  EXPECT_EQ(t.bytes(269), "two words");
  d.tokens[267] = "<0xZZ>";
  EXPECT_THAT(refusal(d), HasSubstr("<0xNN>"));
}

TEST(Tokenizer, RefusesBadData) {
  const auto with = [](auto change) {
    TokenizerData d = tiny();
    change(d);
    return refusal(d);
  };
  EXPECT_EQ(refusal(tiny()), "");
  EXPECT_THAT(with([](auto& d) { d.model = "unigram"; }), HasSubstr("'unigram' is not supported"));
  EXPECT_THAT(with([](auto& d) { d.tokens.clear(), d.kinds.clear(); }), HasSubstr("0 tokens"));
  EXPECT_THAT(with([](auto& d) { d.kinds.pop_back(); }), HasSubstr("267 tokens but 266 kinds"));
  EXPECT_THAT(with([](auto& d) { d.tokens[5] = "A"; }), HasSubstr("tokens 5 and 65 are both 'A'"));
  EXPECT_THAT(with([](auto& d) { d.merges.push_back("h zz"); }), HasSubstr("merge 5 'h zz': 'zz' is not in"));
  EXPECT_THAT(with([](auto& d) { d.merges.push_back("l h"); }), HasSubstr("'lh' is not in"));
  EXPECT_THAT(with([](auto& d) { d.merges.push_back("h e"); }), HasSubstr("second time"));
  for (const char* bad : {"", " ", "he", " he", "he ", "h e l"})
    EXPECT_THAT(with([&](auto& d) { d.merges[0] = bad; }), HasSubstr("merge 0")) << bad;
  EXPECT_THAT(with([](auto& d) { d.split_patterns = {"(unclosed"}; }), HasSubstr("'(unclosed' does not compile"));
  EXPECT_THAT(with([](auto& d) { d.tokens[261] = ""; }), HasSubstr("special token 261 is empty"));
  EXPECT_THAT(with([](auto& d) { d.bos = 267; }), HasSubstr("bos is token 267"));
  EXPECT_THAT(with([](auto& d) { d.pad = -2; }), HasSubstr("pad is token -2"));
  EXPECT_THAT(with([](auto& d) { d.eos = {-1}; }), HasSubstr("eos is -1"));
  EXPECT_THAT(with([](auto& d) { d.bos = -1, d.add_bos = true; }), HasSubstr("names none"));
}

nlohmann::json golden() {
  std::ifstream file(source_file("tests/models/golden_smollm2_tokens.json"));
  return nlohmann::json::parse(file);
}

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override { QUIRE_NEEDS_FILE(test_model()); }
};

TEST_F(SmolLm2, EqualsHuggingFaceOnGoldenTexts) {
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  const Tokenizer t(checkpoint.tokenizer());
  const nlohmann::json g = golden();
  ASSERT_GE(g["cases"].size(), 60u);
  for (const auto& c : g["cases"]) {
    const std::string text = c["text"];
    const Ids ids = t.encode(text);
    EXPECT_EQ(ids, c["ids"].get<Ids>()) << text;
    if (std::find(ids.begin(), ids.end(), t.data().unknown) == ids.end()) {
      EXPECT_EQ(t.decode(ids, true), text);
    }
  }
}

TEST_F(SmolLm2, EqualsGoldenPrompts) {
  const Tokenizer t(Checkpoint::open(test_model()).tokenizer());
  std::ifstream file(source_file("tests/engine/golden_smollm2.json"));
  for (const auto& c : nlohmann::json::parse(file)) {
    EXPECT_EQ(t.encode(c["text"].get<std::string>()), c["prompt_ids"].get<Ids>());
    EXPECT_EQ(t.decode(c["greedy_ids"].get<Ids>(), true), c["greedy_text"].get<std::string>());
  }
}

TEST_F(SmolLm2, WholeArticlesComeBack) {
  QUIRE_NEEDS_FILE(test_text());
  const Tokenizer t(Checkpoint::open(test_model()).tokenizer());
  std::ifstream file(test_text(), std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const Ids ids = t.encode(text, false);
  EXPECT_EQ(t.decode(ids), text);
  // The text that tests are meant to use has 104020 tokens by HuggingFace's tokenizer.
  if (text.size() == 470150) {
    EXPECT_EQ(ids.size(), 104020u);
  }
}

TEST_F(SmolLm2, BytesTheVocabularyHasComeBack) {
  const Tokenizer t(Checkpoint::open(test_model()).tokenizer());
  std::mt19937 rng(3);
  size_t whole = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::string s = random_bytes(rng, 100);
    bool covered = true;
    for (const char c : s) covered = covered && t.find(byte_letter(uint8_t(c))) >= 0;
    whole += covered;
    if (covered) {
      ASSERT_EQ(t.decode(t.encode(s, false)), s);
    } else {
      ASSERT_NO_THROW(t.encode(s, false));
    }
  }
  EXPECT_GT(whole, 200u);
}

}  // namespace
}  // namespace quire
