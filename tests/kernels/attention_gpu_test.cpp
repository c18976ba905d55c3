// The cache and attention on the GPU against the CPU, bit for bit: pages, and what is read from them.
#include <gtest/gtest.h>

#include "tests/kv_steps.h"

namespace quire {
namespace {

class AttentionOnGpu : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  }
  Machines machines_;
  Rng rng_{21};
};

TEST_P(AttentionOnGpu, PagesAndOutputsEqualTheCpus) {
  for (const KvShape& shape : {KvShape{6, 2, 64, 2}, KvShape{8, 8, 128, 1}, KvShape{7, 1, 32, 1}, KvShape{4, 2, 96, 1},
                               KvShape{6, 2, 64, 1, 40}}) {
    const Context cpu = machines_.context(), gpu = machines_.gpu();
    KvCacheConfig config = kv_config(shape, GetParam(), 12, 3, 320);
    KvCache here(config);
    config.device = Device::cuda;
    config.stream = gpu.stream;
    KvCache there(config);
    const KvSequence a = random_sequence(rng_, shape, 200), b = random_sequence(rng_, shape, 90);
    const int32_t first = here.open(), second = here.open();
    ASSERT_EQ(there.open(), first);
    ASSERT_EQ(there.open(), second);
    // Prompts in chunks, single tokens, and both in one batch; over page ends.
    for (const auto& [n, m] :
         std::vector<std::pair<int64_t, int64_t>>{{50, 0}, {1, 70}, {20, 1}, {1, 1}, {127, 18}, {1, 0}}) {
      std::vector<KvPiece> pieces;
      if (n > 0) pieces.push_back({first, &a, n});
      if (m > 0) pieces.push_back({second, &b, m});
      const std::vector<float> expected = kv_step(cpu, shape, here, pieces),
                               got = kv_step(gpu, shape, there, pieces, "generic");
      ASSERT_EQ(first_difference(got, expected), "") << n << " and " << m << " tokens";
    }
    for (const auto& [slot, tokens] : {std::pair{first, 200}, std::pair{second, 90}}) {
      for (int64_t page = 0; page < (tokens + 63) / 64; ++page) {
        EXPECT_TRUE(page_bytes_of(there, slot, page) == page_bytes_of(here, slot, page)) << slot << ", page " << page;
      }
    }
    // A fork shares pages until one of the two goes on.
    ASSERT_EQ(there.fork(second), here.fork(second));
    const KvSequence c = random_sequence(rng_, shape, 100);
    const std::vector<float> expected = kv_step(cpu, shape, here, {{second, &c, 10}, {2, &c, 3}});
    ASSERT_EQ(first_difference(kv_step(gpu, shape, there, {{second, &c, 10}, {2, &c, 3}}, "generic"), expected), "")
        << "forked";
  }
}

// Whole spans lie before the window of some queries of a chunk, or of all.
TEST_P(AttentionOnGpu, WindowsSkipSpans) {
  const KvShape shape{6, 2, 64, 1, 100};
  const Context cpu = machines_.context(), gpu = machines_.gpu();
  KvCacheConfig config = kv_config(shape, GetParam(), 10, 1, 640);
  KvCache here(config);
  config.device = Device::cuda;
  config.stream = gpu.stream;
  KvCache there(config);
  const KvSequence a = random_sequence(rng_, shape, 600);
  const int32_t slot = here.open();
  ASSERT_EQ(there.open(), slot);
  for (const int64_t n : {300, 100, 1, 150, 1}) {
    const std::vector<float> expected = kv_step(cpu, shape, here, {{slot, &a, n}});
    // No kernel named: those on tensor cores must not take it.
    ASSERT_EQ(first_difference(kv_step(gpu, shape, there, {{slot, &a, n}}), expected), "") << n << " tokens";
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds, AttentionOnGpu, testing::ValuesIn(kCacheWords));

}  // namespace
}  // namespace quire
