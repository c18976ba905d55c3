// tokenizer.model: files put together field by field from the vocabularies of golden_sentencepiece.json.
#include "models/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "models/sentencepiece.h"
#include "models/tokenizer.h"
#include "tests/expect_error.h"
#include "tests/models/hf_directory.h"
#include "tests/models/sentencepiece_writer.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using nlohmann::json;

const json& golden() {
  static const json data = json::parse(std::ifstream(source_file("tests/models/golden_sentencepiece.json")));
  return data;
}

Tokenizer tokenizer_of(const std::string& model) { return Tokenizer(read_sentencepiece(model, "m")); }
void expect_refused(const std::string& model, std::initializer_list<std::string> parts) {
  expect_error([&] { tokenizer_of(model); }, parts);
}

TEST(SentencePieceModel, GivesTheIdsOfSentencePiece) {
  ASSERT_EQ(golden().size(), 8u);
  for (const auto& [name, model] : golden().items()) {
    TokenizerData data = read_sentencepiece(SentencePieceWriter::golden(model).file(), name);
    EXPECT_EQ(data.tokens, model["tokens"].get<std::vector<std::string>>());
    EXPECT_EQ(data.unknown, model["unknown"].get<int32_t>());
    EXPECT_EQ(data.bos, 1);
    EXPECT_TRUE(data.add_bos);
    EXPECT_EQ(data.eos, std::vector<int32_t>{2});
    data.add_bos = false;
    const Tokenizer tokenizer(data);
    for (const json& c : model["cases"]) {
      EXPECT_EQ(tokenizer.encode(c["text"].get<std::string>(), false), c["ids"].get<std::vector<int32_t>>())
          << name << " " << c;
    }
  }
}

TEST(SentencePieceModel, WhatFollowsBytesThatAreNoTextHasNoSpaceInFront) {
  for (const char* name : {"bytes", "rules", "unigram_bytes"}) {
    const Tokenizer tokenizer = tokenizer_of(SentencePieceWriter::golden(golden()[name]).file());
    const auto spelled = [&](std::string_view text) {
      std::vector<std::string> out;
      for (const int32_t id : tokenizer.encode(text, false)) out.push_back(tokenizer.data().tokens[size_t(id)]);
      return out;
    };
    EXPECT_THAT(spelled("a\xFF"
                        "a"),
                testing::ElementsAre("<s>", "\u2581a", "<0xFF>", "a"))
        << name;
  }
}

// Long texts are cut; a token that has any two bytes side by side, which no text has, keeps them whole.
TEST(SentencePieceModel, LongTextsHaveTheSameIds) {
  SentencePieceWriter w = SentencePieceWriter::golden(golden()["bytes"]);
  const Tokenizer cut = tokenizer_of(w.file());
  std::string pairs;
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) pairs += char(a), pairs += char(b);
  }
  w.piece(pairs, -99, 1);
  const Tokenizer whole = tokenizer_of(w.file());
  std::mt19937_64 rng(std::random_device{}());
  std::vector<std::string> texts;
  for (const json& c : golden()["bytes"]["cases"]) texts.push_back(c["text"]);
  std::string text;
  while (text.size() < 60000) text += texts[rng() % texts.size()] + (rng() % 3 == 0 ? "\n" : "");
  EXPECT_EQ(cut.encode(text, false), whole.encode(text, false));
  EXPECT_EQ(cut.encode("\xFF" + text, false), whole.encode("\xFF" + text, false));
  EXPECT_EQ(cut.decode(cut.encode(std::string(5000, 'a'), false)), std::string(5000, 'a'));
}

TEST(SentencePieceModel, RefusesWhatItCannotDo) {
  const SentencePieceWriter w = SentencePieceWriter::golden(golden()["plain"]);
  const auto with = [&](auto&& change) {
    SentencePieceWriter other = w;
    change(other);
    return other.file();
  };
  expect_refused(with([](auto& o) { o.piece("xyzzy", NAN, 1); }), {"has the score nan"});
  expect_refused(with([](auto& o) { o.piece("xyzzy", 0, 2); }), {"m: SentencePiece cannot load", "unk"});
  expect_refused(with([](auto& o) { o.piece("<0x41>", 0, 6); }), {"256 byte pieces"});
  expect_refused(with([](auto& o) { o.piece("", 0, 1); }), {"piece"});
  expect_refused(with([](auto& o) { o.piece("the", 0, 1); }), {"already defined"});
  expect_refused(with([](auto& o) { o.extra = proto_text(2, proto_integer(24, 1)); }), {"white space as a suffix"});
  expect_refused(with([](auto& o) { o.extra = proto_text(3, proto_integer(5, 0)); }), {"not escaped"});
  expect_refused(with([](auto& o) { o.extra = "\x13"; }), {"wire type 3"});
  // Field 3 to a reader that keeps 32 bits of a key, which SentencePiece's does.
  expect_refused(with([](auto& o) { o.extra = "\x9a\x80\x80\x80\x10" + std::string(1, '\0'); }), {"a field with"});
  expect_refused("", {"m: ", "not whole"});
  const std::string whole = w.file();
  // A file cut short is refused unless it ends at the end of a field; then parts that are needed are missing.
  for (size_t size = 0; size < whole.size() - 20; size += 61) {
    const std::string part = whole.substr(0, size);
    try {
      tokenizer_of(part);
      ADD_FAILURE() << "accepted: " << size << " of " << whole.size();
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr("m: "));
    }
  }
}

// Tables of normalization: the library would follow each of these out of its memory.
TEST(SentencePieceModel, RefusesTablesThatLeadOutOfThemselves) {
  const SentencePieceWriter good = SentencePieceWriter::golden(golden()["rules"]);
  ASSERT_GT(good.charsmap.size(), 1028u);
  tokenizer_of(good.file());
  uint32_t trie = 0;
  std::memcpy(&trie, good.charsmap.data(), 4);
  const auto expect_damaged = [&](auto&& change, const std::string& part) {
    SentencePieceWriter w = good;
    change(w.charsmap);
    expect_refused(w.file(), {"m: the table of normalization", part});
    // The same where a message is merged into one before it.
    SentencePieceWriter merged = good;
    merged.extra = proto_text(3, proto_text(2, w.charsmap));
    expect_refused(merged.file(), {"m: the table of normalization", part});
    merged.extra = proto_text(5, proto_text(2, w.charsmap));
    expect_refused(merged.file(), {"m: the table of normalization", part});
  };
  const auto unit = [](std::string& map, size_t i, uint32_t bits) { std::memcpy(map.data() + 4 + 4 * i, &bits, 4); };
  const auto bits = [&](size_t i) {
    uint32_t x = 0;
    std::memcpy(&x, good.charsmap.data() + 4 + 4 * i, 4);
    return x;
  };
  expect_damaged([](std::string& m) { m = "x"; }, "1 bytes");
  expect_damaged([](std::string& m) { m.resize(500); }, "damaged");
  expect_damaged([](std::string& m) { m.pop_back(); }, "damaged");
  expect_damaged([](std::string& m) { m[0] = 1; }, "damaged");
  expect_damaged([&](std::string& m) { unit(m, 0, bits(0) | 0x400000); }, "unit 0 of");
  expect_damaged([&](std::string& m) { unit(m, 0, bits(0) | 0x80400000); }, "unit 0 of");
  expect_damaged([&](std::string& m) { unit(m, 7, 0x7FFFFE00); }, "unit 7 of");
  bool value = false;
  for (size_t i = 0; i < trie / 4; ++i) {  // every value
    if (bits(i) >> 31 == 0 || (bits(i) & 0x7FFFFFFF) >= 1000) continue;
    value = true;
    expect_damaged([&](std::string& m) { unit(m, i, 0x80000000 + 100000); }, "leads out of it");
    break;
  }
  EXPECT_TRUE(value);
  // A trie that never ends: each letter leads back to the root's own children.
  expect_damaged(
      [&](std::string& m) {
        const uint32_t base = bits(0) >> 10;
        uint32_t letter = 'a';  // one whose place is free
        while (bits(base ^ letter) >> 31 != 0 || (bits(base ^ letter) & 0xFF) == letter) ++letter;
        unit(m, base ^ letter, letter | letter << 10);
      },
      "keys of more than 32 bytes");
  expect_damaged([&](std::string& m) { m.insert(m.size() - 1, std::string(70, 'x')); }, "makes texts of");
}

// The library keeps 64 matches of user-defined tokens at one place, and follows as many as there are.
TEST(SentencePieceModel, UserDefinedTokensThatBeginWithOneAnotherAreFew) {
  const auto model = [](int count) {
    SentencePieceWriter w;
    w.piece("<unk>", 0, 2);
    w.piece("b", -1, 1);
    for (int i = 1; i <= count; ++i) w.piece(std::string(size_t(i), 'a'), 0, 4);
    w.piece("ab", 0, 4);
    w.prefix = false;
    return w.file();
  };
  EXPECT_EQ(tokenizer_of(model(64)).encode(std::string(64, 'a') + "b", false), (std::vector<int32_t>{65, 1}));
  expect_error([&] { tokenizer_of(model(65)); }, {"64 user-defined tokens"});
  expect_error([&] { tokenizer_of(model(1000)); }, {"64 user-defined tokens"});
}

TEST(SentencePieceModel, TheUnknownTokenIsTheOneOfThatKind) {
  SentencePieceWriter w;
  w.piece("?", 0, 2);
  w.piece("<unk>", -1, 1);
  w.piece("\u2581", -1, 1);
  const Tokenizer tokenizer = tokenizer_of(w.file());
  EXPECT_EQ(tokenizer.data().unknown, 0);
  EXPECT_EQ(tokenizer.encode("\xFF\u65e5"), (std::vector<int32_t>{2, 0, 0}));
}

TEST(SentencePieceModel, IsWrittenAsItIsRead) {
  SentencePieceVocabulary v;
  v.tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"};
  v.scores = {0, 0, 0, -4, -3, -2, -1, -0.5f};
  v.kinds.assign(8, TokenKind::normal);
  v.kinds[1] = v.kinds[2] = TokenKind::control;  // the unknown token is not marked
  v.unknown = 0, v.bos = 1, v.eos = 2;
  const TokenizerData data = read_sentencepiece(sentencepiece_model(v), "m");
  EXPECT_EQ(data.tokens, v.tokens);
  EXPECT_EQ(data.kinds[0], TokenKind::unknown);
  EXPECT_EQ(data.bos, 1);
  EXPECT_EQ(data.eos, std::vector<int32_t>{2});
  EXPECT_EQ(data.pad, -1);
  EXPECT_TRUE(data.add_prefix_space);
  EXPECT_EQ(Tokenizer(data).encode("ab abc", false), (std::vector<int32_t>{1, 7, 7, 0}));
  v.prefix = false;
  EXPECT_EQ(tokenizer_of(sentencepiece_model(v)).encode("ab"), (std::vector<int32_t>{1, 6}));
}

TEST_F(HfDirectory, SentencePieceAloneIsRead) {
  remove("tokenizer.json");
  remove("tokenizer_config.json");
  expect_refused({"tokenizer.model"});
  SentencePieceWriter w;
  w.piece("<unk>", 0, 2);
  w.piece("<s>", 0, 3);
  w.piece("</s>", 0, 3);
  for (const char* token : {"\u2581", "a", "b", "ab", "\u2581ab"}) w.piece(token, -1, 1);
  write("tokenizer.model", w.file());
  const Checkpoint c = open();
  EXPECT_EQ(c.tokenizer().model, "spm");
  EXPECT_EQ(c.tokenizer().eos, std::vector<int32_t>{2});
  EXPECT_EQ(Tokenizer(c.tokenizer()).encode("ab"), (std::vector<int32_t>{1, 7}));
  write("added_tokens.json", "{}");
  expect_refused({"added_tokens.json", "tokenizer.json is"});
}

}  // namespace
}  // namespace quire
