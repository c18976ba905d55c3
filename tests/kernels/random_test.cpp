#include "kernels/random.h"

#include "tests/op_test.h"

namespace quire {
namespace {

TEST(Random, NumbersHaveTheirMoments) {
  constexpr int kCount = 1 << 20;
  double sum = 0.0, squares = 0.0;
  for (int i = 0; i < kCount; ++i) {
    const double x = normal_at(7, uint64_t(i));
    sum += x;
    squares += x * x;
  }
  // Five deviations of a mean of kCount numbers: 1 / sqrt(kCount) each; of their squares at most sqrt(2 / kCount).
  EXPECT_LT(std::abs(sum / kCount), 5.0 / 1024);
  EXPECT_LT(std::abs(squares / kCount - 1.0), 5.0 * 1.4143 / 1024);
}

TEST(Random, NumbersAreTheSameOnEveryDevice) {
  Machines machines;
  std::vector<float> data(37 * 70);
  const Tensor out = f32_view(data, 37, 70);
  on_every_device(machines, machines.context(), {}, out,
                  [](const Context& ctx, auto, const Tensor& to) { fill_normal(ctx, 11, 1000, 0.5f, to); });
  for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], normal_at(11, 1000 + i) * 0.5f) << i;
}

}  // namespace
}  // namespace quire
