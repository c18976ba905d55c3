#include "engine/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/checkpoint.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using testing::HasSubstr;

nlohmann::json golden() {
  std::ifstream file(source_file("tests/engine/golden_smollm2.json"));
  return nlohmann::json::parse(file);
}

std::string error_from(const ChatTemplate& t, const std::vector<Message>& messages) {
  try {
    t.render(messages, "<s>", "</s>", true);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(ChatTemplate, GivesTheTemplateWhatItAsksFor) {
  const ChatTemplate t(
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}"
      "{% if tools is defined and tools is none and documents is none %}!{% endif %}");
  EXPECT_EQ(t.render({{"user", "Hi {{ 1 }} {% x %}"}, {"assistant", "Yo"}}, "<s>", "</s>", true),
            "<s>[user]Hi {{ 1 }} {% x %}</s>[assistant]Yo</s>[assistant]!");
  EXPECT_EQ(t.render({}, "", "", false), "!");
}

TEST(ChatTemplate, ErrorsSayWhatAndWhere) {
  const ChatTemplate t(
      "{% for m in messages %}\n"
      "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\n"
      "{{ raise_exception('Roles must alternate, not ' + m.role) }}\n"
      "{% endif %}\n"
      "{% endfor %}\n");
  EXPECT_EQ(error_from(t, {{"user", "a"}, {"assistant", "b"}}), "no error");
  EXPECT_EQ(error_from(t, {{"user", "a"}, {"user", "b"}}), "chat template, line 3: Roles must alternate, not user");
  try {
    ChatTemplate bad("a\n{% fro x in y %}");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("line 2: statement 'fro' is not supported"));
  }
}

TEST(ChatTemplate, OfSmolLm2RendersAndEncodesAsHuggingFaceDoes) {
  QUIRE_NEEDS_FILE(test_model());
  const Checkpoint checkpoint = Checkpoint::open(test_model());
  const ChatTemplate t(checkpoint.tokenizer().chat_template);
  const Tokenizer tokenizer(checkpoint.tokenizer());
  const nlohmann::json g = golden();
  ASSERT_EQ(g.size(), 3u);
  for (const auto& c : g) {
    const std::string text = t.render({{"user", c["prompt"]}}, "<|im_start|>", "<|im_end|>", true);
    EXPECT_EQ(text, c["text"].get<std::string>());
    EXPECT_EQ(tokenizer.encode(text), c["prompt_ids"].get<std::vector<int32_t>>());
  }
}

}  // namespace
}  // namespace quire
