// From logits to a token. Order, as in the OpenAI-style servers: bias, penalties, temperature, top-k, top-p, min-p.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/context.h"

namespace quire {

struct SampleParams {
  float temperature = 0.0f;  // 0: the largest logit, the lowest id among equals
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;  // tokens less likely than min_p times the likeliest are dropped
};

// logits (V), already biased and penalised; -infinity rules a token out. uniform in [0, 1). Equal logits: the lower id
// counts as likelier. Of the tokens that stay, by id, the one at which the sum of their weights passes uniform * total.
// Error if the largest logit is not finite.
int32_t sample(std::span<const float> logits, const SampleParams& params, double uniform);

// Repetition: logits of tokens in `recent` are divided (positive) or multiplied (negative) by `repetition`.
// Presence and frequency: logit -= presence + frequency * count, for (token, count) in `counts`.
void penalise(std::span<float> logits, std::span<const int32_t> recent, float repetition,
              std::span<const std::pair<int32_t, int32_t>> counts, float presence, float frequency);

// The same for rows of a batch where they lie, so that from a GPU only ids come back. Token ids of a row's changes are
// distinct.
struct LogitChange {
  int32_t token;
  float bias;        // added first
  int32_t repeated;  // 1: then divided or multiplied by the row's repetition penalty
  float minus;       // subtracted last
};
struct SampleRow {
  SampleParams params;
  float repetition;
  int32_t first, count;  // its changes
  double uniform;
};
QUIRE_HD inline float changed(float x, const LogitChange& c, float repetition) {
  const float y = x + c.bias;
  const float z = !c.repeated ? y : y > 0.0f ? y / repetition : y * repetition;
  return z - c.minus;
}
// logits (R, V) f32, changed in place. The ids when everything before on the stream is done; -1 where the largest logit
// is not finite. Fixed-point weights on a GPU: a token is chosen as on the CPU unless the sum passes within 2^-40 of
// it.
std::vector<int32_t> sample_rows(const Context& ctx, const Tensor& logits, std::span<const SampleRow> rows,
                                 std::span<const LogitChange> changes);

// A number in [0, 1) that depends on (seed, step) only: sampling does not depend on what else runs.
QUIRE_HD inline double uniform_at(uint64_t seed, uint64_t step) {
  uint64_t h = seed * 0x9e3779b97f4a7c15u + step * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du;
  for (int i = 0; i < 2; ++i) {  // splitmix64's finaliser, twice
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    h ^= h >> 31;
  }
  return double(h >> 11) * 0x1.0p-53;
}

// log(sum(exp(logits))) over at least one, in double: what to subtract from a logit for its log-probability.
double log_sum_exp(std::span<const float> logits);

}  // namespace quire
