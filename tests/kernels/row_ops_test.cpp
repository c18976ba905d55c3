#include "kernels/row_ops.h"

#include <gtest/gtest.h>

#include "kernels/rmsnorm.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

class RowOps : public testing::Test {
 protected:
  // op(ctx, weight, x) in place, here and on a GPU.
  template <class Op>
  void run(const Context& cpu, const std::vector<Tensor>& in, const Tensor& x, Op op) {
    on_every_device(machines_, cpu, in, x, op, true);
  }

  Machines machines_;
  Rng rng_{21};
};

TEST_F(RowOps, HeadsAreNormedAsRows) {
  constexpr float kEps = 1e-5f;
  for (const Context& ctx : machines_.all()) {
    for (const auto& [heads, channels] : {std::pair<int64_t, int64_t>{1, 64}, {3, 32}, {5, 100}}) {
      const int64_t rows = 7, ld = heads * channels + 24;  // columns of a wider matrix
      std::vector<float> x = normal(rng_, rows * ld), w = normal(rng_, channels, 0.3f, 1.0f), expected = x;
      const Tensor weight = f32_view(w, 1, channels);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t h = 0; h < heads; ++h) {
          const Tensor head = f32_view(x.data() + t * ld + h * channels, 1, channels);
          rmsnorm(ctx, head, weight, kEps, f32_view(expected.data() + t * ld + h * channels, 1, channels));
        }
      }
      run(ctx, {weight}, f32_view(x.data(), rows, heads * channels, ld),
          [&, n = heads](const Context& c, const std::vector<Tensor>& in, const Tensor& y) {
            norm_heads(c, y, n, in[0], kEps);
          });
      EXPECT_EQ(first_difference(x, expected), "");
    }
  }
}

TEST_F(RowOps, ProductsAreNormedAndAdded) {
  constexpr float kEps = 1e-6f;
  constexpr int64_t kRows = 5, kCols = 136;
  for (const Context& ctx : machines_.all()) {
    std::vector<float> x = normal(rng_, kRows * kCols, 3.0f), w = normal(rng_, kCols, 0.3f, 1.0f);
    std::vector<float> h = normal(rng_, kRows * kCols), normed(size_t(kRows * kCols)), expected = h;
    rmsnorm(ctx, f32_view(x, kRows, kCols), f32_view(w, 1, kCols), kEps, f32_view(normed, kRows, kCols));
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += normed[i];
    run(ctx, {f32_view(x, kRows, kCols), f32_view(w, 1, kCols)}, f32_view(h, kRows, kCols),
        [&](const Context& c, const std::vector<Tensor>& in, const Tensor& y) {
          add_normed(c, in[0], in[1], kEps, y);
        });
    EXPECT_EQ(first_difference(h, expected), "");
  }
}

TEST_F(RowOps, RowsAreScaled) {
  std::vector<float> x = normal(rng_, 3 * 70), expected = x;
  for (float& v : expected) v *= 24.0f;
  run(machines_.context(), {}, f32_view(x, 3, 70),
      [&](const Context& c, const std::vector<Tensor>&, const Tensor& y) { scale_rows(c, y, 24.0f); });
  EXPECT_EQ(first_difference(x, expected), "");
}

TEST_F(RowOps, ColumnsAreScaledThenBiasedThenAdded) {
  constexpr int64_t kRows = 5, kCols = 75, kWide = 96;
  const std::vector<float> start = normal(rng_, kRows * kWide), x = normal(rng_, kRows * kCols);
  std::vector<float> in = x, factors = normal(rng_, kCols), bias = normal(rng_, kCols);
  for (const bool biased : {false, true}) {
    for (const bool added : {false, true}) {
      std::vector<float> y = start, expected = start;
      for (int64_t t = 0; t < kRows; ++t) {
        for (int64_t c = 0; c < kCols; ++c) {
          float value = x[size_t(t * kCols + c)] * factors[size_t(c)];
          if (biased) value = value + bias[size_t(c)];
          if (added) value = value + start[size_t(t * kWide + c)];
          expected[size_t(t * kWide + c)] = value;
        }
      }
      run(machines_.context(), {f32_view(in, kRows, kCols), f32_view(factors, 1, kCols), f32_view(bias, 1, kCols)},
          f32_view(y.data(), kRows, kCols, kWide),
          [&](const Context& c, const std::vector<Tensor>& from, const Tensor& to) {
            Epilogue epilogue;
            if (biased) epilogue.bias = from[2].data.row<const float>(0);
            if (added) epilogue.residual = to.data.row<const float>(0);
            scale_columns(c, from[0], from[1].data.row<const float>(0), to, epilogue);
          });
      EXPECT_EQ(first_difference(y, expected), "") << biased << added;
    }
  }
}

TEST_F(RowOps, Refusals) {
  std::vector<float> x(64), w(32);
  const Context ctx = machines_.context();
  expect_error([&] { norm_heads(ctx, f32_view(x, 1, 64), 3, f32_view(w, 1, 32), 0); }, {"norm_heads", "3 heads"});
  expect_error([&] { add_normed(ctx, f32_view(x, 1, 64), f32_view(w, 1, 32), 0, f32_view(x, 1, 64)); },
               {"add_normed", "f32 (1, 32)"});
  const OwnedTensor half = make_tensor({id<F16>}, 2, 32);
  expect_error([&] { scale_rows(ctx, half, 2.0f); }, {"scale_rows", "f16 (2, 32)"});
  expect_error([&] { scale_columns(ctx, f32_view(x, 2, 32), w.data(), f32_view(x, 1, 64)); },
               {"scale_columns", "f32 (1, 64)"});
}

}  // namespace
}  // namespace quire
