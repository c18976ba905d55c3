#include "engine/sequence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kernels/sample.h"

namespace quire {

namespace {

int32_t sample_token(const Sequence& s, std::span<const float> logits) {
  const SamplerOptions& o = s.request.sampler;
  const SampleParams params{o.temperature, o.top_k, o.top_p, o.min_p};
  const double uniform = uniform_at(o.seed, uint64_t(s.generated()));
  const bool penalties = o.repetition_penalty != 1.0f || o.presence_penalty != 0.0f || o.frequency_penalty != 0.0f;
  if (!penalties && o.logit_bias.empty()) return sample(logits, params, uniform);
  std::vector<float> adjusted(logits.begin(), logits.end());
  for (const auto& [token, bias] : o.logit_bias) adjusted[size_t(token)] += bias;
  const size_t window = std::min(s.tokens.size(), size_t(std::max(0, o.penalty_window)));
  const std::vector<std::pair<int32_t, int32_t>> counts(s.counts.begin(), s.counts.end());
  penalise(adjusted, std::span(s.tokens).last(window), o.repetition_penalty, counts, o.presence_penalty,
           o.frequency_penalty);
  return sample(adjusted, params, uniform);
}

}  // namespace

SampleRow sample_row(const Sequence& s, std::vector<LogitChange>& changes) {
  const SamplerOptions& o = s.request.sampler;
  std::map<int32_t, LogitChange> by_token;
  const auto change = [&](int32_t token) -> LogitChange& {
    return by_token.try_emplace(token, LogitChange{token, 0.0f, 0, 0.0f}).first->second;
  };
  for (const auto& [token, bias] : o.logit_bias) change(token).bias += bias;
  const size_t window = std::min(s.tokens.size(), size_t(std::max(0, o.penalty_window)));
  if (o.repetition_penalty != 1.0f) {
    for (const int32_t token : std::span(s.tokens).last(window)) change(token).repeated = 1;
  }
  if (o.presence_penalty != 0.0f || o.frequency_penalty != 0.0f) {
    for (const auto& [token, count] : s.counts) {
      change(token).minus = o.presence_penalty + o.frequency_penalty * float(count);
    }
  }
  const SampleRow row{{o.temperature, o.top_k, o.top_p, o.min_p},
                      o.repetition_penalty,
                      int32_t(changes.size()),
                      int32_t(by_token.size()),
                      uniform_at(o.seed, uint64_t(s.generated()))};
  for (const auto& [token, c] : by_token) changes.push_back(c);
  return row;
}

bool sampled_on_device(const Sequence& s) {
  const SamplerOptions& o = s.request.sampler;
  if (s.request.top_logprobs >= 0 || s.request.max_tokens == 0 || s.generated() < int64_t(s.request.forced.size())) {
    return false;
  }
  const bool counted = o.presence_penalty != 0.0f || o.frequency_penalty != 0.0f;
  int64_t changes = int64_t(o.logit_bias.size()) + 2;
  if (o.repetition_penalty != 1.0f) changes += o.penalty_window;
  if (counted) changes += int64_t(s.counts.size());
  return changes <= kMaxTokenChanges && (o.repetition_penalty == 1.0f || o.penalty_window <= kMaxPenaltyWindow);
}

void add_join(const Sequence& s, int32_t slot, StepJoins& joins) {
  const SamplerOptions& o = s.request.sampler;
  SlotJoin join;
  join.slot = slot;
  join.first_change = int32_t(joins.changes.size());
  join.first_history = int32_t(joins.history.size());
  SlotState& state = join.state;
  state.token = s.tokens.back();
  state.position = int32_t(s.tokens.size()) - 1;
  state.seed = o.seed;
  state.drawn = uint64_t(s.generated());
  state.params = {o.temperature, o.top_k, o.top_p, o.min_p};
  state.repetition = o.repetition_penalty;
  state.presence = o.presence_penalty;
  state.frequency = o.frequency_penalty;
  state.window = o.repetition_penalty != 1.0f ? o.penalty_window : 0;
  state.seen = int32_t(s.tokens.size());
  std::map<int32_t, TokenChange> by_token;
  const auto change = [&](int32_t token) -> TokenChange& {
    return by_token.try_emplace(token, TokenChange{token, 0.0f, 0, 0}).first->second;
  };
  for (const auto& [token, bias] : o.logit_bias) change(token).bias += bias;
  joins.history.resize(joins.history.size() + size_t(state.window), 0);
  const size_t window = std::min(s.tokens.size(), size_t(state.window));
  for (size_t i = s.tokens.size() - window; i < s.tokens.size(); ++i) {
    joins.history[size_t(join.first_history) + i % size_t(state.window)] = s.tokens[i];
    ++change(s.tokens[i]).recent;
  }
  if (penalises(state)) {
    for (const auto& [token, count] : s.counts) change(token).generated = count;
  }
  state.changes = int32_t(by_token.size());
  for (const auto& [token, c] : by_token) joins.changes.push_back(c);
  joins.slots.push_back(join);
}

void check_sampler(const SamplerOptions& o, int64_t vocab) {
  // Written so that a NaN is out of range.
  check(o.temperature >= 0.0f && std::isfinite(o.temperature), "sampler: temperature {} is not 0 or more",
        o.temperature);
  check(o.top_k >= 0, "sampler: top-k {} is not 0 (off) or more", o.top_k);
  check(o.top_p > 0.0f && o.top_p <= 1.0f, "sampler: top-p {} is not above 0 and at most 1", o.top_p);
  check(o.min_p >= 0.0f && o.min_p <= 1.0f, "sampler: min-p {} is not between 0 and 1", o.min_p);
  check(o.repetition_penalty > 0.0f && std::isfinite(o.repetition_penalty),
        "sampler: repetition penalty {} is not above 0", o.repetition_penalty);
  check(std::isfinite(o.presence_penalty) && std::isfinite(o.frequency_penalty) && o.penalty_window >= 0,
        "sampler: presence penalty {}, frequency penalty {} or their window {} is out of range", o.presence_penalty,
        o.frequency_penalty, o.penalty_window);
  for (const auto& [id, bias] : o.logit_bias) {
    check(id >= 0 && id < vocab, "logit bias for token {}, which is not in the vocabulary of {}", id, vocab);
    check(!std::isnan(bias) && bias < INFINITY,
          "logit bias {} for token {}: -infinity rules it out, +infinity and NaN "
          "mean nothing",
          bias, id);
  }
}

void choose_token(const Sequence& s, std::span<const float> logits, GeneratedToken& out) {
  const size_t n = size_t(s.generated());
  out.token = n < s.request.forced.size() ? s.request.forced[n] : sample_token(s, logits);
  if (s.request.top_logprobs < 0) return;
  out.logprob = float(double(logits[size_t(out.token)]) - log_sum_exp(logits));
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const size_t top = std::min(ids.size(), size_t(s.request.top_logprobs));
  std::partial_sort(ids.begin(), ids.begin() + long(top), ids.end(), [&](int32_t a, int32_t b) {
    return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b;
  });
  for (size_t i = 0; i < top; ++i) {
    out.top.push_back({ids[i], out.logprob + (logits[size_t(ids[i])] - logits[size_t(out.token)])});
  }
}

}  // namespace quire
