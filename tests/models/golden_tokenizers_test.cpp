// The forms of tokenizer.json that families of models use, against HuggingFace's `tokenizers`
// (tools/golden_tokenizers.py).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/gguf_tokenizer.h"
#include "models/hf_tokenizer.h"
#include "models/normalize.h"
#include "models/tokenizer.h"
#include "tests/expect_error.h"
#include "tests/models/gguf_writer.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using GoldenJson = nlohmann::json;

class GoldenTokenizers : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(source_file("tests/models/golden_tokenizers.json"));
    golden_ = GoldenJson::parse(file);
  }

  TokenizerData read(const GoldenJson& model, const GoldenJson& variant) const {
    GoldenJson json = {{"version", "1.0"}, {"model", model}};
    json["model"]["ignore_merges"] = variant["ignore_merges"];
    for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"}) {
      json[key] = variant[key];
    }
    write_file(dir_.file("tokenizer.json"), json.dump());
    const GoldenJson config = GoldenJson::object();
    return read_hf_tokenizer(dir_.path(), JsonObject(config, "config"), 2000);
  }

  template <class Fn>
  void each_variant(Fn&& fn) const {
    for (const GoldenJson& entry : golden_) {
      for (const GoldenJson& variant : entry["variants"]) {
        SCOPED_TRACE(variant["name"].get<std::string>());
        if (variant["name"] == "qwen 2" && !kHasNfc) continue;
        fn(entry["model"], variant);
      }
    }
  }

  TempDir dir_;
  GoldenJson golden_;
};

TEST_F(GoldenTokenizers, IdsAndTextAreThoseOfTokenizers) {
  size_t variants = 0;
  each_variant([&](const GoldenJson& model, const GoldenJson& variant) {
    const Tokenizer tokenizer(read(model, variant));
    ++variants;
    for (const GoldenJson& c : variant["cases"]) {
      const std::string text = c[0], decoded = c[2];
      auto ids = c[1].get<std::vector<int32_t>>();
      if (ids.size() > 1 && ids[0] == 1 && ids[1] == 1) ids.erase(ids.begin());  // a second bos is not put before one
      EXPECT_EQ(tokenizer.encode(text), ids) << '\'' << text << '\'';
      // Bytes that are no UTF-8 together are bytes here.
      if (ids.size() + 1 == c[1].size() || decoded.find("\xEF\xBF\xBD") != decoded.npos) continue;
      EXPECT_EQ(tokenizer.decode(ids, true), decoded) << '\'' << text << '\'';
    }
  });
  EXPECT_GE(variants, 6u);
}

TEST_F(GoldenTokenizers, ControlTokensInPlainTextAreText) {
  each_variant([&](const GoldenJson& model, const GoldenJson& variant) {
    const Tokenizer tokenizer(read(model, variant));
    const std::vector<int32_t> ids = tokenizer.encode("<|user|> Hi<|end|>", false);
    for (const int32_t id : ids) {
      EXPECT_TRUE(id == tokenizer.data().bos || tokenizer.data().kinds[size_t(id)] != TokenKind::control) << id;
    }
    EXPECT_EQ(tokenizer.decode(ids), "<|user|> Hi<|end|>");
    const std::vector<int32_t> broken = tokenizer.encode("a\xFF\xFE z");  // no UTF-8: byte by byte
    EXPECT_EQ(tokenizer.decode(broken), "a\xFF\xFE z");
  });
}

// The ids of Phi 3's turns from a GGUF file of the same vocabulary: merged by scores there, in the order of merges.
TEST_F(GoldenTokenizers, Phi3FromGgufTakesSpaceAfterItsTokens) {
  const GoldenJson &chars = golden_[0], &variant = chars["variants"][4];
  ASSERT_EQ(variant["name"], "phi 3");
  const TokenizerData hf = read(chars["model"], variant);
  std::map<std::string, float> ranks;
  for (size_t i = 0; i < hf.merges.size(); ++i) {
    const size_t space = hf.merges[i].find(' ');
    ranks.emplace(hf.merges[i].substr(0, space) + hf.merges[i].substr(space + 1), -float(i));
  }
  GgufWriter w;
  w.text("tokenizer.ggml.model", "llama");
  w.texts("tokenizer.ggml.tokens", hf.tokens);
  std::string scores = GgufWriter::bytes_of(uint32_t(6)) + GgufWriter::bytes_of(uint64_t(hf.tokens.size()));
  std::vector<int32_t> types;
  for (size_t id = 0; id < hf.tokens.size(); ++id) {
    const auto rank = ranks.find(hf.tokens[id]);
    scores += GgufWriter::bytes_of(rank == ranks.end() ? -1e6f : rank->second);
    types.push_back(int32_t(hf.kinds[id]) + 1);
  }
  w.raw("tokenizer.ggml.scores", 9, scores);
  w.i32s("tokenizer.ggml.token_type", types);
  w.boolean("tokenizer.ggml.add_bos_token", false);
  GgufWriter other = w;
  other.text("general.architecture", "llama");
  w.text("general.architecture", "phi3");
  const auto data = [&](const GgufWriter& file) {
    return read_gguf_tokenizer(GgufFile(MappedFile(dir_.write("tokenizer.gguf", file.file()))));
  };
  const Tokenizer tokenizer(data(w)), without(data(other));
  size_t turns = 0;
  for (const GoldenJson& c : variant["cases"]) {
    const std::string text = c[0];
    if (!text.starts_with("<|user|>\nHi")) continue;
    EXPECT_EQ(tokenizer.encode(text), c[1].get<std::vector<int32_t>>()) << text;
    EXPECT_NE(without.encode(text), tokenizer.encode(text));
    ++turns;
  }
  EXPECT_EQ(turns, 2u);
  for (const TokenStrip& strip : tokenizer.data().strips) {
    const std::string& token = tokenizer.data().tokens[size_t(strip.id)];
    EXPECT_TRUE(strip.right && !strip.left && token != "<s>" && token != "<unk>") << token;
  }
}

TEST_F(GoldenTokenizers, RefusesFormsByName) {
  const GoldenJson& chars = golden_[0];
  const auto refused = [&](const char* pointer, const GoldenJson& value, std::initializer_list<std::string> parts) {
    SCOPED_TRACE(pointer);
    GoldenJson model = chars["model"], variant = chars["variants"][0];
    (std::string_view(pointer).starts_with("/vocab") ? model : variant)[GoldenJson::json_pointer(pointer)] = value;
    expect_error([&] { Tokenizer(read(model, variant)); }, parts);
  };
  ASSERT_EQ(chars["variants"][0]["name"], "llama 2");
  refused("/normalizer", nullptr, {"keeps its spaces"});
  refused("/normalizer/normalizers/1/content", "_", {"only spaces by U+2581"});
  refused("/normalizer/normalizers/0/prepend", "x", {"only a U+2581 before all else"});
  refused("/normalizer/normalizers/0/type", "NFKC", {"normalizer 'NFKC' is not supported"});
  refused("/pre_tokenizer", {{"type", "ByteLevel"}}, {"pre-tokenizer 'ByteLevel' is not supported with byte fallback"});
  refused("/pre_tokenizer", {{"type", "Metaspace"}}, {"only spaces by U+2581 can be replaced, and once"});
  refused("/decoder", nullptr, {"'decoder' is missing"});
  refused("/decoder/decoders/3/start", 2, {"decoder 'Strip'"});
  refused("/added_tokens/3/normalized", true, {"looked for in normalized text"});
  refused("/added_tokens/3/single_word", true, {"'single_word' = true"});
  GoldenJson model = chars["model"];
  model["vocab"].erase("<0x41>");
  expect_error([&] { Tokenizer(read(model, chars["variants"][0])); }, {"byte 0x41 has no token '<0x41>'"});
}

TEST(Normalize, ComposesText) {
  if (!kHasNfc) {
    expect_error([] { nfc("e\u0301"); }, {"libutf8proc-dev"});
    return;
  }
  EXPECT_EQ(nfc("plain"), "plain");
  EXPECT_EQ(nfc("e\u0301 A\u030a \u212b"), "\u00e9 \u00c5 \u00c5");
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(nfc("\ufb01"), "\ufb01");  // compatibility forms stay
}

TEST(Normalize, SpaceAtTheEnds) {
  EXPECT_EQ(leading_space(" \t\u3000x "), 5u);
  EXPECT_EQ(leading_space(""), 0u);
  EXPECT_EQ(leading_space("\u200b"), 0u);  // not white
  EXPECT_EQ(trailing_space("x \u2003\n"), 5u);
  EXPECT_EQ(trailing_space("  "), 2u);
  EXPECT_EQ(trailing_space("\x80"), 0u);
}

}  // namespace
}  // namespace quire
