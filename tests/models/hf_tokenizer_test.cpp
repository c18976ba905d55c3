// Tokenizers of HuggingFace directories: what is read, and what is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/tokenizer.h"
#include "tests/models/hf_directory.h"

namespace quire {
namespace {

using testing::ElementsAre;
using HfTokenizer = HfDirectory;

TEST_F(HfTokenizer, ReadsThePreTokenizersOfLlama) {
  const Ordered split = {
      {"type", "Split"}, {"pattern", {{"Regex", "\\p{L}+|\\s"}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Ordered bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  TokenizerData t = tokenizer_with([&](Ordered& json) {
    json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}};
    json["model"]["ignore_merges"] = true;
  });
  EXPECT_THAT(t.split_patterns, ElementsAre("\\p{L}+|\\s"));
  EXPECT_TRUE(t.whole_pieces);
  EXPECT_FALSE(t.add_prefix_space);
  t = tokenizer_with([&](Ordered& json) { json["pre_tokenizer"] = {{"type", "ByteLevel"}}; });
  EXPECT_EQ(t.split_patterns.size(), 1u);
  EXPECT_TRUE(t.add_prefix_space);  // the tokenizers library's default
  t = tokenizer_with([&](Ordered& json) {
    json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
    json["pre_tokenizer"]["pretokenizers"][1] = bytes;
  });
  EXPECT_THAT(t.split_patterns, ElementsAre("\\p{N}+"));
  t = tokenizer_with([&](Ordered& json) {
    Ordered literal = split;
    literal["pattern"] = {{"String", "a.b"}};
    json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {literal, bytes}}};
  });
  EXPECT_THAT(t.split_patterns, ElementsAre("a\\.b"));
}

TEST_F(HfTokenizer, RefusesTokenizerConstructsByName) {
  const auto refused = [&](const char* pointer, const Ordered& value, std::initializer_list<std::string> parts) {
    SCOPED_TRACE(pointer);
    expect_tokenizer_refused([&](Ordered& json) { json[Ordered::json_pointer(pointer)] = value; }, parts);
  };
  refused("/model/type", "Unigram", {"tokenizer model 'Unigram'"});
  refused("/model/byte_fallback", true, {"pre-tokenizer 'Digits' is not supported with byte fallback"});
  refused("/model/dropout", 0.1, {"'dropout' = 0.1"});
  refused("/model/end_of_word_suffix", "</w>", {"'end_of_word_suffix' = \"</w>\""});
  refused("/model/vocab", nullptr, {"'vocab' and 'merges' are needed"});
  refused("/normalizer", {{"type", "NFKC"}}, {"normalizer 'NFKC'"});
  refused("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Replace"}}}}}, {"normalizer 'Replace'"});
  refused("/pre_tokenizer", nullptr, {"'pre_tokenizer' is missing"});
  refused("/pre_tokenizer", {{"type", "Metaspace"}}, {"pre-tokenizer 'Metaspace'"});
  refused("/pre_tokenizer/pretokenizers/1", {{"type", "Digits"}}, {"there is no ByteLevel"});
  refused("/pre_tokenizer/pretokenizers/0", {{"type", "ByteLevel"}}, {"nothing can follow ByteLevel"});
  refused("/pre_tokenizer/pretokenizers/0", {{"type", "Split"}, {"pattern", {{"Regex", "x"}}}, {"behavior", "Removed"}},
          {"behavior 'Removed'"});
  refused("/pre_tokenizer/pretokenizers/0",
          {{"type", "Split"}, {"pattern", {{"Regex", "x"}}}, {"behavior", "Isolated"}, {"invert", true}},
          {"'invert' = true"});
  refused("/pre_tokenizer/pretokenizers/0", {{"type", "Split"}, {"behavior", "Isolated"}}, {"'pattern' must be"});
  refused("/decoder", {{"type", "Metaspace"}}, {"only a ByteLevel decoder"});
  refused("/decoder", nullptr, {"only a ByteLevel decoder"});
  refused("/added_tokens/0/single_word", true, {"added token 0", "'single_word' = true"});
  refused("/added_tokens/0/content", "", {"'id' and 'content' are needed"});
  refused("/added_tokens/0/id", 299, {"<|endoftext|>' has the ids 0 and 299"});
  refused("/added_tokens/0", {{"id", 5}, {"content", "<new>"}}, {"'<new>' have the same id 5"});
  refused("/model/vocab/the", 300, {"'the' has id 300; the embedding has 300 rows"});
  refused("/added_tokens/0", {{"id", -1}, {"content", "<new>"}}, {"has id -1"});
  refused("/model/vocab/the", 1u << 31, {"has id 2147483648"});
  refused("/model/vocab/the", "x", {"has id \"x\""});
  refused("/model/merges/0", "Ġt", {"\"Ġt\" is not a merge of two tokens"});
  refused("/model/merges/0", {"a", "b", "c"}, {"is not a merge of two tokens"});
  refused("/model/merges/0", {"a b", "c"}, {"is not a merge of two tokens"});
  refused("/post_processor", {{"type", "BertProcessing"}}, {"post-processor 'BertProcessing'"});
}

TEST_F(HfTokenizer, AddedTokensBeyondTheEmbeddingAreLeftOut) {
  const TokenizerData plain = open().tokenizer();
  const TokenizerData more = tokenizer_with([](Ordered& json) {
    json["added_tokens"].push_back(
        {{"id", 300}, {"content", "<image_soft_token>"}, {"special", true}, {"rstrip", true}});
    json["added_tokens"].push_back({{"id", 301}, {"content", "<more>"}, {"special", false}});
  });
  EXPECT_EQ(more, plain);
  for (const int32_t id : Tokenizer(more).encode("a<image_soft_token>b<more>")) EXPECT_LT(id, 300);
}

TEST_F(HfTokenizer, MergesMayBePairs) {
  const TokenizerData t = tokenizer_with([&](Ordered& json) {
    for (Ordered& merge : json["model"]["merges"]) {
      const auto text = merge.get<std::string>();
      merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
    }
  });
  EXPECT_EQ(t.merges, model_.tokenizer.merges);
}

TEST_F(HfTokenizer, HolesInTheNumberingAreUnused) {
  const TokenizerData t = tokenizer_with([&](Ordered& json) {
    json["model"]["merges"] = Ordered::array();
    json["model"]["vocab"].erase(model_.tokenizer.tokens[280]);
    json["added_tokens"].push_back({{"id", 299}, {"content", model_.tokenizer.tokens[299]}, {"special", false}});
  });
  EXPECT_EQ(t.kinds[280], TokenKind::unused);
  EXPECT_EQ(t.kinds[299], TokenKind::user_defined);
  EXPECT_EQ(t.kinds[1], TokenKind::control);
}

TEST_F(HfTokenizer, ATemplatePutsBosInFront) {
  const Ordered bos = {{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}},
                text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const auto with_template = [&](const Ordered& single) {
    return [=](Ordered& json) {
      json["post_processor"] = {
          {"type", "Sequence"},
          {"processors",
           {{{"type", "ByteLevel"}, {"trim_offsets", false}}, {{"type", "TemplateProcessing"}, {"single", single}}}}};
    };
  };
  const TokenizerData t = tokenizer_with(with_template({bos, text}));
  EXPECT_TRUE(t.add_bos);
  EXPECT_EQ(t.bos, 1);
  EXPECT_FALSE(tokenizer_with(with_template(Ordered::array({text}))).add_bos);
  expect_tokenizer_refused(with_template({text, bos}), {"only a token in front of the text"});
  expect_tokenizer_refused(with_template({{{"SpecialToken", {{"id", "<none>"}}}}, text}), {"is not a token"});
  Ordered config = tiny_hf_tokenizer_config(model_);
  config["add_bos_token"] = false;  // overrules the template
  write("tokenizer_config.json", config.dump());
  EXPECT_FALSE(tokenizer_with(with_template({bos, text})).add_bos);
}

TEST_F(HfTokenizer, EndTokensOfEveryPlaceAreMerged) {
  write("generation_config.json", R"({"eos_token_id": [0, 2, 7]})");
  EXPECT_THAT(open().tokenizer().eos, ElementsAre(2, 0, 7));
  write("generation_config.json", R"({"eos_token_id": [300]})");  // as many rows as the head has
  EXPECT_THAT(open().tokenizer().eos, ElementsAre(2));
  write("generation_config.json", R"({"eos_token_id": "x"})");
  expect_refused({"eos_token_id \"x\" is not a token"});
  remove("generation_config.json");
  remove("tokenizer_config.json");
  const Checkpoint c = open_with("eos_token_id", {5, 6});
  EXPECT_THAT(c.tokenizer().eos, ElementsAre(5, 6));
  EXPECT_EQ(c.tokenizer().bos, 1);
}

TEST_F(HfTokenizer, ChatTemplatesOfEveryPlace) {
  Ordered config = tiny_hf_tokenizer_config(model_);
  config["chat_template"] = {{{"name", "tool_use"}, {"template", "tools"}},
                             {{"name", "default"}, {"template", "plain"}}};
  config["eos_token"] = {{"content", "<|im_end|>"}, {"lstrip", false}};
  write("tokenizer_config.json", config.dump());
  EXPECT_EQ(open().tokenizer().chat_template, "plain");
  write("chat_template.jinja", "from the file");
  EXPECT_EQ(open().tokenizer().chat_template, "from the file");
  remove("chat_template.jinja");
  config.erase("chat_template");
  config["eos_token"] = "<none>";
  write("tokenizer_config.json", config.dump());
  expect_refused({"eos_token \"<none>\" is not a token"});
  config.erase("eos_token");
  write("tokenizer_config.json", config.dump());
  EXPECT_EQ(open().tokenizer().chat_template, "");
}

}  // namespace
}  // namespace quire
