#include "kernels/rope.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

class Rope : public testing::Test {
 protected:
  Machines machines_;
  Rng rng_{7};

  void run(const Context& cpu, const Tensor& x, int64_t heads, int64_t head_dim, const std::vector<int32_t>& positions,
           RopeTable& table) {
    const auto op = [&](const Context& ctx, const std::vector<Tensor>&, const Tensor& out) {
      if (ctx.device == Device::cpu) return rope(ctx, out, heads, head_dim, positions.data(), table);
      OnGpu gpu(ctx);
      table.upload(ctx.stream);
      rope(ctx, out, heads, head_dim, gpu.in(positions), table);
      if constexpr (kCuda) cuda::synchronize(ctx.stream);
    };
    on_every_device(machines_, cpu, {}, x, op, true);
  }

  void near_the_real_rotation(int64_t heads, int64_t head_dim, int64_t rope_dim, double theta,
                              std::vector<int32_t> positions) {
    const int64_t tokens = int64_t(positions.size()), extra = 5, cols = heads * head_dim + extra, half = rope_dim / 2;
    RopeTable table(*std::max_element(positions.begin(), positions.end()) + 1, rope_dim, theta);
    const std::vector<float> x = normal(rng_, tokens * cols);
    std::vector<float> y = x;
    run(machines_.context(), f32_view(y, tokens, cols), heads, head_dim, positions, table);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        const size_t at = size_t(t * cols + c);
        const int64_t d = c % head_dim;
        if (c >= heads * head_dim || d >= rope_dim) {
          ASSERT_EQ(y[at], x[at]) << "column " << c << " is not rotated";
          continue;
        }
        const int64_t i = d % half;
        const double angle = double(positions[size_t(t)]) * std::pow(theta, -2.0 * double(i) / double(rope_dim));
        const size_t low = size_t(t * cols + c - d + i), high = low + size_t(half);
        const double a = x[low], b = x[high];
        const double exact =
            d < half ? a * std::cos(angle) - b * std::sin(angle) : b * std::cos(angle) + a * std::sin(angle);
        // Frequency and angle are rounded to f32, cos and sin too; then two products and a difference.
        const double bound = (std::fabs(a) + std::fabs(b)) * (2.0 * angle + 4.0) * 0x1.0p-24 * 1.01;
        ASSERT_NEAR(double(y[at]), exact, bound) << "position " << positions[size_t(t)] << ", column " << c;
      }
    }
  }
};

TEST_F(Rope, NearTheRealRotation) {
  near_the_real_rotation(3, 64, 64, 10000.0, {0, 1, 2, 3, 50, 511, 511, 4});
  near_the_real_rotation(2, 16, 16, 100000.0, {0, 7, 2047});
  near_the_real_rotation(1, 128, 128, 500000.0, {131071, 1});  // long contexts
  near_the_real_rotation(1, 2, 2, 10000.0, {5});
}

TEST_F(Rope, RotatesTheFirstDimsOnly) {
  near_the_real_rotation(3, 64, 32, 10000.0, {0, 1, 77});
  near_the_real_rotation(2, 80, 20, 10000.0, {9, 300});
}

// What attention sees of two rotated vectors depends on their distance alone.
TEST_F(Rope, ScoresDependOnDistance) {
  constexpr int64_t kDim = 64;
  const RopeTable table(3000, kDim, 10000.0);
  const std::vector<float> q = normal(rng_, kDim), k = normal(rng_, kDim);
  const auto score = [&](int32_t at, int32_t from) {
    std::vector<float> a = q, b = k;
    rope(machines_.context(), f32_view(a, 1, kDim), 1, kDim, &at, table);
    rope(machines_.context(), f32_view(b, 1, kDim), 1, kDim, &from, table);
    double sum = 0.0;
    for (size_t d = 0; d < size_t(kDim); ++d) sum += double(a[d]) * double(b[d]);
    return sum;
  };
  double magnitude = 0.0;
  for (size_t d = 0; d < size_t(kDim); ++d) magnitude += std::fabs(double(q[d])) + std::fabs(double(k[d]));
  // Each vector's error is at most the bound above, with angles up to 3000; times the other's largest value.
  const double bound = 4.0 * magnitude * 4.0 * (2.0 * 3000.0 + 4.0) * 0x1.0p-24;
  EXPECT_NEAR(score(20, 3), score(2017, 2000), bound);
  EXPECT_GT(std::fabs(score(20, 3) - score(20, 19)), bound) << "the distance does not matter";
}

TEST_F(Rope, MachinesAreEqual) {
  RopeTable table(64, 32, 10000.0);
  const std::vector<float> x = normal(rng_, 50 * 96);
  std::vector<int32_t> positions;
  for (int i = 0; i < 50; ++i) positions.push_back(int32_t(rng_() % 64));
  std::vector<float> expected;
  for (const Context& ctx : machines_.all()) {
    std::vector<float> y = x;
    run(ctx, f32_view(y, 50, 96), 3, 32, positions, table);
    if (expected.empty()) expected = y;
    EXPECT_EQ(first_difference(y, expected), "");
  }
}

TEST_F(Rope, Refusals) {
  expect_error([] { RopeTable(8, 3, 10000.0); }, {"rope", "3", "even"});
  expect_error([] { RopeTable(8, 0, 10000.0); }, {"rope", "0"});
  const RopeTable table(8, 16, 10000.0);
  std::vector<float> x(64);
  const auto run = [&](int64_t heads, int64_t head_dim, int32_t position) {
    rope(machines_.context(), f32_view(x, 1, 64), heads, head_dim, &position, table);
  };
  expect_error([&] { run(5, 16, 0); }, {"rope", "5 heads of 16", "f32 (1, 64)"});
  expect_error([&] { run(8, 8, 0); }, {"rope", "8 heads of 8", "first 16"});
  expect_error([&] { run(4, 16, 8); }, {"rope", "position 8", "context of 8"});
  expect_error([&] { run(4, 16, -1); }, {"rope", "position -1"});
  run(4, 16, 7);
}

}  // namespace
}  // namespace quire
