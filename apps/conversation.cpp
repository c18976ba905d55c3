#include "apps/conversation.h"

#include <algorithm>

#include "base/error.h"

namespace quire {

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
    fitted.tokens = engine.encode_chat(messages);
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
