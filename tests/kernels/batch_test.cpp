#include "kernels/batch.h"

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

Batch two_sequences() {
  Batch batch;
  batch.tokens = {7, 8, 9, 5};
  batch.positions = {40, 41, 42, 3};
  batch.sequences = {{2, 0, 3, 40}, {0, 3, 1, 3}};
  batch.logits_rows = {2, 3};
  return batch;
}

TEST(UploadBatch, LeavesTheCpuAlone) {
  Machines machines;
  Batch batch = two_sequences();
  upload_batch(machines.context(), batch);
  EXPECT_EQ(batch.device.tokens, nullptr);
  EXPECT_EQ(batch.device.logits_rows, nullptr);
}

TEST(UploadBatch, GivesKernelsARowEach) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  Machines machines;
  const Context ctx = machines.gpu();
  Batch batch = two_sequences();
  upload_batch(ctx, batch);
  const auto read = [&](const int32_t* there, size_t n) {
    std::vector<int32_t> here(n);
    if constexpr (kCuda) {
      cuda::copy_async(here.data(), there, n * sizeof(int32_t), ctx.stream);
      cuda::synchronize(ctx.stream);
    }
    return here;
  };
  EXPECT_EQ(read(batch.device.tokens, 4), batch.tokens);
  EXPECT_EQ(read(batch.device.positions, 4), batch.positions);
  EXPECT_EQ(read(batch.device.slots, 4), (std::vector<int32_t>{2, 2, 2, 0}));
  EXPECT_EQ(read(batch.device.logits_rows, 2), batch.logits_rows);
  batch.positions.pop_back();
  expect_error([&] { upload_batch(ctx, batch); }, {"batch", "4 tokens", "3 positions"});
}

}  // namespace
}  // namespace quire
