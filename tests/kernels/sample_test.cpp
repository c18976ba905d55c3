// Sampling: the set each rule keeps, the distribution over it, ties, and what must not depend on anything else.
#include "kernels/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(p > 0.0 ? float(std::log(p)) : -kInf);
  return logits;
}

// The share of each token when `uniform` runs over a fine grid.
std::map<int32_t, double> shares(const std::vector<float>& logits, const SampleParams& params, int grid = 20000) {
  std::map<int32_t, double> share;
  for (int i = 0; i < grid; ++i) share[sample(logits, params, (double(i) + 0.5) / grid)] += 1.0 / grid;
  return share;
}

std::set<int32_t> kept(const std::vector<float>& logits, const SampleParams& params) {
  std::set<int32_t> tokens;
  for (const auto& [token, share] : shares(logits, params)) tokens.insert(token);
  return tokens;
}

void expect_shares(const std::map<int32_t, double>& got, const std::map<int32_t, double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [token, p] : expected) {
    ASSERT_TRUE(got.count(token)) << token;
    EXPECT_NEAR(got.at(token), p, 2.0 / 20000 + 1e-6) << token;  // a grid point at either end of its interval
  }
}

using Set = std::set<int32_t>;

TEST(Sample, GreedyTakesTheLargestAndTheLowestOfEquals) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2}, {}, 0.99), 1);
  EXPECT_EQ(sample(std::vector<float>{1, 3, 3, 3}, {}, 0.99), 1);
  EXPECT_EQ(sample(std::vector<float>{-kInf, -5}, {}, 0.0), 1);
  EXPECT_EQ(sample(std::vector<float>{7}, {}, 0.5), 0);
}

TEST(Sample, FollowsTheSoftmax) {
  const std::vector<float> logits = logits_of({0.5, 0.25, 0.15, 0.1});
  expect_shares(shares(logits, {1.0f}), {{0, 0.5}, {1, 0.25}, {2, 0.15}, {3, 0.1}});
  // At temperature 2 probabilities are as their roots, at 1/2 as their squares.
  const double roots = std::sqrt(0.5) + 0.5 + std::sqrt(0.15) + std::sqrt(0.1);
  expect_shares(
      shares(logits, {2.0f}),
      {{0, std::sqrt(0.5) / roots}, {1, 0.5 / roots}, {2, std::sqrt(0.15) / roots}, {3, std::sqrt(0.1) / roots}});
  const double squares = 0.25 + 0.0625 + 0.0225 + 0.01;
  expect_shares(shares(logits, {0.5f}),
                {{0, 0.25 / squares}, {1, 0.0625 / squares}, {2, 0.0225 / squares}, {3, 0.01 / squares}});
}

TEST(Sample, ShiftedLogitsAreTheSame) {
  Rng rng(1);
  const std::vector<float> logits = normal(rng, 50);
  std::vector<float> shifted = logits;
  for (float& x : shifted) x += 64.0f;
  for (float& x : shifted) x -= 64.0f;  // what the first addition rounded away is gone from both
  std::vector<float> high = shifted;
  for (float& x : high) x += 64.0f;
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(sample(shifted, {0.7f, 20, 0.9f, 0.01f}, i / 200.0), sample(high, {0.7f, 20, 0.9f, 0.01f}, i / 200.0));
  }
}

TEST(Sample, TopK) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(kept(logits, {1.0f, 1}), (Set{1}));
  EXPECT_EQ(kept(logits, {1.0f, 3}), (Set{1, 2, 3}));
  EXPECT_EQ(kept(logits, {1.0f, 9}), (Set{0, 1, 2, 3}));
  expect_shares(shares(logits, {1.0f, 2}), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  EXPECT_EQ(kept({2, 5, 5, 5, 5}, {1.0f, 2}), (Set{1, 2})) << "the lowest ids among equals";
}

TEST(Sample, TopP) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.39f}), (Set{1}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.41f}), (Set{1, 3}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.89f}), (Set{1, 2, 3}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.91f}), (Set{0, 1, 2, 3}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 1e-9f}), (Set{1})) << "the likeliest is always kept";
  EXPECT_EQ(kept(logits, {1.0f, 2, 0.58f}), (Set{1, 3})) << "the share is of what top-k left: 4/7 < 0.58";
  EXPECT_EQ(kept(logits, {1.0f, 2, 0.57f}), (Set{1}));
}

TEST(Sample, TopPOverManyTokens) {
  Rng rng(2);
  const std::vector<float> logits = normal(rng, 3000, 1.5f);
  std::vector<std::pair<float, int32_t>> order;
  double total = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    order.emplace_back(-logits[i], int32_t(i));
    total += std::exp(double(logits[i]));
  }
  std::sort(order.begin(), order.end());
  for (const double p : {0.05, 0.3, 0.9}) {
    std::vector<std::pair<int32_t, double>> expected;  // token and weight
    double sum = 0.0;
    for (size_t i = 0; sum < p * total; ++i) {
      expected.emplace_back(order[i].second, std::exp(-double(order[i].first)));
      sum += expected.back().second;
    }
    ASSERT_GT(expected.size(), 1u);
    std::sort(expected.begin(), expected.end());  // what stays is walked by id
    double before = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto [token, weight] = expected[i];
      if (i % 37 == 0 || i + 1 == expected.size()) {
        EXPECT_EQ(sample(logits, {1.0f, 0, float(p)}, (before + 0.5 * weight) / sum), token) << p << ", place " << i;
      }
      before += weight;
    }
  }
}

TEST(Sample, MinP) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(kept(logits, {1.0f, 0, 1.0f, 0.3f}), (Set{1, 2, 3}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 1.0f, 0.6f}), (Set{1, 3}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 1.0f, 0.9f}), (Set{1}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 1.0f, 5.0f}), (Set{1})) << "more than 1 is 1";
  // After temperature: at 2, 0.1 is half as likely as 0.4.
  EXPECT_EQ(kept(logits, {2.0f, 0, 1.0f, 0.49f}), (Set{0, 1, 2, 3}));
  EXPECT_EQ(kept(logits, {2.0f, 0, 1.0f, 0.51f}), (Set{1, 2, 3}));
}

// top-p's share is of the whole, min-p goes after it: the other order would keep token 0 alone here.
TEST(Sample, MinPComesAfterTopP) {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.1, 0.1});
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.6f, 0.5f}), (Set{0, 1}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.95f, 0.5f}), (Set{0, 1}));
  EXPECT_EQ(kept(logits, {1.0f, 0, 0.95f, 0.1f}), (Set{0, 1, 2, 3}));
}

TEST(Sample, RuledOutTokensNeverCome) {
  std::vector<float> logits = logits_of({0.0, 0.5, 0.0, 0.5, 0.0});
  for (const SampleParams& params : {SampleParams{1.0f}, SampleParams{1.0f, 4}, SampleParams{1.0f, 0, 0.99f}}) {
    EXPECT_EQ(kept(logits, params), (Set{1, 3}));
    EXPECT_EQ(sample(logits, params, std::nextafter(1.0, 0.0)), 3);
  }
  logits[4] = std::nanf("");
  EXPECT_EQ(kept(logits, {1.0f}), (Set{1, 3}));
}

TEST(Sample, ExtremeTemperatures) {
  const std::vector<float> logits = {1.0f, 2.0f, 1.5f};
  for (const float t : {1e-45f, 1e-38f, 1e-3f}) {
    for (const double u : {0.0, 0.5, 0.999999}) EXPECT_EQ(sample(logits, {t}, u), 1) << t;
  }
  const std::map<int32_t, double> flat = shares(logits, {1e30f});
  expect_shares(flat, {{0, 1.0 / 3}, {1, 1.0 / 3}, {2, 1.0 / 3}});
  EXPECT_EQ(sample(std::vector<float>{-3e38f, 3e38f}, {1.0f}, 0.9999), 1);
}

TEST(Sample, Refusals) {
  expect_error([] { sample({}, {}, 0.0); }, {"sample", "no logits"});
  expect_error([] { sample(std::vector<float>{std::nanf(""), 1.0f}, {}, 0.0); }, {"sample", "not finite"});
  expect_error([] { sample(std::vector<float>{1.0f, kInf}, {1.0f}, 0.0); }, {"sample", "not finite"});
  expect_error([] { sample(std::vector<float>{-kInf, -kInf}, {1.0f}, 0.0); }, {"sample", "not finite"});
}

TEST(Penalise, Repetition) {
  std::vector<float> x = {2.0f, -2.0f, 0.0f, 5.0f};
  const std::vector<int32_t> recent = {1, 0, 1, 1, 2};
  penalise(x, recent, 2.0f, {}, 0.0f, 0.0f);
  EXPECT_EQ(x, (std::vector<float>{1.0f, -4.0f, 0.0f, 5.0f})) << "once a token, however often it came";
  penalise(x, recent, 1.0f, {}, 0.0f, 0.0f);
  EXPECT_EQ(x, (std::vector<float>{1.0f, -4.0f, 0.0f, 5.0f}));
}

TEST(Penalise, PresenceAndFrequency) {
  std::vector<float> x = {2.0f, -2.0f, 0.0f, 5.0f};
  const std::vector<std::pair<int32_t, int32_t>> counts = {{0, 1}, {3, 4}};
  penalise(x, {}, 1.0f, counts, 0.5f, 0.25f);
  EXPECT_EQ(x, (std::vector<float>{1.25f, -2.0f, 0.0f, 3.5f}));
}

TEST(UniformAt, DependsOnSeedAndStepAlone) {
  EXPECT_EQ(uniform_at(3, 5), uniform_at(3, 5));
  std::set<double> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint64_t step = 0; step < 100; ++step) seen.insert(uniform_at(seed, step));
  }
  EXPECT_EQ(seen.size(), 10000u);
}

TEST(UniformAt, IsUniform) {
  // Along steps, and along seeds: 64 bins of 64000 draws; chi-squared with 63 degrees stays below 130 but for 1 in 10^6
  // times.
  for (const bool along_steps : {true, false}) {
    std::vector<int> bins(64);
    double previous = 0.5, products = 0.0;
    for (uint64_t i = 0; i < 64000; ++i) {
      const double u = along_steps ? uniform_at(42, i) : uniform_at(i, 7);
      ASSERT_GE(u, 0.0);
      ASSERT_LT(u, 1.0);
      ++bins[size_t(u * 64.0)];
      products += (u - 0.5) * (previous - 0.5);
      previous = u;
    }
    double chi = 0.0;
    for (const int n : bins) chi += double(n - 1000) * double(n - 1000) / 1000.0;
    EXPECT_LT(chi, 130.0);
    EXPECT_LT(std::fabs(products), 5.0 * std::sqrt(64000.0) / 12.0)
        << "neighbours are correlated";  // five standard deviations
  }
}

TEST(LogSoftmax, SumsToOneAndStaysFinite) {
  Rng rng(3);
  for (const float middle : {0.0f, 3e4f, -3e4f}) {
    const std::vector<float> logits = normal(rng, 1000, 3.0f, middle);
    double total = 0.0;
    for (int32_t i = 0; i < 1000; ++i) total += std::exp(double(logits[size_t(i)]) - log_sum_exp(logits));
    EXPECT_NEAR(total, 1.0, 1e-12 * 1000);
  }
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1.0f, 1.0f}), 1.0 + std::log(2.0), 1e-15);
  EXPECT_EQ(log_sum_exp(std::vector<float>{3e38f, -3e38f}), double(3e38f)) << "no overflow";
  EXPECT_EQ(log_sum_exp(std::vector<float>{0.0f, -kInf}), 0.0) << "a token that is ruled out weighs nothing";
}

// Rows of a batch, with bias and penalties: on the CPU what sample() and penalise() give, on a GPU the same ids.
TEST(Sample, RowsOnEveryDevice) {
  Machines machines;
  Rng rng(12);
  for (const int64_t vocab : {1, 5, 1000, 50000}) {
    constexpr int64_t kRows = 24;
    std::vector<float> logits = normal(rng, kRows * vocab, 3.0f), adjusted;
    std::vector<SampleRow> rows;
    std::vector<LogitChange> changes;
    std::vector<int32_t> expected;
    for (int64_t r = 0; r < kRows; ++r) {
      SampleRow row{{}, 1.0f, int32_t(changes.size()), 0, uniform_at(7, uint64_t(r))};
      row.params.temperature = r % 4 == 0 ? 0.0f : r % 4 == 1 ? 0.3f : 1.5f;
      if (r % 2 == 1) row.params.top_k = int32_t(between(rng, 1, 60));
      if (r % 3 == 1) row.params.top_p = 0.8f;
      if (r % 5 == 1) row.params.min_p = 0.05f;
      float* x = logits.data() + r * vocab;
      if (r == 8) std::fill_n(x, vocab, 2.0f);  // equals: the lower ids are likelier
      if (vocab > 4 && r % 2 == 0) {
        x[1] = -kInf;
        row.repetition = 1.3f;
        row.count = 3;
        changes.insert(changes.end(), {{0, 0.5f, 1, 0.0f}, {3, 0.0f, 1, 0.7f}, {4, -1.0f, 0, 0.2f}});
      }
      std::vector<float> own(x, x + vocab);
      for (int32_t c = row.first; c < row.first + row.count; ++c)
        own[size_t(changes[size_t(c)].token)] += changes[size_t(c)].bias;
      if (row.count > 0) {
        penalise(own, std::vector<int32_t>{0, 3, 3}, row.repetition, {}, 0.0f, 0.0f);
        for (const auto& [token, minus] : {std::pair{3, 0.7f}, {4, 0.2f}}) own[size_t(token)] -= minus;
      }
      expected.push_back(sample(own, row.params, row.uniform));
      rows.push_back(row);
    }
    std::vector<float> on_gpu = logits;
    EXPECT_EQ(sample_rows(machines.context(), f32_view(logits, kRows, vocab), rows, changes), expected) << vocab;
    if (!gpu_is_here()) continue;
    const Context ctx = machines.gpu();
    OnGpu gpu(ctx);
    EXPECT_EQ(sample_rows(ctx, gpu.in(f32_view(on_gpu, kRows, vocab)), rows, changes), expected) << vocab;
    std::vector<float> bad(size_t(vocab), -kInf);
    const SampleRow plain{{1.0f}, 1.0f, 0, 0, 0.5};
    EXPECT_EQ(sample_rows(ctx, gpu.in(f32_view(bad, 1, vocab)), std::span(&plain, 1), {}), std::vector<int32_t>{-1});
  }
}

}  // namespace
}  // namespace quire
