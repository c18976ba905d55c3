// How well a model predicts a text that is given: one forward pass, no sampling.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace quire {

// A request that evaluates `tokens` and calls on_logits(p, logits (V)) with what the model says follows token p, for
// every p >= from but the last.
Request scoring_request(std::vector<int32_t> tokens, int64_t from,
                        std::function<void(int64_t, std::span<const float>)> on_logits);

// Steps until the engine is idle. Error if a request failed; Interrupted on Ctrl-C.
void run_all(Engine& engine);

struct Score {
  double nll = 0.0;  // nats, summed
  std::vector<double> logprobs;
};
Score score_continuation(Engine& engine, std::vector<int32_t> prompt, const std::vector<int32_t>& continuation);

}  // namespace quire
