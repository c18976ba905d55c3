#include "tests/fuzz/heap.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "models/json_file.h"
#include "tests/fuzz/target.h"
#include "tests/models/gguf_writer.h"

namespace quire::fuzz {

namespace {

std::atomic<size_t> held{0}, most{0};
size_t start = 0;

[[maybe_unused]] void* taken(void* p) {
  if (!p) throw std::bad_alloc();
  const size_t now = held += malloc_usable_size(p);
  size_t peak = most;
  while (now > peak && !most.compare_exchange_weak(peak, now)) {
  }
  return p;
}

[[maybe_unused]] void given_back(void* p) {
  if (p) held -= malloc_usable_size(p);
  std::free(p);
}

}  // namespace

void start_heap_count() { most = start = held; }
size_t heap_peak() { return most - start; }

// The address sanitizer brings an allocator of its own, with checks of its own: nothing is counted under it.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kCounted = false;
#else
constexpr bool kCounted = true;
#endif

TEST(Heap, CountsThePeakAndRefusesTheAbsurd) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  start_heap_count();
  { const std::unique_ptr<char[]> a(new char[1 << 20]), b(new char[1 << 20]); }
  const std::unique_ptr<char[]> c(new char[1 << 20]);
  EXPECT_GE(heap_peak(), size_t{2} << 20);
  EXPECT_LT(heap_peak(), size_t{3} << 20);
  volatile size_t absurd = kMostAtOnce + 1;
  EXPECT_THROW(std::make_unique<char[]>(absurd), std::bad_alloc);
}

// What a header costs in memory, for the pieces that cost most: no more than kHeapFactor times its bytes.
TEST(Heap, MetadataTakesABoundedMultipleOfItsBytes) {
  if (!kCounted) GTEST_SKIP() << "NOT TESTED under the address sanitizer, which has its own allocator";
  for (const char* piece : {"0,", "[],", "{},", "\"\",", "[[]],", "{\"\":0},", "\"0123456789abcdef\","}) {
    std::string text = "[";
    while (text.size() < 1'000'000) text += piece;
    text.back() = ']';
    start_heap_count();
    EXPECT_EQ(parse_json(text, "test").type(), Json::value_t::array);
    EXPECT_LT(heap_peak(), kHeapFactor * text.size()) << piece;
  }
  std::string keys = "{";
  for (int i = 0; i < 100'000; ++i) keys += fmt::format("\"{:x}\":0,", i);
  keys.back() = '}';
  start_heap_count();
  EXPECT_EQ(parse_json(keys, "test").size(), 100'000u);
  EXPECT_LT(heap_peak(), kHeapFactor * keys.size());

  GgufWriter writer;
  for (int i = 0; i < 65'536; ++i) writer.raw(fmt::format("{:04x}", i), uint32_t(GgufType::u8), "x");
  for (int i = 0; i < 65'536; ++i) writer.tensor_info(fmt::format("{:04x}", i), {1}, 0, uint64_t(i) * 32);
  writer.texts("empty", std::vector<std::string>(100'000));
  const std::string header = writer.header(), path = put_file("many.gguf", header + std::string(65'537 * 32, '\0'));
  start_heap_count();
  const GgufFile file{MappedFile(path)};
  EXPECT_EQ(file.texts("empty")->size(), 100'000u);
  EXPECT_EQ(file.tensors().size(), 65'536u);
  EXPECT_LT(heap_peak(), 32 * header.size());
}

}  // namespace quire::fuzz

#ifndef __SANITIZE_ADDRESS__
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
#endif
