#include "kernels/context.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

TEST(ChooseIsa, ByName) {
  EXPECT_EQ(choose_isa(nullptr, Isa::avx2), Isa::avx2);
  EXPECT_EQ(choose_isa("", Isa::avx512), Isa::avx512);
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    EXPECT_EQ(choose_isa(to_string(isa), Isa::avx512), isa);
  }
  EXPECT_EQ(choose_isa("baseline", Isa::baseline), Isa::baseline);
}

TEST(ChooseIsa, Refusals) {
  expect_error([] { choose_isa("avx512", Isa::avx2); }, {"QUIRE_ISA=avx512", "has avx2"});
  expect_error([] { choose_isa("avx2", Isa::baseline); }, {"QUIRE_ISA=avx2", "has baseline"});
  for (const char* wrong : {"AVX2", "avx", "avx512 ", "1"}) {
    expect_error([&] { choose_isa(wrong, Isa::avx512); },
                 {std::string("QUIRE_ISA=") + wrong, "baseline, avx2, avx512"});
  }
}

TEST(Scratch, PiecesAreAlignedAndApart) {
  Scratch scratch;
  Rng rng(1);
  std::map<std::byte*, size_t> taken;
  for (int i = 0; i < 300; ++i) {
    const size_t bytes = size_t(between(rng, 0, i % 10 == 0 ? 300000 : 500));
    std::byte* p = scratch.take_bytes(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    std::memset(p, i, bytes);
    if (bytes > 0) taken[p] = bytes;
  }
  std::byte* end = nullptr;
  for (const auto& [p, bytes] : taken) {
    EXPECT_GE(p, end);
    end = p + bytes;
  }
}

TEST(Scratch, ScopesGiveBack) {
  Scratch scratch;
  float* a = scratch.take<float>(10);
  std::byte* inside = nullptr;
  {
    const Scratch::Scope outer(scratch);
    inside = scratch.take_bytes(1000);
    {
      const Scratch::Scope inner(scratch);
      scratch.take_bytes(5 << 20);  // in a block of its own
      scratch.take_bytes(100);
    }
    EXPECT_EQ(scratch.take_bytes(100), inside + 1024);
  }
  EXPECT_EQ(scratch.take_bytes(1), inside);
  EXPECT_NE(reinterpret_cast<std::byte*>(a), inside);
}

TEST(Scratch, StopsGrowing) {
  Scratch scratch;
  const auto step = [&] {
    scratch.reset();
    for (int layer = 0; layer < 4; ++layer) {
      const Scratch::Scope scope(scratch);
      for (const size_t mib : {1, 3, 2}) std::memset(scratch.take_bytes(mib << 20), 1, mib << 20);
    }
  };
  step();
  step();
  const size_t capacity = scratch.capacity();
  std::byte* first = nullptr;
  for (int i = 0; i < 5; ++i) {
    step();
    scratch.reset();
    std::byte* p = scratch.take_bytes(6 << 20);
    if (!first) first = p;
    EXPECT_EQ(p, first);
    EXPECT_EQ(scratch.capacity(), capacity);
  }
  EXPECT_LE(capacity, size_t(10) << 20) << "scopes reuse what came before";
}

TEST(Scratch, TooMuchIsAnError) {
  Scratch scratch;
  expect_error([&] { scratch.take_bytes(size_t(1) << 60); }, {"out of memory"});
  EXPECT_NE(scratch.take_bytes(64), nullptr);
}

}  // namespace
}  // namespace quire
