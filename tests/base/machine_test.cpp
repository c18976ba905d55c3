#include "base/machine.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "base/bandwidth.h"
#include "base/error.h"

namespace quire {
namespace {

TEST(Machine, KnowsItsMemory) {
  const MachineMemory m = machine_memory();
  EXPECT_GT(m.total, 64 << 20);
  EXPECT_GT(m.available, 0);
  EXPECT_LE(m.available, m.total);
}

TEST(Machine, ThePeakFollowsWhatIsTouched) {
  constexpr size_t kBytes = 32 << 20;
  const bool reset = reset_peak_memory();
  const ProcessMemory before = process_memory();
  EXPECT_GT(before.resident, 0);
  EXPECT_GE(before.peak, before.resident / 2);
  // Straight from the system: an allocator, a sanitizer's above all, keeps what is freed.
  void* const touched = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(touched, MAP_FAILED);
  std::memset(touched, 1, kBytes);
  EXPECT_GE(process_memory().resident, before.resident + int64_t(kBytes) / 2);
  munmap(touched, kBytes);
  EXPECT_GE(process_memory().peak, before.resident + int64_t(kBytes) / 2);
  if (!reset) return;
  ASSERT_TRUE(reset_peak_memory());
  EXPECT_LT(process_memory().peak, before.resident + int64_t(kBytes));
}

TEST(Machine, CachesGrowWithTheirLevel) {
  int64_t first = 0;
  for (const CpuCache& cache : cpu_caches()) {
    EXPECT_GE(cache.level, 1);
    EXPECT_GT(cache.bytes, 0);
    if (cache.level == 1) first = cache.bytes;
    if (cache.level == 2) {
      EXPECT_GT(cache.bytes, first);
    }
  }
}

TEST(Bandwidth, ReadsWhatItWrote) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const int64_t bytes : {4096, 100'001, 3 << 20}) EXPECT_GT(read_bandwidth(pool, bytes, 3), 0.0);
  }
  ThreadPool pool(1);
  EXPECT_THROW(read_bandwidth(pool, 0), Error);
  EXPECT_GE(uncached_bytes(), 1 << 20);
}

}  // namespace
}  // namespace quire
