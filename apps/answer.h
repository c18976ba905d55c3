// One request run to its end, and how its result is shown.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/options.h"

namespace quire {

struct Answer {
  std::string text;
  std::vector<GeneratedToken> tokens;
  Finish finish = Finish::none;
  Usage usage;
};

// Steps the engine until the request is done. on_text gets the text as it comes, whole UTF-8 sequences. Ctrl-C cancels:
// the answer so far comes back with Finish::cancelled. Error if the request failed. bar, if not null, shows how a
// prompt of several steps is read, on a terminal.
Answer run_request(Engine& engine, Request request, const std::function<void(std::string_view)>& on_text,
                   ProgressBar* bar = nullptr);

Request make_request(const GenerationSettings& settings, std::vector<int32_t> prompt);

std::string token_text(const Engine& engine, int32_t token);  // its bytes; empty for ids the tokenizer does not have

// `text`, `tokens` (ids), `prompt_tokens`, `finish`, `usage`, and `logprobs` if they were asked for.
nlohmann::json answer_json(const Engine& engine, const Answer& answer, bool logprobs);
nlohmann::json engine_json(const Engine& engine);  // `model`, `scheme`, `kv`: what every result should name
void print_json(const nlohmann::json& object);

// "[prompt 35 tokens 1200 t/s | answer 120 tokens 95 t/s | cache 155 of 8192]"
std::string stats_line(const Engine& engine, const Usage& usage);

}  // namespace quire
