#include "kernels/sample.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "kernels/cuda/ops.h"

namespace quire {

namespace {

struct Candidate {
  float logit;
  int32_t token;
};
bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// What a candidate weighs, 1 for the likeliest. In double, so that no temperature overflows.
struct Weigh {
  double peak, temperature;
  double operator()(const Candidate& c) const { return std::exp((double(c.logit) - peak) / temperature); }
};

// Sorts the front of `all` until it holds the top_p share of the total (or everything) and returns its length.
size_t nucleus(std::vector<Candidate>& all, const Weigh& weigh, double total, float top_p) {
  size_t sorted = 0;
  double sum = 0.0;
  for (size_t want = 64; sorted < all.size(); want *= 4) {
    const size_t end = std::min(all.size(), want);
    std::partial_sort(all.begin() + long(sorted), all.begin() + long(end), all.end(), likelier);
    for (; sorted < end; ++sorted) {
      sum += weigh(all[sorted]);
      if (sum >= double(top_p) * total) return sorted + 1;
    }
  }
  return sorted;
}

// The first of the largest; NaN is none of them, except in front.
size_t likeliest(std::span<const float> logits) {
  float lane[16];
  std::fill_n(lane, 16, -INFINITY);
  size_t i = 0;
  for (; i + 16 <= logits.size(); i += 16) {
    for (size_t l = 0; l < 16; ++l) lane[l] = logits[i + l] > lane[l] ? logits[i + l] : lane[l];
  }
  float peak = *std::max_element(lane, lane + 16);
  for (; i < logits.size(); ++i) peak = logits[i] > peak ? logits[i] : peak;
  if (logits[0] != logits[0]) return 0;
  const size_t best = size_t(std::find(logits.begin(), logits.end(), peak) - logits.begin());
  return best < logits.size() ? best : 0;
}

}  // namespace

int32_t sample(std::span<const float> logits, const SampleParams& params, double uniform) {
  check(!logits.empty(), "sample: no logits");
  const size_t best = likeliest(logits);
  const float peak = logits[best];
  check(std::isfinite(peak), "sample: the largest logit is {}; the model's output is not finite", peak);
  if (params.temperature <= 0.0f) return int32_t(best);

  const Weigh weigh{double(peak), double(params.temperature)};
  const double floor = params.min_p > 0.0f
                           ? double(peak) + weigh.temperature * std::min(0.0, std::log(double(params.min_p)))
                           : -HUGE_VAL;
  const auto drop_unlikely = [&](std::vector<Candidate>& list) {
    std::erase_if(list, [&](const Candidate& c) { return double(c.logit) < floor; });
  };
  std::vector<Candidate> all;
  all.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -INFINITY) all.push_back({logits[i], int32_t(i)});  // neither NaN nor ruled out
  }
  // min-p compares with the likeliest token only, so it may go before top-k, but not before top-p, whose share is of
  // all.
  const bool share = params.top_p < 1.0f;
  if (!share) drop_unlikely(all);
  if (params.top_k > 0 && size_t(params.top_k) < all.size()) {
    std::nth_element(all.begin(), all.begin() + params.top_k - 1, all.end(), likelier);
    all.resize(size_t(params.top_k));
  }
  const auto total_of = [&] {
    double total = 0.0;
    for (const Candidate& c : all) total += weigh(c);
    return total;
  };
  if (share) {
    all.resize(nucleus(all, weigh, total_of(), params.top_p));
    drop_unlikely(all);
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  double target = uniform * total_of();
  int32_t last = int32_t(best);  // for what rounding leaves
  for (const Candidate& c : all) {
    const double w = weigh(c);
    target -= w;
    if (target < 0.0) return c.token;
    if (w > 0.0) last = c.token;
  }
  return last;
}

std::vector<int32_t> sample_rows(const Context& ctx, const Tensor& logits, std::span<const SampleRow> rows,
                                 std::span<const LogitChange> changes) {
  check(logits.codec == id<F32> && logits.rows == int64_t(rows.size()) && logits.cols > 0,
        "sample: {} rows for logits {}", rows.size(), describe(logits));
  for (const SampleRow& row : rows) {
    check(row.first >= 0 && row.count >= 0 && size_t(row.first) + size_t(row.count) <= changes.size(),
          "sample: changes [{}, +{}) of {}", row.first, row.count, changes.size());
  }
  std::vector<int32_t> ids(rows.size(), -1);
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda) {
      const Scratch::Scope scope(*ctx.scratch);
      const auto upload = [&](auto list) {
        std::byte* there = ctx.scratch->take_bytes(list.size_bytes());
        ctx.upload(there, list.data(), list.size_bytes());
        return there;
      };
      const auto* plans = reinterpret_cast<const SampleRow*>(upload(rows));
      const auto* all = reinterpret_cast<const LogitChange*>(upload(changes));
      int32_t* out = ctx.scratch->take<int32_t>(int64_t(ids.size()));
      cuda::sample_rows(ctx, logits, plans, all, out);
      cuda::copy_async(ids.data(), out, ids.size() * sizeof(int32_t), ctx.stream);
      cuda::synchronize(ctx.stream);
      return ids;
    }
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    float* x = logits.data.row<float>(int64_t(r));
    for (const LogitChange& c : changes.subspan(size_t(rows[r].first), size_t(rows[r].count))) {
      x[c.token] = changed(x[c.token], c, rows[r].repetition);
    }
    const std::span<const float> row(x, size_t(logits.cols));
    if (std::isfinite(*std::max_element(row.begin(), row.end()))) ids[r] = sample(row, rows[r].params, rows[r].uniform);
  }
  return ids;
}

void penalise(std::span<float> logits, std::span<const int32_t> recent, float repetition,
              std::span<const std::pair<int32_t, int32_t>> counts, float presence, float frequency) {
  if (repetition != 1.0f) {
    for (const int32_t token : std::unordered_set<int32_t>(recent.begin(), recent.end())) {
      float& x = logits[size_t(token)];
      x = x > 0.0f ? x / repetition : x * repetition;
    }
  }
  if (presence == 0.0f && frequency == 0.0f) return;
  for (const auto& [token, count] : counts) logits[size_t(token)] -= presence + frequency * float(count);
}

double log_sum_exp(std::span<const float> logits) {
  const double peak = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (const float x : logits) total += std::exp(double(x) - peak);
  return peak + std::log(total);
}

}  // namespace quire
