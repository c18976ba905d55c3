// Tokenizers of GGUF's kind "llama" against the ids that SentencePiece itself gives (tools/golden_sentencepiece.py).
#include "models/sentencepiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "models/gguf_tokenizer.h"
#include "models/normalize.h"
#include "models/tokenizer.h"
#include "tests/expect_error.h"
#include "tests/models/gguf_writer.h"
#include "tests/models/sentencepiece_writer.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::ElementsAre;

const json& golden() {
  static const json data = json::parse(std::ifstream(source_file("tests/models/golden_sentencepiece.json")));
  return data;
}

GgufWriter writer_of(const json& model) {
  GgufWriter w;
  w.text("tokenizer.ggml.model", "llama");
  std::vector<std::string> tokens = model["tokens"];
  for (size_t i = 0; i < tokens.size(); ++i) {  // user-defined ones as converters write them
    if (model["types"][i] == 4) tokens[i] = replaced(tokens[i], kSpaceLetter, " ");
  }
  w.texts("tokenizer.ggml.tokens", tokens);
  std::string scores = GgufWriter::bytes_of(uint32_t(6)) + GgufWriter::bytes_of(uint64_t(model["scores"].size()));
  for (const float score : model["scores"]) scores += GgufWriter::bytes_of(score);
  w.raw("tokenizer.ggml.scores", 9, scores);
  w.i32s("tokenizer.ggml.token_type", model["types"]);
  w.u32("tokenizer.ggml.unknown_token_id", model["unknown"]);
  w.boolean("tokenizer.ggml.add_bos_token", false);
  w.boolean("tokenizer.ggml.add_space_prefix", model["add_space_prefix"]);
  w.boolean("tokenizer.ggml.remove_extra_whitespaces", model["remove_extra_whitespaces"]);
  const std::string map = from_base64(model["charsmap"]);
  if (!map.empty()) {
    w.raw("tokenizer.ggml.precompiled_charsmap", 9,
          GgufWriter::bytes_of(uint32_t(GgufType::i8)) + GgufWriter::bytes_of(uint64_t(map.size())) + map);
  }
  return w;
}

class SentencePieceFile : public testing::Test {
 protected:
  TokenizerData read(const GgufWriter& w) {
    return read_gguf_tokenizer(GgufFile(MappedFile(dir_.write("tokenizer.gguf", w.file()))));
  }
  TempDir dir_;
};

TEST_F(SentencePieceFile, GivesTheIdsOfSentencePiece) {
  for (const char* name : {"bytes", "plain", "rules", "rules_keep_spaces"}) {
    const json& model = golden()[name];
    const Tokenizer tokenizer(read(writer_of(model)));
    ASSERT_GE(model["cases"].size(), 30u);
    for (size_t i = 0; i < model["cases"].size(); ++i) {
      const std::string text = model["cases"][i]["text"];
      const std::vector<int32_t> ids = model["cases"][i]["ids"];
      EXPECT_EQ(tokenizer.encode(text, false), ids) << name << " '" << text << "'";
    }
  }
}

TEST_F(SentencePieceFile, DecodesWhatItEncoded) {
  const json& model = golden()["bytes"];
  const Tokenizer tokenizer(read(writer_of(model)));
  for (const json& c : model["cases"]) {
    const std::string text = c["text"];
    if (text.find("\u2581") != std::string::npos) continue;  // that letter is a space to it
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text);
  }
}

TEST_F(SentencePieceFile, ControlTokensBeginATextOfTheirOwn) {
  const Tokenizer tokenizer(read(writer_of(golden()["bytes"])));
  const int32_t bos = tokenizer.find("<s>");
  ASSERT_GE(bos, 0);
  std::vector<int32_t> expected = tokenizer.encode("Hello", false);
  expected.push_back(bos);
  for (const int32_t id : tokenizer.encode("world", false)) expected.push_back(id);
  EXPECT_EQ(tokenizer.encode("Hello<s>world"), expected);
  EXPECT_EQ(tokenizer.decode(expected), "Hello world");
}

TEST_F(SentencePieceFile, BytesThatAreNoTextStayBytes) {
  const Tokenizer tokenizer(read(writer_of(golden()["bytes"])));
  const std::vector<int32_t> ids = tokenizer.encode("\xFF\xC3", false);
  EXPECT_THAT(ids, ElementsAre(tokenizer.find("\u2581"), tokenizer.find("<0xFF>"), tokenizer.find("<0xC3>")));
  EXPECT_EQ(tokenizer.decode(ids), "\xFF\xC3");
}

TEST_F(SentencePieceFile, TakesTheDefaultsOfItsKind) {
  GgufWriter w = writer_of(golden()["bytes"]);
  for (const char* key : {"unknown_token_id", "add_bos_token", "add_space_prefix"})
    w.erase(std::string("tokenizer.ggml.") + key);
  const TokenizerData data = read(w);
  EXPECT_EQ(data.bos, 1);
  EXPECT_EQ(data.unknown, 0);
  EXPECT_THAT(data.eos, ElementsAre(2));
  EXPECT_TRUE(data.add_bos);
  EXPECT_TRUE(data.add_prefix_space);
  EXPECT_EQ(Tokenizer(data).encode("").at(0), 1);
}

TEST_F(SentencePieceFile, RefusesWhatItCannotRun) {
  const GgufWriter good = writer_of(golden()["plain"]);
  GgufWriter w = good;
  w.raw("tokenizer.ggml.precompiled_charsmap", 9,
        GgufWriter::bytes_of(uint32_t(0)) + GgufWriter::bytes_of(uint64_t(3)) + "abc");
  expect_error([&] { read(w); }, {"tokenizer.gguf", "the table of normalization is damaged"});
  w = good;
  const auto scores = [&](const std::vector<float>& values) {
    w.erase("tokenizer.ggml.scores");
    std::string bytes;
    for (const float value : values) bytes += GgufWriter::bytes_of(value);
    w.raw("tokenizer.ggml.scores", 9,
          GgufWriter::bytes_of(uint32_t(6)) + GgufWriter::bytes_of(uint64_t(values.size())) + bytes);
  };
  scores({0});
  expect_error([&] { read(w); }, {"700 tokens but 1 scores"});
  std::vector<float> values(700, 0.0f);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  scores(values);
  expect_error([&] { read(w); }, {"token 7 has the score nan"});
  w = good;
  w.erase("tokenizer.ggml.unknown_token_id");
  w.erase("tokenizer.ggml.token_type");
  w.u32("tokenizer.ggml.unknown_token_id", UINT32_MAX);
  expect_error([&] { read(w); }, {"tokenizer.gguf", "unk"});
}

}  // namespace
}  // namespace quire
