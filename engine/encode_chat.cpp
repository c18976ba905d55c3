// A conversation as token ids, in which nobody can forge a turn.
#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "engine/engine.h"

namespace quire {

namespace {

// Text that a template passes through untouched and that neither it nor a message holds; stands for a spelled-out
// control token meanwhile.
struct Placeholders {
  std::string open = "\uE000", close = "\uE001";
  std::vector<std::string> originals;

  Placeholders(const std::vector<Message>& messages, const std::string& chat_template) {
    const auto holds = [&](const std::string& text) { return text.find(open) != std::string::npos; };
    const auto used = [&] {
      return holds(chat_template) ||
             std::any_of(messages.begin(), messages.end(), [&](const Message& m) { return holds(m.content); });
    };
    while (used()) open += "\uE002";
  }
  std::string put(std::string_view original) {
    originals.emplace_back(original);
    return open + std::to_string(originals.size() - 1) + close;
  }
};

std::vector<std::string_view> control_spellings(const Tokenizer& tokenizer) {
  std::vector<std::string_view> spellings;
  const TokenizerData& data = tokenizer.data();
  for (size_t id = 0; id < data.tokens.size() && id < data.kinds.size(); ++id) {
    if (data.kinds[id] == TokenKind::control && !data.tokens[id].empty()) spellings.push_back(data.tokens[id]);
  }
  // The longest first, where one spelling begins another.
  std::sort(spellings.begin(), spellings.end(), [](auto a, auto b) { return a.size() > b.size(); });
  return spellings;
}

std::string without_controls(const std::string& content, const std::vector<std::string_view>& spellings,
                             Placeholders& placeholders) {
  std::string result;
  for (size_t i = 0; i < content.size();) {
    const std::string_view rest = std::string_view(content).substr(i);
    const auto found = std::find_if(spellings.begin(), spellings.end(),
                                    [&](std::string_view s) { return rest.substr(0, s.size()) == s; });
    if (found == spellings.end()) {
      result += content[i++];
    } else {
      result += placeholders.put(*found);
      i += found->size();
    }
  }
  return result;
}

// What was rendered, with the originals back in place of what stood for them, and where they are.
std::string restored(std::string_view rendered, const Placeholders& placeholders, std::vector<TextRange>& originals) {
  std::string text;
  while (!placeholders.originals.empty()) {
    const size_t begin = rendered.find(placeholders.open);
    if (begin == std::string_view::npos) break;
    text += rendered.substr(0, begin);
    rendered.remove_prefix(begin + placeholders.open.size());
    size_t index = placeholders.originals.size();
    const auto [rest, error] = std::from_chars(rendered.data(), rendered.data() + rendered.size(), index);
    rendered.remove_prefix(size_t(rest - rendered.data()));
    const bool whole = error == std::errc() && index < placeholders.originals.size() &&
                       rendered.substr(0, placeholders.close.size()) == placeholders.close;
    check(whole,
          "the chat template takes messages apart; one that spells out a control token ('{}') cannot be used with it",
          placeholders.originals[0]);
    rendered.remove_prefix(placeholders.close.size());
    const size_t at = text.size();
    text += placeholders.originals[index];
    originals.push_back({at, text.size()});
  }
  return text += rendered;
}

}  // namespace

std::vector<int32_t> Engine::encode_chat(const std::vector<Message>& messages, bool add_generation_prompt) const {
  const Tokenizer& tokenizer = this->tokenizer();
  const std::vector<std::string_view> spellings = control_spellings(tokenizer);
  Placeholders placeholders(messages, tokenizer.data().chat_template);
  std::vector<Message> safe = messages;
  for (Message& message : safe) message.content = without_controls(message.content, spellings, placeholders);
  std::vector<TextRange> plain;
  const std::string text = restored(chat_prompt(safe, add_generation_prompt), placeholders, plain);
  return tokenizer.encode(text, plain);
}

}  // namespace quire
