#include "apps/score.h"

#include "apps/interrupt.h"
#include "base/error.h"
#include "kernels/sample.h"

namespace quire {

Request scoring_request(std::vector<int32_t> tokens, int64_t from,
                        std::function<void(int64_t, std::span<const float>)> on_logits) {
  check(int64_t(tokens.size()) > from + 1, "scoring: {} tokens, and the first to score is number {}", tokens.size(),
        from + 1);
  tokens.pop_back();  // nothing follows it
  Request request;
  request.prompt = std::move(tokens);
  request.max_tokens = 0;
  request.logits_from = from;
  request.on_logits = std::move(on_logits);
  return request;
}

void run_all(Engine& engine) {
  while (engine.busy()) {
    if (interrupted()) throw Interrupted();
    for (const Event& event : engine.step()) check(event.finish != Finish::error, "{}", event.error);
  }
}

Score score_continuation(Engine& engine, std::vector<int32_t> prompt, const std::vector<int32_t>& continuation) {
  check(!prompt.empty(), "a continuation is scored after a prompt of at least one token");
  Score score;
  if (continuation.empty()) return score;
  const int64_t from = int64_t(prompt.size()) - 1;
  std::vector<int32_t> tokens = std::move(prompt);
  tokens.insert(tokens.end(), continuation.begin(), continuation.end());
  score.logprobs.resize(continuation.size());
  auto on_logits = [&](int64_t position, std::span<const float> logits) {
    const size_t i = size_t(position - from);
    score.logprobs.at(i) = double(logits[size_t(continuation[i])]) - log_sum_exp(logits);
  };
  engine.submit(scoring_request(tokens, from, on_logits));
  run_all(engine);
  for (const double logprob : score.logprobs) score.nll -= logprob;
  return score;
}

}  // namespace quire
