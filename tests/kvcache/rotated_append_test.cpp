// A GPU's append turns queries and keys on the way: what rope and append do one after the other on the CPU, bit for
// bit, whatever a step is made of.
#include <gtest/gtest.h>

#include "kernels/rope.h"
#include "tests/kv_steps.h"

namespace quire {
namespace {

class RotatedAppend : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  }
  Machines machines_;
  Rng rng_{23};
};

TEST_P(RotatedAppend, EqualsRopeAndAppend) {
  for (const int64_t channels : {int64_t(64), int64_t(96)}) {
    const KvShape shape{6, 2, channels, 1};
    const Context cpu = machines_.context(), gpu = machines_.gpu();
    KvCacheConfig config = kv_config(shape, GetParam(), 24, 5, 256);
    KvCache here(config);
    config.device = Device::cuda;
    config.stream = gpu.stream;
    KvCache there(config);
    RopeTable table(256, channels / 2, 10000.0);  // half of a head is turned
    table.upload(gpu.stream);
    const int64_t wide = shape.heads * channels, narrow = shape.kv_heads * channels, width = wide + 2 * narrow;
    for (int slot = 0; slot < 4; ++slot) {
      here.open();
      there.open();
    }
    // Steps of one token each, that fill pages too; of chunks that begin, end and lie within pages; of both.
    const std::vector<std::vector<int64_t>> steps = {{63, 40, 0, 0}, {1, 1, 0, 0},  {1, 0, 150, 0}, {1, 0, 0, 1},
                                                     {1, 24, 1, 62}, {1, 1, 40, 1}, {3, 130, 1, 1}};
    for (const std::vector<int64_t>& counts : steps) {
      Batch batch;
      for (const bool single : {true, false}) {
        for (int32_t slot = 0; slot < 4; ++slot) {
          const int64_t n = counts[size_t(slot)], position = here.length(slot);
          if (n == 0 || (n == 1) != single) continue;
          ASSERT_TRUE(here.reserve(slot, n) && there.reserve(slot, n));
          batch.sequences.push_back({slot, batch.size(), n, position});
          for (int64_t i = 0; i < n; ++i) {
            batch.tokens.push_back(int32_t(rng_() % 1000));
            batch.positions.push_back(int32_t(position + i));
          }
        }
      }
      std::vector<float> values = normal(rng_, batch.size() * width, 2.0f);
      values[1] = 1e30f;
      values[size_t(wide)] = -1e30f;
      const Tensor x = f32_view(values, batch.size(), width);
      OnGpu on_gpu(gpu);
      const Tensor y = on_gpu.in(x);
      here.begin_step(batch);
      rope(cpu, x, shape.heads + shape.kv_heads, channels, batch.positions.data(), table);
      here.append(cpu, 0, batch, cols_of(x, wide, narrow), cols_of(x, wide + narrow, narrow));
      here.end_step(batch);
      gpu.scratch->reset();
      Batch uploaded = batch;
      upload_batch(gpu, uploaded);
      there.begin_step(uploaded);
      const Tensor q = cols_of(y, 0, wide);
      const Rotation rotation{q, shape.heads, table};
      there.append(gpu, 0, uploaded, cols_of(y, wide, narrow), cols_of(y, wide + narrow, narrow), &rotation);
      there.end_step(uploaded);
      const OwnedTensor back = on_gpu.back(y);
      for (int64_t t = 0; t < batch.size(); ++t) {
        ASSERT_EQ(first_difference(back.tensor.data.row<const float>(t), x.data.row<const float>(t), wide), "")
            << "queries of row " << t;
      }
      for (int32_t slot = 0; slot < 4; ++slot) {
        for (int64_t page = 0; page * kPageTokens < here.length(slot); ++page) {
          ASSERT_TRUE(page_bytes_of(here, slot, page) == page_bytes_of(there, slot, page))
              << "slot " << slot << ", page " << page << " at " << here.length(slot) << " tokens";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RotatedAppend, testing::ValuesIn(kCacheWords));

}  // namespace
}  // namespace quire
