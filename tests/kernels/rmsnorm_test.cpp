#include "kernels/rmsnorm.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

class RmsNorm : public testing::Test {
 protected:
  Machines machines_;
  Rng rng_{6};

  void run(const Context& cpu, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
    on_every_device(machines_, cpu, {x, weight}, y,
                    [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
                      rmsnorm(ctx, in[0], in[1], eps, out);
                    });
  }
};

TEST_F(RmsNorm, NearTheRealValue) {
  for (const int64_t n : {1, 15, 16, 17, 64, 576, 1000, 4096}) {
    for (const float spread : {1.0f, 1e-3f, 1e4f}) {
      std::vector<float> x = normal(rng_, 3 * n, spread, spread / 4), w = normal(rng_, n, 0.2f, 1.0f), y(size_t(3 * n));
      const float eps = 1e-5f;
      run(machines_.context(), f32_view(x, 3, n), f32_view(w, 1, n), eps, f32_view(y, 3, n));
      for (int64_t t = 0; t < 3; ++t) {
        double sum = 0.0;
        for (int64_t d = 0; d < n; ++d) sum += double(x[size_t(t * n + d)]) * double(x[size_t(t * n + d)]);
        const double inv = 1.0 / std::sqrt(sum / double(n) + double(eps));
        // The sum rounds n/16 + 5 times, dividing and adding eps twice; the root halves that; then root, inverse, two
        // products.
        const double bound = (double(n) / 16.0 + 8.0) / 2.0 + 4.0;
        for (int64_t d = 0; d < n; ++d) {
          const double exact = double(x[size_t(t * n + d)]) * inv * double(w[size_t(d)]);
          ASSERT_NEAR(double(y[size_t(t * n + d)]), exact, 1.01 * bound * 0x1.0p-24 * std::fabs(exact))
              << n << ", " << d;
        }
      }
    }
  }
}

TEST_F(RmsNorm, SumOfSquaresInItsOrder) {
  for (const int64_t n : {0, 1, 16, 33, 576}) {
    const std::vector<float> x = normal(rng_, n);
    float lane[16] = {};
    for (int64_t i = 0; i < n; ++i) {
      const float square = x[size_t(i)] * x[size_t(i)];
      lane[i % 16] += square;
    }
    for (int width = 8; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    EXPECT_EQ(sum_of_squares(x.data(), n), lane[0]) << n;
  }
}

TEST_F(RmsNorm, WidthsOfLayers) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  std::vector<float> x = normal(rng_, 3 * 32776), w = normal(rng_, 32772, 0.2f, 1.0f);
  each_activation([&](const Format&, int64_t cols, int64_t ld, const Tensor& y) {
    run(machines_.context(), f32_view(x.data(), 3, cols, ld), f32_view(w.data(), 1, cols), 1e-5f, y);
  });
}

// Writing a format is writing f32, then encoding each row.
TEST_F(RmsNorm, EveryOutputFormat) {
  constexpr int64_t kRows = 7, kCols = 100;
  std::vector<float> x = normal(rng_, kRows * kCols), w = normal(rng_, kCols, 0.2f, 1.0f), y(kRows * kCols);
  run(machines_.context(), f32_view(x, kRows, kCols), f32_view(w, 1, kCols), 1e-5f, f32_view(y, kRows, kCols));
  for (const Format& format : every_format()) {
    for (const bool sums : {false, true}) {
      if (sums && format.codec != id<Int8>) continue;
      const StorageOptions options{.row_align = 64, .sums = sums};
      const OwnedTensor expected = make_tensor(format, kRows, kCols, options);
      for (int64_t t = 0; t < kRows; ++t) {
        info(format.codec).encode(expected, t, 1, y.data() + t * kCols, kCols, ScaleSource::found);
      }
      for (const Context& ctx : machines_.all()) {
        const OwnedTensor got = make_tensor(format, kRows, kCols, options);
        run(ctx, f32_view(x, kRows, kCols), f32_view(w, 1, kCols), 1e-5f, got);
        ASSERT_TRUE(memory_of(got) == memory_of(expected)) << to_string(format);
      }
    }
  }
}

TEST_F(RmsNorm, StaticScalesAreUsedAsTheyAre) {
  std::vector<float> x = normal(rng_, 20 * 64), w(64, 1.0f), y(20 * 64);
  OwnedTensor got = make_tensor({id<Int8>}, 20, 64);
  float scale = 0.02f;
  got.tensor.scale = {reinterpret_cast<std::byte*>(&scale), 0, 1};
  run(machines_.context(), f32_view(x, 20, 64), f32_view(w, 1, 64), 0.0f, got);
  run(machines_.context(), f32_view(x, 20, 64), f32_view(w, 1, 64), 0.0f, f32_view(y, 20, 64));
  EXPECT_EQ(scale, 0.02f);
  for (int64_t i = 0; i < 20 * 64; ++i) {
    const float code = std::nearbyint(std::min(127.0f, std::max(-127.0f, y[size_t(i)] * (1.0f / scale))));
    ASSERT_EQ(float(got.tensor.data.row<int8_t>(i / 64)[i % 64]), code);
  }
}

TEST_F(RmsNorm, ZeroRowsStayZero) {
  std::vector<float> x(64), w(64, 1.0f), y(64, 5.0f);
  run(machines_.context(), f32_view(x, 1, 64), f32_view(w, 1, 64), 1e-5f, f32_view(y, 1, 64));
  EXPECT_EQ(y, x);
}

TEST_F(RmsNorm, Refusals) {
  const Context ctx = machines_.context();
  std::vector<float> x(128), w(64), y(128);
  const auto in = f32_view(x, 2, 64), weight = f32_view(w, 1, 64), out = f32_view(y, 2, 64);
  expect_error([&] { rmsnorm(ctx, f32_view(x, 2, 32), weight, 0, out); }, {"rmsnorm", "f32 (2, 32)", "f32 (1, 64)"});
  expect_error([&] { rmsnorm(ctx, in, f32_view(w, 2, 32), 0, out); }, {"rmsnorm", "f32 (2, 32)"});
  expect_error([&] { rmsnorm(ctx, in, weight, 0, f32_view(y, 1, 64)); }, {"rmsnorm", "f32 (1, 64)"});
  const OwnedTensor half = make_tensor({id<F16>}, 2, 64), spans = make_tensor({id<Int8>}, 2, 64, {.span = 2});
  expect_error([&] { rmsnorm(ctx, half, weight, 0, out); }, {"rmsnorm", "f16 (2, 64)", "must be f32"});
  expect_error([&] { rmsnorm(ctx, in, weight, 0, spans); }, {"rmsnorm", "int8 (2, 64)", "share"});
}

}  // namespace
}  // namespace quire
