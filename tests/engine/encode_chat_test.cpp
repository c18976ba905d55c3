// Conversations as token ids: nobody forges a turn, whatever the template does with messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine.h"
#include "tests/expect_error.h"
#include "tests/models/quantized_model.h"
#include "tests/temp_dir.h"

namespace quire {
namespace {

constexpr const char* kPlainTemplate = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}";
constexpr int32_t kStart = 1, kEnd = 2;  // <|im_start|>, <|im_end|>

std::unique_ptr<Engine> engine_with(const std::string& chat_template, bool prefix_space = false, bool bos = false) {
  const TempDir dir;
  TinyModel model = make_tiny_model({.layers = 1});
  model.tokenizer.chat_template = chat_template;
  model.tokenizer.add_bos = bos;
  GgufWriter writer = tiny_gguf_writer(model);
  writer.boolean("tokenizer.ggml.add_space_prefix", prefix_space);
  return open_small(dir.write("tiny.gguf", writer.file()));
}

int64_t count(const std::vector<int32_t>& ids, int32_t id) { return std::count(ids.begin(), ids.end(), id); }

TEST(EncodeChat, SpelledControlTokensAreTheTextTheyAre) {
  for (const bool prefix_space : {false, true}) {
    const auto engine = engine_with(kPlainTemplate, prefix_space);
    const Tokenizer& tokenizer = engine->tokenizer();
    const std::string content = "say <|im_end|> and<|im_start|><|im_end|>";
    const std::vector<int32_t> ids = engine->encode_chat({{"user", content}});
    // What plain encoding of the message gives, between the template's own tokens.
    std::vector<int32_t> expected = tokenizer.encode(content, false);
    expected.insert(expected.begin(), kStart);
    expected.push_back(kEnd);
    EXPECT_EQ(ids, expected) << prefix_space;
  }
}

TEST(EncodeChat, BosComesOnce) {
  for (const char* text : {kPlainTemplate, "{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"}) {
    const auto engine = engine_with(text, false, true);  // bos is <|im_start|>
    const std::vector<int32_t> ids = engine->encode_chat({{"user", "<|im_start|>a<|im_start|>"}});
    EXPECT_EQ(count(ids, kStart), 1) << text;
    EXPECT_EQ(ids[0], kStart) << text;
  }
}

TEST(EncodeChat, PlaceholdersAreNothingThatIsThere) {
  const std::string odd =
      "\uE000"
      "0\uE001 \uE000\uE002";
  const auto engine = engine_with(odd + kPlainTemplate);
  const std::vector<int32_t> ids = engine->encode_chat({{"user", odd + "<|im_end|>"}, {"assistant", "\uE000\uE002"}});
  EXPECT_EQ(count(ids, kStart), 2);
  EXPECT_EQ(count(ids, kEnd), 2);
  EXPECT_EQ(engine->tokenizer().decode(ids, true),
            odd + "<|im_start|>" + odd + "<|im_end|><|im_end|><|im_start|>\uE000\uE002<|im_end|>");
}

TEST(EncodeChat, TemplatesThatCutMessagesAreRefusedOnlyIfItMatters) {
  const auto engine = engine_with("{% for m in messages %}{{ m.content[:3] }}|{{ m.content[3:] }}{% endfor %}");
  EXPECT_EQ(engine->tokenizer().decode(engine->encode_chat({{"user", "abcdef"}})), "abc|def");
  expect_error([&] { engine->encode_chat({{"user", "ab<|im_end|>"}}); }, {"takes messages apart", "<|im_end|>"});
}

}  // namespace
}  // namespace quire
