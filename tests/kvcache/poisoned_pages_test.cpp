// On a GPU nothing is read of a page but what its sequence wrote: pages full of NaN, and pages that others used, give
// the bits of fresh ones.
#include <gtest/gtest.h>

#include "tests/kv_steps.h"

namespace quire {
namespace {

class PoisonedPages : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  }
  // All bits set: a NaN as f16, f32 and fp8, the largest code everywhere else, with a scale that is NaN.
  static void poison(KvCache& cache) {
    if constexpr (kCuda) {
      const KvCacheConfig& c = cache.config();
      const auto set = [&](std::byte* p, int64_t bytes) { cuda::clear_async(p, 0xff, size_t(bytes), c.stream); };
      set(cache.view(0).pool, c.pages * KvCache::page_bytes(c));
      if (cache.view(0).stage_pool) set(cache.view(0).stage_pool, KvCache::stage_bytes(c));
    }
  }
  Machines machines_;
  Rng rng_{29};
};

TEST_P(PoisonedPages, AreNotRead) {
  for (const KvShape& shape : {KvShape{6, 2, 64, 2}, KvShape{4, 4, 128, 1}, KvShape{4, 2, 96, 1}}) {
    const Context gpu = machines_.gpu();
    KvCacheConfig config = kv_config(shape, GetParam(), 9, 3, 256);
    config.device = Device::cuda;
    config.stream = gpu.stream;
    KvCache fresh(config), poisoned(config);
    poison(poisoned);
    // Sequences that end and whose pages and slots others get; steps of one token, of chunks and of both.
    const std::vector<KvSequence> all = {random_sequence(rng_, shape, 200), random_sequence(rng_, shape, 90),
                                         random_sequence(rng_, shape, 150), random_sequence(rng_, shape, 70)};
    const auto step = [&](const std::vector<std::pair<int32_t, int64_t>>& counts, const std::vector<size_t>& of) {
      std::vector<KvPiece> pieces;
      for (const auto& [slot, n] : counts) pieces.push_back({slot, &all[of[size_t(slot)]], n});
      const std::vector<float> expected = kv_step(gpu, shape, fresh, pieces),
                               got = kv_step(gpu, shape, poisoned, pieces);
      ASSERT_EQ(first_difference(got, expected), "") << "step of " << pieces.size() << " sequences";
      for (const float x : got) ASSERT_TRUE(std::isfinite(x));
    };
    for (KvCache* c : {&fresh, &poisoned}) {
      c->open();
      c->open();
    }
    step({{0, 37}}, {0, 1});
    step({{0, 1}, {1, 3}}, {0, 1});
    step({{0, 1}, {1, 1}}, {0, 1});
    step({{1, 1}, {0, 110}}, {0, 1});
    step({{0, 1}, {1, 1}}, {0, 1});
    for (KvCache* c : {&fresh, &poisoned}) {
      c->close(0);
      ASSERT_EQ(c->open(), 0);
    }
    step({{0, 5}}, {2, 1});
    for (int i = 0; i < 60; ++i) step({{0, 1}, {1, 1}}, {2, 1});
    for (KvCache* c : {&fresh, &poisoned}) {
      c->close(1);
      ASSERT_EQ(c->open(), 1);
    }
    step({{0, 1}, {1, 66}}, {2, 3});
    step({{0, 1}, {1, 1}}, {2, 3});
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, PoisonedPages, testing::ValuesIn(kCacheWords));

}  // namespace
}  // namespace quire
