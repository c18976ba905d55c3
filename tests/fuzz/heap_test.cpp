#include "tests/fuzz/heap.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

namespace quire::fuzz {

namespace {

std::atomic<size_t> held{0}, most{0};
size_t start = 0;

void* taken(void* p) {
  if (!p) throw std::bad_alloc();
  const size_t now = held += malloc_usable_size(p);
  size_t peak = most;
  while (now > peak && !most.compare_exchange_weak(peak, now)) {
  }
  return p;
}

void given_back(void* p) {
  if (p) held -= malloc_usable_size(p);
  std::free(p);
}

}  // namespace

void start_heap_count() { most = start = held; }
size_t heap_peak() { return most - start; }

TEST(Heap, CountsThePeakAndRefusesTheAbsurd) {
  start_heap_count();
  { const std::unique_ptr<char[]> a(new char[1 << 20]), b(new char[1 << 20]); }
  const std::unique_ptr<char[]> c(new char[1 << 20]);
  EXPECT_GE(heap_peak(), size_t{2} << 20);
  EXPECT_LT(heap_peak(), size_t{3} << 20);
  volatile size_t absurd = kMostAtOnce + 1;
  EXPECT_THROW(std::make_unique<char[]>(absurd), std::bad_alloc);
}

}  // namespace quire::fuzz

void* operator new(size_t size) {
  return quire::fuzz::taken(size > quire::fuzz::kMostAtOnce ? nullptr : std::malloc(size > 0 ? size : 1));
}
void* operator new(size_t size, std::align_val_t alignment) {
  const size_t a = size_t(alignment);
  return quire::fuzz::taken(size > quire::fuzz::kMostAtOnce ? nullptr : std::aligned_alloc(a, (size + a - 1) / a * a));
}
void operator delete(void* p) noexcept { quire::fuzz::given_back(p); }
void operator delete(void* p, size_t) noexcept { quire::fuzz::given_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { quire::fuzz::given_back(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { quire::fuzz::given_back(p); }
