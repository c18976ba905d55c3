#include "base/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/machine.h"

namespace quire {

namespace {

// Loads only, with enough sums side by side that adding never waits.
uint64_t sum_of(const uint64_t* p, int64_t words) {
  uint64_t sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= words; i += 16) {
    for (int l = 0; l < 16; ++l) sums[l] += p[i + l];
  }
  uint64_t sum = 0;
  for (; i < words; ++i) sum += p[i];
  for (const uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

double read_bandwidth(ThreadPool& pool, int64_t bytes, int passes) {
  check(bytes >= 4096 && passes > 0, "read bandwidth: {} bytes, {} passes", bytes, passes);
  const int64_t words = bytes / int64_t(sizeof(uint64_t));
  const std::unique_ptr<void, void (*)(void*)> memory(std::malloc(size_t(bytes)), std::free);
  check(memory != nullptr, "read bandwidth: {} bytes could not be allocated", bytes);
  auto* data = static_cast<uint64_t*>(memory.get());
  // Pieces are small enough that no thread waits long for the last one, and long enough for the prefetchers.
  const int64_t grain = std::clamp<int64_t>(words / pool.threads() / 4, 512, 1 << 17);
  pool.parallel_for(words, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[i] = uint64_t(i);  // untouched pages would all be the same zeros
  });
  const uint64_t expected = uint64_t(words) * uint64_t(words - 1) / 2;
  std::vector<double> rates;
  for (int pass = 0; pass < passes; ++pass) {
    std::atomic<uint64_t> sum{0};
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(words, grain, [&](int64_t begin, int64_t end) {
      sum.fetch_add(sum_of(data + begin, end - begin), std::memory_order_relaxed);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    check(sum == expected, "read bandwidth: the memory returned other values than were written");
    rates.push_back(double(bytes) / seconds);
  }
  std::nth_element(rates.begin(), rates.begin() + passes / 2, rates.end());
  return rates[size_t(passes) / 2];
}

int64_t uncached_bytes() {
  int64_t largest = 0;
  for (const CpuCache& cache : cpu_caches()) largest = std::max(largest, cache.bytes);
  const int64_t wanted = std::max<int64_t>(2 * largest, 256 << 20), available = machine_memory().available;
  return available > 0 ? std::min(wanted, std::max<int64_t>(available / 4, 1 << 20)) : wanted;
}

}  // namespace quire
