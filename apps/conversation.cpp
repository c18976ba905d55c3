#include "apps/conversation.h"

#include <algorithm>

namespace quire {

namespace {

// Text that a template passes through untouched and no message holds; stands for a spelled-out control token meanwhile.
struct Placeholders {
  std::string open = "\uE000", close = "\uE001";
  std::vector<std::string> originals;

  explicit Placeholders(const std::vector<Message>& messages) {
    const auto used = [&] {
      return std::any_of(messages.begin(), messages.end(),
                         [&](const Message& m) { return m.content.find(open) != std::string::npos; });
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

// Appends the ids of one piece. A beginning-of-text token that encode() adds belongs at the very front only, and once:
// most templates spell it out themselves.
void append(const Tokenizer& tokenizer, std::string_view piece, bool parse_special, std::vector<int32_t>& ids) {
  if (piece.empty()) return;
  const std::vector<int32_t> more = tokenizer.encode(piece, parse_special);
  const int32_t bos = tokenizer.data().bos;
  size_t from = 0;
  if (tokenizer.data().add_bos && !more.empty() && more[0] == bos) {
    if (!ids.empty() || (more.size() > 1 && more[1] == bos)) from = 1;
  }
  ids.insert(ids.end(), more.begin() + int64_t(from), more.end());
}

}  // namespace

std::vector<int32_t> encode_chat(const Engine& engine, const std::vector<Message>& messages) {
  const Tokenizer& tokenizer = engine.tokenizer();
  const std::vector<std::string_view> spellings = control_spellings(tokenizer);
  Placeholders placeholders(messages);
  std::vector<Message> safe = messages;
  for (Message& message : safe) message.content = without_controls(message.content, spellings, placeholders);
  const std::string rendered = engine.chat_prompt(safe);

  std::vector<int32_t> ids;
  size_t at = 0;
  while (!placeholders.originals.empty()) {
    const size_t begin = rendered.find(placeholders.open, at);
    if (begin == std::string::npos) break;
    const size_t number = begin + placeholders.open.size(), end = rendered.find(placeholders.close, number);
    check(end != std::string::npos, "the chat template took a message apart");
    append(tokenizer, std::string_view(rendered).substr(at, begin - at), true, ids);
    const size_t index = std::stoul(rendered.substr(number, end - number));
    append(tokenizer, placeholders.originals.at(index), false, ids);
    at = end + placeholders.close.size();
  }
  append(tokenizer, std::string_view(rendered).substr(at), true, ids);
  return ids;
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
