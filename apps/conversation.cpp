#include "apps/conversation.h"

#include <algorithm>
#include <charconv>

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

std::vector<int32_t> encode_chat(const Engine& engine, const std::vector<Message>& messages) {
  const Tokenizer& tokenizer = engine.tokenizer();
  const std::vector<std::string_view> spellings = control_spellings(tokenizer);
  Placeholders placeholders(messages, tokenizer.data().chat_template);
  std::vector<Message> safe = messages;
  for (Message& message : safe) message.content = without_controls(message.content, spellings, placeholders);
  std::vector<TextRange> plain;
  const std::string text = restored(engine.chat_prompt(safe), placeholders, plain);
  return tokenizer.encode(text, plain);
}

int64_t token_limit(const Engine& engine) {
  const int64_t cache = engine.memory().cache_tokens;
  return cache > 0 ? std::min(engine.context(), cache) : engine.context();
}

FittedPrompt fit_chat(const Engine& engine, const std::optional<std::string>& system, const std::vector<Message>& turns,
                      int64_t max_tokens) {
  constexpr int64_t kRoom = 256;
  const int64_t limit = token_limit(engine);
  const int64_t room = std::max<int64_t>(1, std::min(max_tokens >= 0 ? max_tokens : kRoom, limit / 4));
  FittedPrompt fitted;
  for (;;) {
    std::vector<Message> messages;
    if (system) messages.push_back({"system", *system});
    messages.insert(messages.end(), turns.begin() + fitted.dropped, turns.end());
    fitted.tokens = encode_chat(engine, messages);
    const int64_t size = int64_t(fitted.tokens.size());
    if (size + room <= limit) return fitted;
    // Drop up to the next question.
    int64_t next = fitted.dropped + 1;
    while (next < int64_t(turns.size()) && turns[size_t(next)].role != "user") ++next;
    if (next >= int64_t(turns.size())) {
      check(size < limit,
            "the message takes {} tokens with its template, and the context holds {}; a larger --context "
            "(the model allows {}) or --memory-limit, or a shorter message, would do",
            size, limit, engine.config().context);
      return fitted;  // no room as large as one would like, but an answer can begin
    }
    fitted.dropped = next;
  }
}

}  // namespace quire
