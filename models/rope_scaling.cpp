#include "models/rope_scaling.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/rope.h"

namespace quire {

namespace {

constexpr double kPi = 3.14159265358979323846;

void scale_llama3(const RopeScaling& s, std::vector<float>& frequencies) {
  const double original = double(s.original_context);
  for (float& f : frequencies) {
    const double turns = original * double(f) / (2 * kPi);  // over the original context
    if (turns > s.high_freq_factor) continue;
    const double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    const double kept = turns < s.low_freq_factor ? 0.0 : smooth;
    f = float((1 - kept) * double(f) / s.factor + kept * double(f));
  }
}

// The dim, not rounded, whose pair turns so often over the original context.
double dim_of_turns(const RopeScaling& s, double turns, int64_t rope_dim, double theta) {
  return double(rope_dim) * std::log(double(s.original_context) / (turns * 2 * kPi)) / (2 * std::log(theta));
}

void scale_yarn(const RopeScaling& s, int64_t rope_dim, double theta, std::vector<float>& frequencies) {
  double low = dim_of_turns(s, s.beta_fast, rope_dim, theta), high = dim_of_turns(s, s.beta_slow, rope_dim, theta);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, double(rope_dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double stretched = std::clamp((double(i) - low) / (high - low), 0.0, 1.0);
    const double f = frequencies[i];
    frequencies[i] = float(f / s.factor * stretched + f * (1 - stretched));
  }
}

}  // namespace

std::vector<float> scaled_rope_frequencies(const RopeScaling& s, int64_t rope_dim, double theta, int64_t context) {
  std::vector<float> frequencies = rope_frequencies(rope_dim, theta);
  switch (s.kind) {
    case RopeScaling::Kind::none:
      break;
    case RopeScaling::Kind::linear:
      for (float& f : frequencies) f = float(double(f) / s.factor);
      break;
    case RopeScaling::Kind::llama3:
      scale_llama3(s, frequencies);
      break;
    case RopeScaling::Kind::yarn:
      scale_yarn(s, rope_dim, theta, frequencies);
      break;
    case RopeScaling::Kind::factors: {
      const std::vector<float>& factors = context > s.original_context ? s.long_factors : s.short_factors;
      check(factors.size() == frequencies.size(), "rope: {} factors for {} pairs of dims", factors.size(),
            frequencies.size());
      for (size_t i = 0; i < factors.size(); ++i) frequencies[i] = frequencies[i] / factors[i];
      break;
    }
  }
  return frequencies;
}

double yarn_amplitude(double factor, double scale) { return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0; }

double longrope_amplitude(double factor, int64_t original_context) {
  return factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(double(original_context)));
}

bool has_longer_rope(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  return s.kind == RopeScaling::Kind::factors && s.original_context < c.context && s.short_factors != s.long_factors;
}

int64_t usual_context(const ModelConfig& c) { return has_longer_rope(c) ? c.rope_scaling.original_context : c.context; }

}  // namespace quire
