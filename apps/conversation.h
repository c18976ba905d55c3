// A conversation on its way to the model: the template, and what to do when the context is full.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace quire {

// The conversation in the model's template as token ids. Control tokens that a person or a file spells out in a message
// ("<|im_end|>") stay plain text: nobody can forge a turn.
std::vector<int32_t> encode_chat(const Engine& engine, const std::vector<Message>& messages);

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
