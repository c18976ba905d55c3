// A conversation on its way to the model: what to do when the context is full.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace quire {

// For --help and /help.
inline constexpr const char* kContextRule =
    "When the conversation outgrows the context, the oldest questions go, with their answers, until it fits with room "
    "for\n"
    "an answer (--max-tokens, else 256 tokens, at most a quarter of the context); the chat says so. The system message "
    "and\n"
    "the newest message stay; a message that does not fit alone is refused. --context and --memory-limit set the size.";

struct FittedPrompt {
  std::vector<int32_t> tokens;
  int64_t dropped = 0;  // messages left out at the beginning
};

// The rule for a full context: the system message and the newest message stay; the oldest turns go, whole (a question
// with its answer), until the prompt and room for an answer fit. `room` is max_tokens if that is set, else 256 tokens,
// and at most a quarter of the limit. Error if the newest message alone does not fit.
FittedPrompt fit_chat(const Engine& engine, const std::optional<std::string>& system, const std::vector<Message>& turns,
                      int64_t max_tokens);

int64_t token_limit(const Engine& engine);  // the context, or what the cache holds if that is less

}  // namespace quire
