#include "base/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include <sys/mman.h>

#include "base/error.h"
#include "base/machine.h"

namespace quire {

namespace {

// Loads only, with enough sums side by side that adding never waits. `ahead`: bytes from what is read to what is
// fetched.
template <int64_t Ahead>
uint64_t sum_of(const uint64_t* p, int64_t words) {
  constexpr int64_t kLine = 8;
  uint64_t sums[2 * kLine] = {};
  int64_t i = 0;
  for (; i + 2 * kLine <= words; i += 2 * kLine) {
    __builtin_prefetch(p + i + Ahead / 8);
    __builtin_prefetch(p + i + Ahead / 8 + kLine);
    for (int l = 0; l < 2 * kLine; ++l) sums[l] += p[i + l];
  }
  uint64_t sum = 0;
  for (; i < words; ++i) sum += p[i];
  for (const uint64_t s : sums) sum += s;
  return sum;
}

// In large pages if the system gives them, so that walking page tables is not what is measured.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : bytes_(size_t(bytes)) {
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "read bandwidth: {} bytes could not be allocated", bytes);
    madvise(p, bytes_, MADV_HUGEPAGE);
    data_ = static_cast<uint64_t*>(p);
  }
  ~Buffer() { munmap(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  uint64_t* data() const { return data_; }

 private:
  size_t bytes_;
  uint64_t* data_;
};

}  // namespace

double read_bandwidth(ThreadPool& pool, int64_t bytes, int passes) {
  check(bytes >= 4096 && passes > 0, "read bandwidth: {} bytes, {} passes", bytes, passes);
  const int64_t words = bytes / int64_t(sizeof(uint64_t));
  const Buffer buffer(bytes);
  uint64_t* data = buffer.data();
  // Pieces are small enough that no thread waits long for the last one, and long enough for the prefetchers.
  const int64_t grain = std::clamp<int64_t>(words / pool.threads() / 4, 512, 1 << 17);
  pool.parallel_for(words, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[i] = uint64_t(i);  // untouched pages would all be the same zeros
  });
  const uint64_t expected = uint64_t(words) * uint64_t(words - 1) / 2;
  double best = 0.0;
  for (auto* sum_of_piece : {sum_of<1024>, sum_of<4096>}) {  // which is better depends on where the buffer lies
    std::vector<double> rates;
    for (int pass = 0; pass < passes; ++pass) {
      std::atomic<uint64_t> sum{0};
      const auto start = std::chrono::steady_clock::now();
      pool.parallel_for(words, grain, [&](int64_t begin, int64_t end) {
        sum.fetch_add(sum_of_piece(data + begin, end - begin), std::memory_order_relaxed);
      });
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      check(sum == expected, "read bandwidth: the memory returned other values than were written");
      rates.push_back(double(bytes) / seconds);
    }
    std::nth_element(rates.begin(), rates.begin() + passes / 2, rates.end());
    best = std::max(best, rates[size_t(passes) / 2]);
  }
  return best;
}

int64_t uncached_bytes() {
  int64_t largest = 0;
  for (const CpuCache& cache : cpu_caches()) largest = std::max(largest, cache.bytes);
  const int64_t wanted = std::max<int64_t>(2 * largest, 256 << 20), available = machine_memory().available;
  return available > 0 ? std::min(wanted, std::max<int64_t>(available / 4, 1 << 20)) : wanted;
}

}  // namespace quire
