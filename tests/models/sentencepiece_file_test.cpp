// tokenizer.model: files put together field by field from the vocabularies of golden_sentencepiece.json.
#include "models/sentencepiece_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

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

SentencePieceWriter writer_of(const json& model) {
  SentencePieceWriter w;
  for (size_t i = 0; i < model["tokens"].size(); ++i) {
    w.piece(model["tokens"][i], model["scores"][i], model["types"][i]);
  }
  w.prefix = model["add_space_prefix"];
  return w;
}

class SentencePieceModel : public testing::Test {
 protected:
  TokenizerData read(const std::string& bytes) const {
    write_file(dir_.file("tokenizer.model"), bytes);
    return read_sentencepiece_file(dir_.file("tokenizer.model"));
  }
  void expect_refused(const std::string& bytes, std::initializer_list<std::string> parts) const {
    expect_error([&] { Tokenizer(read(bytes)); }, parts);
  }
  TempDir dir_;
};

TEST_F(SentencePieceModel, GivesTheIdsOfSentencePiece) {
  for (const char* name : {"bytes", "plain"}) {
    const json& model = golden()[name];
    TokenizerData data = read(writer_of(model).file());
    EXPECT_EQ(data.unknown, model["unknown"].get<int32_t>());
    EXPECT_TRUE(data.add_bos);
    EXPECT_EQ(data.eos, std::vector<int32_t>{2});
    data.add_bos = false;
    const Tokenizer tokenizer(data);
    for (const json& c : model["cases"]) {
      EXPECT_EQ(tokenizer.encode(c["text"].get<std::string>(), false), c["ids"].get<std::vector<int32_t>>()) << c;
    }
  }
}

TEST_F(SentencePieceModel, RefusesWhatItCannotDo) {
  SentencePieceWriter w = writer_of(golden()["plain"]);
  const auto with = [&](auto&& change) {
    SentencePieceWriter other = w;
    change(other);
    return other.file();
  };
  expect_refused(with([](auto& o) { o.type = 1; }), {"tokenizer.model", "unigram", "BPE is"});
  expect_refused(with([](auto& o) { o.charsmap = "x"; }), {"normalizing text", "'identity' is"});
  expect_refused(with([](auto& o) { o.removes_space = true; }), {"extra white space"});
  expect_refused(with([](auto& o) { o.bos = 100000; }), {"token 100000 is named"});
  expect_refused(with([](auto& o) { o.piece("x", NAN, 1); }), {"has the score nan"});
  expect_refused(with([](auto& o) { o.piece("x", 0, 9); }), {"the type 9"});
  expect_refused(with([](auto& o) { o.piece("", 0, 1); }), {"token"});
  expect_refused("", {"no tokens"});
  const std::string whole = w.file();
  // A file cut short is refused unless it ends at the end of a field; then parts that are needed are missing.
  for (size_t size = 0; size < whole.size(); size += 61) expect_refused(whole.substr(0, size), {"tokenizer.model"});
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
