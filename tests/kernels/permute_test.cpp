#include "kernels/permute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

// Every column is moved whole, on every device, whatever the rows' pitch.
TEST(PermuteColumns, MovesColumns) {
  Machines machines;
  Rng rng{5};
  for (const int64_t cols : {1, 7, 64, 1000, 4096}) {
    std::vector<int32_t> order(static_cast<size_t>(cols));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), rng);
    for (const int64_t rows : {1, 5, 130}) {
      std::vector<float> x = normal(rng, rows * cols, 1.0f), y(x.size(), NAN);
      on_every_device(machines, machines.context(), {f32_view(x, rows, cols)}, f32_view(y, rows, cols),
                      [&](const Context& ctx, const std::vector<Tensor>& in, const Tensor& out) {
                        const int32_t* there = order.data();
                        OnGpu gpu(ctx);
                        if (ctx.device == Device::cuda) there = gpu.in(order);
                        permute_columns(ctx, in[0], there, out);
                        if constexpr (kCuda) {
                          if (ctx.device == Device::cuda) cuda::synchronize(ctx.stream);
                        }
                      });
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_EQ(y[size_t(r * cols + c)], x[size_t(r * cols + order[size_t(c)])]) << "row " << r << " column " << c;
        }
      }
    }
  }
}

TEST(PermuteColumns, RefusesOtherShapesAndItsOwnInput) {
  Machines machines;
  std::vector<float> x(12), y(12);
  const std::vector<int32_t> order = {3, 2, 1, 0};
  const Tensor t = f32_view(x, 3, 4);
  expect_error([&] { permute_columns(machines.context(), t, order.data(), t); }, {"permute_columns", "apart"});
  expect_error([&] { permute_columns(machines.context(), t, order.data(), f32_view(y, 4, 3)); },
               {"permute_columns", "one shape"});
}

}  // namespace
}  // namespace quire
