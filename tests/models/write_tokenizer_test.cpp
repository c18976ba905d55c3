// The tokenizer that quantize writes, or copies, is the one of the source.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/normalize.h"
#include "models/offline/write.h"
#include "models/tokenizer.h"
#include "tests/expect_error.h"
#include "tests/models/quantized_model.h"
#include "tests/models/sentencepiece_writer.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

class WriteTokenizer : public testing::Test {
 protected:
  WriteOptions options() const {
    WriteOptions o;
    o.output = out_;
    return o;
  }
  TempDir dir_;
  std::string source_ = dir_.file("tiny.gguf"), out_ = dir_.file("out");
};

// Every kind of token, every id that may be missing, a template, patterns: whatever a GGUF says comes back.
TEST_F(WriteTokenizer, TokenizersComeBackWhole) {
  for (const bool sparse : {false, true}) {
    TinyModel model = make_tiny_model({.layers = 1});
    TokenizerData& t = model.tokenizer;
    t.kinds[280] = TokenKind::user_defined;
    t.kinds[281] = TokenKind::unused;
    t.kinds[0] = TokenKind::unknown;
    t.tokens[282] = "<0x0A>";
    t.kinds[282] = TokenKind::byte;
    t.tokens[283] = "[PAD283]";
    t.kinds[283] = TokenKind::unused;
    t.merges.resize(t.merges.size() - 25);
    t.chat_template = "{{ '\"quoted\" \\ \n\t\xE2\x82\xAC' }}";
    t.add_bos = !sparse;
    GgufWriter w = tiny_gguf_writer(model);
    w.boolean("tokenizer.ggml.add_space_prefix", !sparse);
    w.erase("tokenizer.ggml.pre");
    w.text("tokenizer.ggml.pre", sparse ? "gpt-2" : "llama-bpe");
    w.i32s("tokenizer.ggml.eos_token_ids", {5, 2, 1});
    w.erase("general.name");
    w.text("general.name", "bad \xff name");
    if (sparse) {
      for (const char* key : {"bos_token_id", "unknown_token_id", "padding_token_id", "eos_token_id", "eos_token_ids"})
        w.erase(std::string("tokenizer.ggml.") + key);
      w.erase("tokenizer.chat_template");
    }
    write_file(source_, w.file());
    fs::remove_all(out_);
    quantize(source_, "w8a8", options());
    const Checkpoint source = Checkpoint::open(source_), stored = Checkpoint::open(out_);
    const TokenizerData &a = source.tokenizer(), &b = stored.tokenizer();
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.kinds, b.kinds);
    EXPECT_EQ(a.merges, b.merges);
    EXPECT_EQ(a.split_patterns, b.split_patterns);
    EXPECT_THAT(a.eos, testing::ElementsAreArray(sparse ? std::vector<int32_t>{} : std::vector<int32_t>{2, 5, 1}));
    EXPECT_EQ(a.bos, sparse ? -1 : 1);
    EXPECT_EQ(a.whole_pieces, !sparse);
    EXPECT_TRUE(a == b);
  }
}

// A SentencePiece vocabulary becomes tokenizer.model, with its normalization, its special tokens and their white space.
TEST_F(WriteTokenizer, SentencePieceOfAGgufFileIsWritten) {
  const TinyModel model = make_tiny_model();
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "<|end|>", "<tool>", "\u2581", "a", "b", "ab", "\u2581ab"};
  std::vector<int32_t> types = {2, 3, 3, 3, 4, 1, 1, 1, 1, 5};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(fmt::format("<0x{:02X}>", byte)), types.push_back(6);
  ASSERT_GE(model.tokenizer.tokens.size(), tokens.size());
  while (tokens.size() < model.tokenizer.tokens.size()) tokens.push_back(fmt::format("w{}", tokens.size()));
  types.resize(tokens.size(), 1);
  const auto golden = nlohmann::json::parse(std::ifstream(source_file("tests/models/golden_sentencepiece.json")));
  const std::string map = from_base64(golden["rules"]["charsmap"]);
  GgufWriter w = tiny_gguf_writer(model);
  for (const char* key :
       {"model", "pre", "tokens", "token_type", "merges", "eos_token_id", "unknown_token_id", "padding_token_id"})
    w.erase(std::string("tokenizer.ggml.") + key);
  w.text("tokenizer.ggml.model", "llama");
  w.texts("tokenizer.ggml.tokens", tokens);
  w.i32s("tokenizer.ggml.token_type", types);
  std::string scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores += GgufWriter::bytes_of(-float(i));
  w.raw("tokenizer.ggml.scores", 9, GgufWriter::bytes_of(uint32_t(6)) + GgufWriter::bytes_of(tokens.size()) + scores);
  w.u32("tokenizer.ggml.eos_token_id", 2);
  w.u32("tokenizer.ggml.eot_token_id", 3);
  w.boolean("tokenizer.ggml.remove_extra_whitespaces", true);
  w.raw("tokenizer.ggml.precompiled_charsmap", 9,
        GgufWriter::bytes_of(uint32_t(GgufType::i8)) + GgufWriter::bytes_of(map.size()) + map);
  write_file(source_, w.file());
  quantize(source_, "w8a8", options());
  EXPECT_FALSE(fs::exists(out_ + "/tokenizer.json"));
  TokenizerData a = Checkpoint::open(source_).tokenizer(), b = Checkpoint::open(out_).tokenizer();
  EXPECT_TRUE(a == b);
  EXPECT_THAT(b.eos, testing::ElementsAre(2, 3));
  EXPECT_EQ(b.chat_template, model.tokenizer.chat_template);
  const Tokenizer source(a), stored(b);
  for (const char* text : {"ab  b ab<|end|> a<tool>b\n", " \u2460\u00e9 ab", "\xFF ab"}) {
    EXPECT_EQ(source.encode(text), stored.encode(text)) << text;
  }
  // The rules make "ab" an "x", which is no token but a byte.
  EXPECT_THAT(stored.encode("ab<|end|>a"), testing::ElementsAre(5, 10 + 'x', 3, 5, 6));
  // What only tokenizer_config.json can say.
  const std::string path = out_ + "/tokenizer_config.json";
  auto config = nlohmann::json::parse(std::ifstream(path));
  config["added_tokens_decoder"]["3"]["rstrip"] = true;
  write_file(path, config.dump());
  EXPECT_EQ(Tokenizer(Checkpoint::open(out_).tokenizer()).encode("<|end|> a"), stored.encode("<|end|>a"));
  config["added_tokens_decoder"]["4000000"] = {{"content", "<beyond>"}, {"lstrip", true}};  // no token of the model's
  write_file(path, config.dump());
  EXPECT_EQ(Checkpoint::open(out_).tokenizer().strips.size(), 1u);
  config["added_tokens_decoder"]["3"]["content"] = "<|End|>";
  write_file(path, config.dump());
  expect_error([&] { Checkpoint::open(out_); }, {"tokenizer_config.json", "added token 3", "<|end|>"});
}

// Tokenizers of directories, of every kind, are copied: a vocabulary of the tiny model's size in each golden form.
TEST_F(WriteTokenizer, TokenizersOfDirectoriesAreCopied) {
  const std::string dir = dir_.file("hf");
  write_tiny_hf(make_tiny_model(), dir);
  const auto expect_same = [&](const std::string& kind, std::initializer_list<const char*> files) {
    SCOPED_TRACE(kind);
    fs::remove_all(out_);
    quantize(dir, "w8a8", options());
    const TokenizerData source = Checkpoint::open(dir).tokenizer();
    EXPECT_EQ(source.model, kind);
    EXPECT_TRUE(source == Checkpoint::open(out_).tokenizer());
    for (const char* name : files) {
      EXPECT_EQ(read_text_file(dir + "/" + name, 1 << 20), read_text_file(out_ + "/" + name, 1 << 20)) << name;
    }
  };
  expect_same("bpe", {"tokenizer.json", "tokenizer_config.json"});
  write_file(dir + "/chat_template.jinja", "{{ messages[0].content }}");
  write_file(dir + "/special_tokens_map.json", R"({"bos_token": "<s>"})");
  const auto golden = nlohmann::json::parse(std::ifstream(source_file("tests/models/golden_tokenizers.json")));
  fs::remove(dir + "/tokenizer_config.json");
  size_t forms = 0;
  for (const auto& entry : golden) {
    nlohmann::json model = entry["model"];
    model["vocab"] = nlohmann::json::object();
    for (const auto& [token, id] : entry["model"]["vocab"].items()) {
      if (id < 290) model["vocab"][token] = id;
    }
    model["merges"] = nlohmann::json::array();
    for (const auto& variant : entry["variants"]) {
      if (variant["name"] == "qwen 2" && !kHasNfc) continue;
      SCOPED_TRACE(variant["name"].get<std::string>());
      nlohmann::json tokenizer = {{"version", "1.0"}, {"model", model}};
      for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"}) {
        tokenizer[key] = variant[key];
      }
      int next = 290;
      for (auto& token : tokenizer["added_tokens"]) {
        if (token["id"] > 2) token["id"] = next++;
      }
      write_file(dir + "/tokenizer.json", tokenizer.dump());
      expect_same(model.value("byte_fallback", false) ? "char-bpe" : "bpe",
                  {"tokenizer.json", "chat_template.jinja", "special_tokens_map.json"});
      ++forms;
    }
  }
  EXPECT_GE(forms, 6u);
  fs::remove(dir + "/tokenizer.json");
  SentencePieceWriter w;
  w.piece("<unk>", 0, 2);
  w.piece("<s>", 0, 3);
  w.piece("</s>", 0, 3);
  for (const char* token : {"\u2581", "a", "b", "ab", "\u2581ab"}) w.piece(token, -1, 1);
  write_file(dir + "/tokenizer.model", w.file());
  expect_same("spm", {"tokenizer.model"});
}

}  // namespace
}  // namespace quire
