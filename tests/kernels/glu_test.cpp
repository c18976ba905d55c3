#include "kernels/glu.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

class Glu : public testing::Test {
 protected:
  Machines machines_;
  Rng rng_{8};

  void run(const Context& cpu, const Tensor& x, const Tensor& y) {
    on_every_device(machines_, cpu, {x}, y, [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
      glu(ctx, in[0], out);
    });
  }
};

TEST_F(Glu, NearTheRealValue) {
  for (const int64_t n : {1, 17, 96, 1536}) {
    for (const float spread : {1.0f, 20.0f, 1e-6f}) {
      std::vector<float> x = normal(rng_, 3 * 2 * n, spread), y(size_t(3 * n));
      run(machines_.context(), f32_view(x, 3, 2 * n), f32_view(y, 3, n));
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t f = 0; f < n; ++f) {
          const double gate = x[size_t(t * 2 * n + f)], up = x[size_t(t * 2 * n + n + f)];
          const double exact = gate / (1.0 + std::exp(-gate)) * up;
          // 2^-23.5 of exp, then a sum, a quotient and a product.
          ASSERT_NEAR(double(y[size_t(t * n + f)]), exact, (0x1.7p-24 + 3.0 * 0x1.0p-24) * 1.01 * std::fabs(exact));
        }
      }
    }
  }
}

TEST_F(Glu, GeluIsNearTheRealValue) {
  for (const float spread : {1.0f, 20.0f, 1e-6f}) {
    constexpr int64_t kCols = 1000;
    std::vector<float> x = normal(rng_, 2 * kCols, spread), y(kCols);
    on_every_device(machines_, machines_.context(), {f32_view(x, 1, 2 * kCols)}, f32_view(y, 1, kCols),
                    [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
                      glu(ctx, in[0], out, Gate::gelu_tanh);
                    });
    for (size_t f = 0; f < kCols; ++f) {
      const double gate = x[f], up = x[kCols + f], u = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate);
      // 1 / (1 + exp(-2 u)) is 1 + tanh(u) over 2, without what cancels. -2 u is eight roundings of its size away,
      // which exp turns into a relative error as large where the value is not 0 already.
      const double exact = gate / (1.0 + std::exp(-2.0 * u)) * up, large = std::min(2.0 * std::fabs(u), 90.0);
      const double relative = 8.0 * 0x1p-24 * large + (0x1.7p-24 + 3.0 * 0x1.0p-24) * 1.01;
      ASSERT_NEAR(double(y[f]), exact, relative * std::fabs(exact) + 0x1p-120 * std::fabs(up)) << gate;
    }
  }
}

TEST_F(Glu, EveryOutputFormat) {
  constexpr int64_t kRows = 7, kCols = 100;
  std::vector<float> x = normal(rng_, kRows * 2 * kCols, 2.0f), y(kRows * kCols);
  run(machines_.context(), f32_view(x, kRows, 2 * kCols), f32_view(y, kRows, kCols));
  for (const Format& format : every_format()) {
    const StorageOptions options{.row_align = 64, .sums = format.codec == id<Int8>};
    const OwnedTensor expected = make_tensor(format, kRows, kCols, options);
    for (int64_t t = 0; t < kRows; ++t) {
      info(format.codec).encode(expected, t, 1, y.data() + t * kCols, kCols, ScaleSource::found);
    }
    for (const Context& ctx : machines_.all()) {
      const OwnedTensor got = make_tensor(format, kRows, kCols, options);
      run(ctx, f32_view(x, kRows, 2 * kCols), got);
      ASSERT_TRUE(memory_of(got) == memory_of(expected)) << to_string(format);
    }
  }
}

TEST_F(Glu, WidthsOfLayers) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  std::vector<float> x = normal(rng_, 3 * 2 * 32776, 2.0f);
  each_activation([&](const Format&, int64_t cols, int64_t ld, const Tensor& y) {
    for (const Gate gate : {Gate::silu, Gate::gelu_tanh}) {
      on_every_device(
          machines_, machines_.context(), {f32_view(x.data(), 3, 2 * cols, ld + cols)}, y,
          [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) { glu(ctx, in[0], out, gate); });
    }
  });
}

TEST_F(Glu, ExtremeGates) {
  std::vector<float> x = {-3e38f, -100.0f, 100.0f, 3e38f, 2.0f, 2.0f, 2.0f, 1.0f}, y(4);
  run(machines_.context(), f32_view(x, 1, 8), f32_view(y, 1, 4));
  EXPECT_EQ(y, (std::vector<float>{0.0f, 0.0f, 200.0f, 3e38f}));
}

TEST_F(Glu, Refusals) {
  std::vector<float> x(64), y(64);
  const Context ctx = machines_.context();
  expect_error([&] { glu(ctx, f32_view(x, 2, 32), f32_view(y, 2, 32)); }, {"glu", "f32 (2, 32)"});
  expect_error([&] { glu(ctx, f32_view(x, 2, 32), f32_view(y, 1, 16)); }, {"glu", "f32 (1, 16)"});
  const OwnedTensor half = make_tensor({id<F16>}, 2, 32), spans = make_tensor({id<Int8>}, 2, 16, {.span = 2});
  expect_error([&] { glu(ctx, half, f32_view(y, 2, 16)); }, {"glu", "f16 (2, 32)"});
  expect_error([&] { glu(ctx, f32_view(x, 2, 32), spans); }, {"glu", "share"});
}

}  // namespace
}  // namespace quire
