#include "apps/answer.h"

#include "apps/interrupt.h"

namespace quire {

namespace {

double rate(int64_t tokens, double seconds) { return seconds > 0 ? double(tokens) / seconds : 0.0; }

// What the first token's pass computed belongs to the prompt; the rest is generation.
int64_t generation_steps(const Usage& usage) { return usage.generated_tokens > 0 ? usage.generated_tokens - 1 : 0; }

}  // namespace

std::string token_text(const Engine& engine, int32_t token) {
  if (token >= engine.tokenizer().vocab_size()) return {};  // a row of the embedding that no token has
  return std::string(engine.tokenizer().bytes(token, true));
}

namespace {

nlohmann::json logprobs_json(const Engine& engine, const Answer& answer) {
  auto list = nlohmann::json::array();
  for (const GeneratedToken& generated : answer.tokens) {
    auto top = nlohmann::json::array();
    for (const TokenLogprob& other : generated.top)
      top.push_back({{"token", other.token}, {"text", token_text(engine, other.token)}, {"logprob", other.logprob}});
    list.push_back({{"token", generated.token},
                    {"text", token_text(engine, generated.token)},
                    {"logprob", generated.logprob},
                    {"top", top}});
  }
  return list;
}

}  // namespace

Request make_request(const GenerationSettings& settings, std::vector<int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = settings.max_tokens;
  request.sampler = settings.sampler;
  request.stop = settings.stop;
  return request;
}

Answer run_request(Engine& engine, Request request, const std::function<void(std::string_view)>& on_text,
                   ProgressBar* bar) {
  Answer answer;
  const int64_t prompt = int64_t(request.prompt.size());
  if (!stderr_is_terminal()) bar = nullptr;
  const int64_t id = engine.submit(std::move(request));
  // If showing the text fails, the request must not run on beside the next one.
  struct CancelAtExit {
    Engine& engine;
    int64_t id;
    ~CancelAtExit() { engine.cancel(id); }
  } cancel_at_exit{engine, id};
  bool cancelled = false;
  while (engine.busy()) {
    if (interrupted() && !cancelled) {
      cancelled = true;
      engine.cancel(id);
    }
    for (Event& event : engine.step()) {
      if (event.request != id) continue;
      if (bar) bar->clear();
      check(event.finish != Finish::error, "{}", event.error);
      if (!event.text.empty()) {
        answer.text += event.text;
        if (on_text) on_text(event.text);
      }
      for (GeneratedToken& token : event.tokens) answer.tokens.push_back(std::move(token));
      if (event.finish != Finish::none) {
        answer.finish = event.finish;
        answer.usage = event.usage;
      }
    }
    const int64_t read = bar ? engine.progress(id) : 0;
    if (read > 0 && read < prompt) bar->update("reading", read, prompt);
  }
  if (answer.finish == Finish::none) answer.finish = Finish::cancelled;
  return answer;
}

nlohmann::json engine_json(const Engine& engine) {
  return {{"model", engine.config().name},
          {"scheme", engine.scheme().name.empty() ? "own" : engine.scheme().name},
          {"kv", engine.scheme().kv.name}};
}

nlohmann::json answer_json(const Engine& engine, const Answer& answer, bool logprobs) {
  auto ids = nlohmann::json::array();
  for (const GeneratedToken& generated : answer.tokens) ids.push_back(generated.token);
  const Usage& u = answer.usage;
  nlohmann::json object = engine_json(engine);
  object["text"] = answer.text;
  object["tokens"] = std::move(ids);
  object["prompt_tokens"] = u.prompt_tokens;
  object["finish"] = to_string(answer.finish);
  object["usage"] = {
      {"prompt_tokens", u.prompt_tokens},
      {"cached_tokens", u.cached_tokens},
      {"generated_tokens", u.generated_tokens},
      {"prompt_seconds", u.prompt_seconds},
      {"generation_seconds", u.generation_seconds},
      {"prompt_tokens_per_second", rate(u.prompt_tokens - u.cached_tokens, u.prompt_seconds)},
      {"generation_tokens_per_second", rate(generation_steps(u), u.generation_seconds)},
  };
  if (logprobs) object["logprobs"] = logprobs_json(engine, answer);
  return object;
}

void print_json(const nlohmann::json& object) {
  // A text that ends in the middle of a character (max-tokens) must still be valid JSON.
  write_out(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

std::string stats_line(const Engine& engine, const Usage& usage) {
  const int64_t computed = usage.prompt_tokens - usage.cached_tokens;
  const std::string reused = usage.cached_tokens > 0 ? fmt::format(" (+{} reused)", usage.cached_tokens) : "";
  return fmt::format("[prompt {} tokens{} {:.1f} t/s | answer {} tokens {:.1f} t/s | cache {} of {} tokens]", computed,
                     reused, rate(computed, usage.prompt_seconds), usage.generated_tokens,
                     rate(generation_steps(usage), usage.generation_seconds), engine.cached_tokens(),
                     engine.memory().cache_tokens);
}

}  // namespace quire
