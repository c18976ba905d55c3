// From logits to a token. Order, as in the OpenAI-style servers: bias, penalties, temperature, top-k, top-p, min-p.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace quire {

struct SampleParams {
  float temperature = 0.0f;  // 0: the largest logit, the lowest id among equals
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;  // tokens less likely than min_p times the likeliest are dropped
};

// logits (V), already biased and penalised; -infinity rules a token out. uniform in [0, 1). Equal logits: the lower id
// counts as likelier. Error if the largest logit is not finite.
int32_t sample(std::span<const float> logits, const SampleParams& params, double uniform);

// Repetition: logits of tokens in `recent` are divided (positive) or multiplied (negative) by `repetition`.
// Presence and frequency: logit -= presence + frequency * count, for (token, count) in `counts`.
void penalise(std::span<float> logits, std::span<const int32_t> recent, float repetition,
              std::span<const std::pair<int32_t, int32_t>> counts, float presence, float frequency);

// A number in [0, 1) that depends on (seed, step) only: sampling does not depend on what else runs.
double uniform_at(uint64_t seed, uint64_t step);

// log of softmax(logits) at `token`, in double.
double log_softmax_at(std::span<const float> logits, int32_t token);

}  // namespace quire
