#include "kernels/outliers.h"

#include <gtest/gtest.h>

#include "kernels/convert.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

const Format kInt8{id<Int8>, 0};

OwnedTensor random_weight(Rng& rng, const Context& ctx, int64_t n, int64_t k) {
  OwnedTensor w = make_tensor(kInt8, n, k);
  std::vector<float> values = normal(rng, n * k);
  convert(ctx, f32_view(values, n, k), w);
  return w;
}

// Activations with a few elements far out.
std::vector<float> with_spikes(Rng& rng, int64_t m, int64_t k) {
  std::vector<float> x = normal(rng, m * k);
  for (float& v : x) {
    if (rng() % 23 == 0) v *= 30.0f;
  }
  return x;
}

// y (m, n) = the int8 product of what is left, and the outliers.
std::vector<float> product(const Context& ctx, std::vector<float>& x, int64_t m, const Tensor& w, float threshold,
                           const WeightLayout* layout) {
  const int64_t n = w.rows, k = w.cols;
  std::vector<float> y(size_t(m * n), NAN);
  const bool on_gpu = ctx.device == Device::cuda;
  OnGpu gpu(ctx);
  const Tensor in = on_gpu ? gpu.in(f32_view(x, m, k)) : f32_view(x, m, k);
  const Tensor out = on_gpu ? gpu.out(f32_view(y, m, n)) : f32_view(y, m, n);
  const OwnedTensor codes = make_tensor(kInt8, m, k, {.device = ctx.device});
  const PackedWeight packed = pack_weight(ctx, {on_gpu ? gpu.in(w) : w}, kInt8, layout);
  const TokenOutliers outliers = take_outliers(ctx, in, threshold, codes);
  matmul(ctx, codes, packed, out);
  add_outliers(ctx, outliers, packed, out);
  if (on_gpu) y = decoded(gpu.back(out));
  ctx.scratch->reset();
  return y;
}

std::vector<float> product(const Context& ctx, std::vector<float>& x, int64_t m, const Tensor& w, float threshold) {
  return product(ctx, x, m, w, threshold, choose_layout({kInt8, kInt8, w.rows, w.cols}, ctx.isa, ctx.device));
}

// Every instruction set, and the GPU if there is one.
std::vector<Context> everywhere(Machines& machines) {
  std::vector<Context> list = machines.all();
  if (gpu_is_here()) list.push_back(machines.gpu());
  return list;
}

std::vector<double> exact(const std::vector<float>& x, int64_t m, const Tensor& w) {
  const std::vector<float> weights = decoded(w);
  std::vector<double> y;
  for (int64_t i = 0; i < m * w.rows; ++i) {
    double sum = 0;
    for (int64_t c = 0; c < w.cols; ++c) {
      sum += double(x[size_t(i / w.rows * w.cols + c)]) * weights[size_t(i % w.rows * w.cols + c)];
    }
    y.push_back(sum);
  }
  return y;
}

std::string name_of(const Context& ctx) { return ctx.device == Device::cuda ? "GPU" : to_string(ctx.isa); }

// The written order as plain loops; canonical rows and packed ones, every instruction set, the GPU, any number of
// tokens; rows of more columns than a block of the GPU has threads.
TEST(Outliers, ElementsAreTakenOutAndMeetDecodedColumns) {
  Machines machines;
  Rng rng(1);
  constexpr float kThreshold = 6.0f;
  for (const int64_t m : {1, 2, 5, 16, 40, 300}) {
    const int64_t n = between(rng, 1, 600), k = m == 5 ? 1000 : between(rng, 1, 130);
    const OwnedTensor w = random_weight(rng, machines.context(), n, k);
    std::vector<float> x = with_spikes(rng, m, k);
    const std::vector<float> weights = decoded(w);
    std::vector<float> wanted;
    for (int64_t t = 0; t < m; ++t) {
      const float* row = x.data() + t * k;
      float most = 0.0f;
      for (int64_t c = 0; c < k; ++c) {
        if (std::abs(row[c]) < kThreshold) most = std::max(most, std::abs(row[c]));
      }
      const float scale = most * (1.0f / 127.0f), inv = most > 0 ? 127.0f / most : 0.0f;
      for (int64_t r = 0; r < n; ++r) {
        int32_t sum = 0;
        float beside = 0.0f;
        bool any = false;
        for (int64_t c = 0; c < k; ++c) {
          if (std::abs(row[c]) < kThreshold) {
            sum += int32_t(std::nearbyint(row[c] * inv)) * w.tensor.data.row<int8_t>(r)[c];
          } else {
            const float product = f16_to_f32(f32_to_f16(row[c])) * weights[size_t(r * k + c)];
            beside = beside + product;
            any = true;
          }
        }
        const float y = (float(sum) * scale) * *w.tensor.scale.row<const float>(r);
        wanted.push_back(any ? y + beside : y);
      }
    }
    for (const Context& ctx : everywhere(machines)) {
      const std::string where = fmt::format("{}, {} tokens", name_of(ctx), m);
      EXPECT_EQ(first_difference(product(ctx, x, m, w, kThreshold), wanted), "") << where;
      EXPECT_EQ(first_difference(product(ctx, x, m, w, kThreshold, nullptr), wanted), "") << where;
    }
  }
}

// H1: a threshold that nothing reaches is plain int8.
TEST(Outliers, AThresholdThatNothingReachesIsPlainInt8) {
  Machines machines;
  const Context ctx = machines.context();
  Rng rng(2);
  const OwnedTensor w = random_weight(rng, ctx, 70, 96), codes = make_tensor(kInt8, 9, 96);
  std::vector<float> x = with_spikes(rng, 9, 96), y(9 * 70);
  convert(ctx, f32_view(x, 9, 96), codes);
  matmul(ctx, codes, pack_weight(ctx, {w}, kInt8, nullptr), f32_view(y, 9, 70));
  EXPECT_EQ(first_difference(product(ctx, x, 9, w, INFINITY), y), "");
  EXPECT_NE(first_difference(product(ctx, x, 9, w, 6.0f), y), "");
}

// H2: where every element is an outlier it is the product of halves with the decoded weight: K roundings of products
// and K of sums.
TEST(Outliers, AThresholdThatAllReachIsTheProductOfHalves) {
  Machines machines;
  const Context ctx = machines.context();
  Rng rng(3);
  const OwnedTensor w = random_weight(rng, ctx, 33, 64);
  std::vector<float> x = with_spikes(rng, 4, 64);
  for (float& v : x) v = f16_to_f32(f32_to_f16(v == 0.0f ? 1.0f : v));
  const std::vector<float> y = product(ctx, x, 4, w, 1e-30f), weights = decoded(w);
  const std::vector<double> wanted = exact(x, 4, w);
  for (size_t i = 0; i < y.size(); ++i) {
    double magnitude = 0;
    for (size_t c = 0; c < 64; ++c) magnitude += std::abs(double(x[i / 33 * 64 + c]) * weights[i % 33 * 64 + c]);
    EXPECT_NEAR(y[i], wanted[i], 2 * 64 * 0x1p-24 * magnitude);
  }
}

// H3: of a channel that is a hundred times as large the error of the rest does not suffer once it is taken out.
TEST(Outliers, TakingALargeChannelOutLowersTheError) {
  Machines machines;
  const Context ctx = machines.context();
  Rng rng(4);
  const OwnedTensor w = random_weight(rng, ctx, 64, 128);
  std::vector<float> x = normal(rng, 8 * 128);
  for (int64_t t = 0; t < 8; ++t) x[size_t(t * 128 + 17)] = 100.0f * (t % 2 ? 1.0f : -1.0f);
  const std::vector<double> wanted = exact(x, 8, w);
  const auto error = [&](float threshold) {
    const std::vector<float> y = product(ctx, x, 8, w, threshold);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += std::pow(y[i] - wanted[i], 2);
    return sum;
  };
  EXPECT_LE(error(50.0f) * 100.0, error(INFINITY));
  EXPECT_LE(error(1.0f), error(2.0f));  // more and more is exact
  EXPECT_LE(error(2.0f), error(50.0f));
}

// H4: the writer multiplies by SCA SCB / 127^2 at once, here each scale is rounded: two roundings more, and two
// products.
TEST(Outliers, TheProductOfScalesIsTheWriters) {
  EXPECT_NEAR(1.0 / (127.0 * 127.0), 6.200012e-5, 5e-12);
  Rng rng(5);
  for (int i = 0; i < 1000; ++i) {
    const float a = std::abs(normal(rng, 1)[0]) + 0.1f, b = std::abs(normal(rng, 1)[0]) + 0.1f;
    const double wanted = double(a) * double(b) / (127.0 * 127.0);
    EXPECT_NEAR((a * (1.0f / 127.0f)) * (b * (1.0f / 127.0f)), wanted, 5.1 * 0x1p-24 * wanted);
  }
}

// The rule looks at a token alone: its bits are the same in any batch. NaN is no outlier, infinity a large half.
TEST(Outliers, TokensDoNotSeeEachOther) {
  Machines machines;
  const Context ctx = machines.context();
  Rng rng(6);
  const OwnedTensor w = random_weight(rng, ctx, 50, 80);
  std::vector<float> x = with_spikes(rng, 12, 80);
  x[3] = NAN, x[85] = INFINITY, x[170] = -1.0e9f;
  const std::vector<float> all = product(ctx, x, 12, w, 6.0f);
  for (const Context& other : everywhere(machines)) {
    EXPECT_EQ(first_difference(product(other, x, 12, w, 6.0f), all), "") << name_of(other);
    for (int64_t t = 0; t < 12; ++t) {
      std::vector<float> one(x.begin() + t * 80, x.begin() + (t + 1) * 80);
      EXPECT_EQ(first_difference(product(other, one, 1, w, 6.0f).data(), all.data() + t * 50, 50), "") << t;
    }
  }
  for (const float v : all) EXPECT_TRUE(std::isfinite(v));
}

TEST(Outliers, RefusesWhatItCannotTake) {
  Machines machines;
  const Context ctx = machines.context();
  Rng rng(7);
  std::vector<float> x(64);
  const OwnedTensor codes = make_tensor(kInt8, 2, 32), groups = make_tensor({id<Int8>, 16}, 2, 32);
  expect_error([&] { take_outliers(ctx, f32_view(x, 2, 32), 6.0f, groups); }, {"take_outliers", "int8/g16"});
  expect_error([&] { take_outliers(ctx, f32_view(x, 2, 32), 0.0f, codes); }, {"take_outliers", "at 0"});
  const TokenOutliers none = take_outliers(ctx, f32_view(x, 2, 32), 6.0f, codes);
  const OwnedTensor w = make_tensor({id<Int4>, 0}, 8, 32);
  std::vector<float> y(16);
  expect_error([&] { add_outliers(ctx, none, pack_weight(ctx, {w}, kInt8, nullptr), f32_view(y, 2, 8)); },
               {"add_outliers", "int4"});
}

}  // namespace
}  // namespace quire
